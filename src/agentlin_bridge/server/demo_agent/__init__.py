"""The demo agent: small, deterministic, and honest about it. It digests text, Markdown and CSV."""

from agentlin_bridge.server.demo_agent.agent import BANNER, DemoAgent

__all__ = ["BANNER", "DemoAgent"]
