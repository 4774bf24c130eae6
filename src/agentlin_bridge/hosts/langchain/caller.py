"""The caller of one delegation: its event loop, context, configuration and graph runtime."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, ParamSpec, TypeVar

import anyio.to_thread
from anyio import CapacityLimiter
from langchain_core.runnables import RunnableConfig

from agentlin_bridge.errors import BridgeError

P = ParamSpec("P")
T = TypeVar("T")


class Caller:
    """Runs the host's own code where the host would: in the caller's context and, if it has one, its loop.

    Args:
        config: what the host's tools are invoked with.
        runtime: LangGraph's `ToolRuntime`, if the call comes from a graph.
        loop: the caller's event loop; None for a sync call, whose thread only waits. Async code then runs in
            the loop of whoever asks, sync code on a thread of its own.

    Attributes:
        task_id: the delegated task, once there is one.
    """

    def __init__(self, config: RunnableConfig, runtime: Any, loop: asyncio.AbstractEventLoop | None) -> None:
        self.config = config
        self.runtime = runtime
        self.is_sync = loop is None
        self.task_id: str | None = None
        self._loop = loop
        self._context = contextvars.copy_context()

    def call(self, function: Callable[P, T], /, *arguments: P.args, **keywords: P.kwargs) -> T:
        """Call a function that returns at once, in the caller's context but on this thread."""
        return self._context.copy().run(function, *arguments, **keywords)

    async def run(
        self, function: Callable[P, Coroutine[Any, Any, T]], /, *arguments: P.args, **keywords: P.kwargs
    ) -> T:
        """Run an async function of the host's.

        Raises:
            BridgeError: the caller's loop is closed, or cancelled it.
        """
        loop = self._loop or asyncio.get_running_loop()

        async def in_context() -> T:
            return await loop.create_task(function(*arguments, **keywords), context=self._context.copy())

        try:
            if loop is asyncio.get_running_loop():
                return await in_context()
            if loop.is_closed():
                raise BridgeError("The event loop that delegated the task is closed.")
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(in_context(), loop))
        except asyncio.CancelledError:
            if _is_being_cancelled():
                raise
            raise BridgeError("It was canceled on the host's side.") from None

    async def run_in_thread(self, function: Callable[P, T], /, *arguments: P.args, **keywords: P.kwargs) -> T:
        """Run a sync function of the host's. A thread cannot be stopped; if cancelled, it is not waited for."""
        # The bridge limits how many run at once; the threads its ledger needs must not be among those they take.
        return await anyio.to_thread.run_sync(
            partial(self._context.copy().run, function, *arguments, **keywords),
            abandon_on_cancel=True,
            limiter=CapacityLimiter(1),
        )


def is_graph_control(error: BaseException) -> bool:
    """Whether an exception is LangGraph's way to leave a node: an interrupt or a command for a parent graph."""
    return any(kind.__name__ == "GraphBubbleUp" for kind in type(error).__mro__)


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
