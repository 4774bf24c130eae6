"""A thread with an event loop for bridges to live on, whoever calls: sync code, or loops that come and go."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import logging
import threading
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Concatenate, ParamSpec, TypeVar

from agentlin_bridge import TaskBridge
from agentlin_bridge.errors import BridgeError

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

CLOSING_TIMEOUT = 6.0
"""Seconds that closing a bridge may take, so that a cancel on its way still reaches the remote."""


class Portal:
    """One daemon thread with one event loop, which runs until the process ends."""

    def __init__(self) -> None:
        started: Future[asyncio.AbstractEventLoop] = Future()
        # A main task, rather than `run_forever`, is what anyio ties its worker threads to.
        self._thread = threading.Thread(
            target=asyncio.run, args=(_forever(started),), name="agentlin-bridge", daemon=True
        )
        self._thread.start()
        self.loop = started.result()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs. After a fork it does not, in the child."""
        return self._thread.is_alive()

    @property
    def is_here(self) -> bool:
        """Whether the calling code is running on this thread."""
        return threading.current_thread() is self._thread

    def submit(self, function: Callable[P, Awaitable[T]], /, *arguments: P.args, **keywords: P.kwargs) -> Future[T]:
        """Run an async function on the thread, in the caller's context. Cancelling the future cancels it."""

        async def run() -> T:
            return await function(*arguments, **keywords)

        return asyncio.run_coroutine_threadsafe(run(), self.loop)


async def _forever(started: Future[asyncio.AbstractEventLoop]) -> None:
    started.set_result(asyncio.get_running_loop())
    await asyncio.Event().wait()


_starting = threading.Lock()


def current_portal() -> Portal:
    """The process's portal, started when first needed."""
    with _starting:
        portal = _portal()
        if not portal.is_alive:
            _portal.cache_clear()
            portal = _portal()
        return portal


@lru_cache(maxsize=1)
def _portal() -> Portal:
    return Portal()


@dataclass(slots=True)
class _Open:
    """A bridge that is open, or on the way. It is entered and left by one task, as anyio wants it."""

    portal: Portal
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    ready: asyncio.Future[TaskBridge] = field(init=False)
    holder: asyncio.Task[None] = field(init=False)
    calls: set[asyncio.Task[Any]] = field(default_factory=set)

    async def hold(self, build: Callable[[], TaskBridge]) -> None:
        try:
            async with build() as bridge:
                self.ready.set_result(bridge)
                await self.closing.wait()
                # Calls that were cancelled are telling the remote so.
                if leaving := [call for call in self.calls if call.cancelling()]:
                    await asyncio.wait(leaving, timeout=CLOSING_TIMEOUT)
        except Exception as error:
            if self.ready.done():
                logger.exception("the bridge has ended")
            else:
                self.ready.set_exception(error)

    async def left(self) -> None:
        await asyncio.wait([self.holder], timeout=CLOSING_TIMEOUT)


class BridgeKeeper:
    """Opens a bridge when it is first needed and keeps it open, for callers from any thread and loop.

    It is closed by `close`, when the keeper is garbage, or when the interpreter exits. A later call opens it
    again.

    Args:
        build: makes the bridge; called on the portal's thread.
    """

    def __init__(self, build: Callable[[], TaskBridge]) -> None:
        self._build = build
        self._open: _Open | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # An open bridge stays where it is; a copy opens its own.
        return BridgeKeeper, (self._build,)

    def call(
        self,
        function: Callable[Concatenate[TaskBridge, P], Awaitable[T]],
        /,
        *arguments: P.args,
        **keywords: P.kwargs,
    ) -> T:
        """Run an async function with the bridge and wait for it, in sync code.

        Raises:
            BridgeError: this is the portal's own thread, which must not wait for itself.
        """
        return self.call_at_once(_once_open(function), *arguments, **keywords)

    async def acall(
        self,
        function: Callable[Concatenate[TaskBridge, P], Awaitable[T]],
        /,
        *arguments: P.args,
        **keywords: P.kwargs,
    ) -> T:
        """Like `call`, from any event loop. What is cancelled here goes on there until it has cleaned up."""
        return await self.acall_at_once(_once_open(function), *arguments, **keywords)

    def call_at_once(
        self,
        function: Callable[Concatenate[Awaitable[TaskBridge], P], Awaitable[T]],
        /,
        *arguments: P.args,
        **keywords: P.kwargs,
    ) -> T:
        """Like `call`, for a function that does something before the bridge is open, and awaits it then."""
        portal = current_portal()
        if portal.is_here:
            raise BridgeError(
                "A sync call from the bridge's own event loop would wait for itself forever.",
                next_step="await the async form (ainvoke) there",
            )
        future = portal.submit(self._with_bridge, portal, function, *arguments, **keywords)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def acall_at_once(
        self,
        function: Callable[Concatenate[Awaitable[TaskBridge], P], Awaitable[T]],
        /,
        *arguments: P.args,
        **keywords: P.kwargs,
    ) -> T:
        """Like `acall`, for a function that does something before the bridge is open, and awaits it then."""
        portal = current_portal()
        return await asyncio.wrap_future(portal.submit(self._with_bridge, portal, function, *arguments, **keywords))

    def close(self) -> None:
        """Close the bridge, if it is open. Its tasks go on; calls that wait for them return."""
        opened = self._open
        if opened is None or not opened.portal.is_alive:
            return
        opened.portal.loop.call_soon_threadsafe(opened.closing.set)
        if not opened.portal.is_here:
            opened.portal.submit(opened.left).result()

    async def _with_bridge(
        self,
        portal: Portal,
        function: Callable[Concatenate[Awaitable[TaskBridge], P], Awaitable[T]],
        /,
        *arguments: P.args,
        **keywords: P.kwargs,
    ) -> T:
        opened = self._opened(portal)
        call = asyncio.current_task()
        assert call is not None  # noqa: S101  (a coroutine of the portal is a task)
        opened.calls.add(call)
        try:
            return await function(asyncio.shield(opened.ready), *arguments, **keywords)
        finally:
            opened.calls.discard(call)

    def _opened(self, portal: Portal) -> _Open:
        opened = self._open
        if opened is None or opened.portal is not portal or opened.closing.is_set() or opened.holder.done():
            opened = self._open = _Open(portal)
            opened.ready = portal.loop.create_future()
            # It outlives this call, whose context it must not keep alive.
            opened.holder = portal.loop.create_task(opened.hold(self._build), context=contextvars.Context())
            weakref.finalize(self, portal.loop.call_soon_threadsafe, opened.closing.set).atexit = False
            _keepers.add(self)
        return opened


def _once_open(
    function: Callable[Concatenate[TaskBridge, P], Awaitable[T]],
) -> Callable[Concatenate[Awaitable[TaskBridge], P], Awaitable[T]]:
    async def once_open(bridge: Awaitable[TaskBridge], /, *arguments: P.args, **keywords: P.kwargs) -> T:
        return await function(await bridge, *arguments, **keywords)

    return once_open


_keepers: weakref.WeakSet[BridgeKeeper] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for keeper in list(_keepers):
        with suppress(Exception):
            keeper.close()
