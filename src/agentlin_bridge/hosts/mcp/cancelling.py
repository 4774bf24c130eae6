"""A host's cancellation of a running call: it cancels the task, unless it only says that the host's time is up.

The SDK interrupts the call as soon as `notifications/cancelled` arrives and tells nobody why; the middleware
chain sees the same notification right afterwards, with its reason. A closed connection and a signal interrupt
calls as well, but no notification follows: then the task goes on. Over HTTP since 2026-07-28 there are no
notifications from the client.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import anyio
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

from agentlin_bridge.delegation.bridge import TaskBridge
from agentlin_bridge.errors import BridgeError

logger = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds a cancellation may take before the server goes on without its outcome."""

_TIMEOUT = re.compile(r"time(d\s*|-)?\s*out", re.IGNORECASE)


SESSION_HEADER = "mcp-session-id"


@dataclass(slots=True)
class _OpenCall:
    task_id: str | None = None
    over: anyio.Event = field(default_factory=anyio.Event)
    ended_at: float = math.inf


class OpenCalls:
    """The running tool calls whose cancellation means the task; a server middleware.

    Clients number their requests as they like, so a call is known by its connection as well.

    Args:
        tools: their names.
    """

    def __init__(self, tools: Collection[str]) -> None:
        self._tools = tools
        self._calls: dict[tuple[str, str], _OpenCall] = {}

    def concerns(self, ctx: ServerRequestContext[Any, Any], task_id: str) -> None:
        """Note which task a call is about."""
        connection = _connection(ctx)
        if connection is not None and (call := self._calls.get((connection, str(ctx.request_id)))) is not None:
            call.task_id = task_id

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """Watch calls and their cancellations pass."""
        params = ctx.params or {}
        connection = _connection(ctx)
        if connection is None:
            return await call_next(ctx)
        if ctx.method == "notifications/cancelled":
            await self._cancelled(ctx, (connection, str(params.get("requestId"))), params.get("reason"))
        if ctx.method != "tools/call" or params.get("name") not in self._tools:
            return await call_next(ctx)
        self._forget_interrupted()
        key = (connection, str(ctx.request_id))
        call = self._calls[key] = _OpenCall()
        interrupted = False
        try:
            return await call_next(ctx)
        except anyio.get_cancelled_exc_class():
            interrupted = True
            raise
        finally:
            call.over.set()
            call.ended_at = anyio.current_time()
            if not interrupted:
                self._calls.pop(key, None)

    def _forget_interrupted(self) -> None:
        """What nobody explained by now was interrupted by the end of its connection."""
        long_ago = anyio.current_time() - PATIENCE
        for key in [key for key, call in self._calls.items() if call.ended_at < long_ago]:
            del self._calls[key]

    async def _cancelled(self, ctx: ServerRequestContext[Any, Any], key: tuple[str, str], reason: object) -> None:
        call = self._calls.get(key)
        if call is None:
            return
        # A host that leaves right after its cancellation still means it.
        with anyio.move_on_after(PATIENCE, shield=True):
            # Until then it may not be known which task it is.
            await call.over.wait()
            self._calls.pop(key, None)
            if call.task_id is None or says_timeout(reason):
                return
            try:
                bridge: TaskBridge = await ctx.lifespan_context.bridge_of_caller()
                await bridge.cancel(call.task_id)
            except BridgeError as error:
                logger.warning("cancelling %s for the host: %s", call.task_id, error.message)


def _connection(ctx: ServerRequestContext[Any, Any]) -> str | None:
    """What tells the connections of a server apart; None for a request that is a connection of its own."""
    return "" if ctx.request is None else ctx.request.headers.get(SESSION_HEADER)


def says_timeout(reason: object) -> bool:
    """Whether a cancellation only says that the client's own time is up, as SDKs do."""
    return isinstance(reason, str) and _TIMEOUT.search(reason) is not None
