"""What every tool, resource and prompt of a server works with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mcp.server.mcpserver import Context

from agentlin_bridge.delegation.client_tools import ClientTool
from agentlin_bridge.hosts.mcp.cancelling import OpenCalls
from agentlin_bridge.hosts.mcp.lazy_bridge import LazyBridge
from agentlin_bridge.hosts.mcp.results import TaskResults
from agentlin_bridge.settings import Config


@dataclass(frozen=True, slots=True)
class Serving:
    """A server at work.

    Attributes:
        bridge: opened when it is first needed.
        config: the configuration file.
        client_tools: offered with every task, and executed by the bridge.
        results: puts tasks into words.
        calls: the tool calls that run now.
    """

    bridge: LazyBridge
    config: Config
    client_tools: Sequence[ClientTool]
    results: TaskResults
    calls: OpenCalls


Ctx: TypeAlias = Context[Serving]


def serving(ctx: Ctx) -> Serving:
    """The server that a request came to."""
    return ctx.request_context.lifespan_context
