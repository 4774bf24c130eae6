"""What every tool, resource and prompt of a server works with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context

from agentlin_bridge.delegation.bridge import TaskBridge
from agentlin_bridge.delegation.client_tools import ClientTool
from agentlin_bridge.delegation.finding import LOCAL
from agentlin_bridge.hosts.mcp.cancelling import OpenCalls
from agentlin_bridge.hosts.mcp.lazy_bridge import LazyBridge
from agentlin_bridge.hosts.mcp.leaving import Waits
from agentlin_bridge.hosts.mcp.principals import Principals
from agentlin_bridge.hosts.mcp.results import TaskResults
from agentlin_bridge.settings import Config
from agentlin_bridge.task import Task


@dataclass(slots=True)
class Lingering:
    """A call that need not wait to the end: after a moment it may leave its task behind.

    Attributes:
        patience: seconds the call waits itself.
        task: left behind, because it goes on by itself and the call would have waited longer.
        offset: where in its answer to start.
    """

    patience: float
    task: Task | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Serving:
    """A server at work.

    Attributes:
        bridge: opened when it is first needed.
        config: the configuration file.
        client_tools: offered with every task, and executed by the bridge.
        results: puts tasks into words.
        calls: the tool calls that run now.
        principals: whose requests these are.
        waits: the calls that wait now.
        lingering: set for a call that may leave its task behind.
    """

    bridge: LazyBridge
    config: Config
    client_tools: Sequence[ClientTool]
    results: TaskResults
    calls: OpenCalls
    principals: Principals
    waits: Waits
    lingering: Lingering | None = None

    async def bridge_of_caller(self) -> TaskBridge:
        """The open bridge, with nothing but the tasks of the principal whose request this code runs for.

        Raises:
            BridgeError: the request names no principal, or the bridge cannot be opened.
        """
        principal = self.principals.current()
        bridge = await self.bridge.get()
        return bridge if principal == LOCAL else bridge.acting_for(principal)


Ctx: TypeAlias = Context[Serving]
RawCtx: TypeAlias = ServerRequestContext[Serving, Any]


def serving(ctx: Ctx) -> Serving:
    """The server that a request came to."""
    return ctx.request_context.lifespan_context
