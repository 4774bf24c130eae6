"""A host's cancellation of a running call: it cancels the task, unless it only says that the host's time is up.

The SDK interrupts the call as soon as `notifications/cancelled` arrives and tells nobody why; the middleware
chain sees the same notification right afterwards, with its reason. A closed connection and a signal interrupt
calls as well, but no notification follows: then the task goes on.
"""

from __future__ import annotations

import logging
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


@dataclass(slots=True)
class _OpenCall:
    task_id: str | None = None
    over: anyio.Event = field(default_factory=anyio.Event)


class OpenCalls:
    """The running tool calls of one connection whose cancellation means the task; a server middleware.

    Args:
        tools: their names.
    """

    def __init__(self, tools: Collection[str]) -> None:
        self._tools = tools
        self._calls: dict[str, _OpenCall] = {}

    def concerns(self, request_id: object, task_id: str) -> None:
        """Note which task a call is about."""
        if (call := self._calls.get(str(request_id))) is not None:
            call.task_id = task_id

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """Watch calls and their cancellations pass."""
        params = ctx.params or {}
        if ctx.method == "notifications/cancelled":
            await self._cancelled(ctx, str(params.get("requestId")), params.get("reason"))
        if ctx.method != "tools/call" or params.get("name") not in self._tools:
            return await call_next(ctx)
        call = self._calls[str(ctx.request_id)] = _OpenCall()
        interrupted = False
        try:
            return await call_next(ctx)
        except anyio.get_cancelled_exc_class():
            interrupted = True
            raise
        finally:
            call.over.set()
            if not interrupted:
                del self._calls[str(ctx.request_id)]

    async def _cancelled(self, ctx: ServerRequestContext[Any, Any], request_id: str, reason: object) -> None:
        call = self._calls.get(request_id)
        if call is None:
            return
        # A host that leaves right after its cancellation still means it.
        with anyio.move_on_after(PATIENCE, shield=True):
            # Until then it may not be known which task it is.
            await call.over.wait()
            self._calls.pop(request_id, None)
            if call.task_id is None or says_timeout(reason):
                return
            try:
                bridge: TaskBridge = await ctx.lifespan_context.bridge.get()
                await bridge.cancel(call.task_id)
            except BridgeError as error:
                logger.warning("cancelling %s for the host: %s", call.task_id, error.message)


def says_timeout(reason: object) -> bool:
    """Whether a cancellation only says that the client's own time is up, as SDKs do."""
    return isinstance(reason, str) and _TIMEOUT.search(reason) is not None
