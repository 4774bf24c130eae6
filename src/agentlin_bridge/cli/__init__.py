"""The command `agentlin-bridge`."""

from agentlin_bridge.cli.app import main

__all__ = ["main"]
