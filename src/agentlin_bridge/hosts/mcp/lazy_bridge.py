"""The bridge of a server: made at start, opened when a tool is first called, closed when the server leaves."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup, TaskStatus

from agentlin_bridge.delegation.bridge import TaskBridge

logger = logging.getLogger(__name__)


MakeBridge = Callable[[], TaskBridge]


class LazyBridge:
    """Opens a bridge on demand, and another one after a failure.

    Args:
        first: not yet open.
        make: makes further ones.
        group: keeps them open.
    """

    def __init__(self, first: TaskBridge, make: MakeBridge, group: TaskGroup) -> None:
        self._bridge = first
        self._make = make
        self._group = group
        self._opening = anyio.Lock()
        self._leaving = anyio.Event()
        self._is_open = False
        self._is_fresh = True

    async def get(self) -> TaskBridge:
        """The open bridge.

        Raises:
            LedgerError: it cannot be opened now; the next call tries again.
        """
        async with self._opening:
            if not self._is_open:
                if not self._is_fresh:
                    self._bridge = self._make()
                self._is_fresh = False
                # A caller who goes away must not leave it half open.
                with anyio.CancelScope(shield=True):
                    await self._group.start(self._keep_open, self._bridge)
            return self._bridge

    def leave(self) -> None:
        """Have the bridge closed; its tasks go on without us."""
        self._leaving.set()

    async def _keep_open(self, bridge: TaskBridge, *, task_status: TaskStatus[None]) -> None:
        opened = False
        # Closing takes a moment; whoever cancels the server has to grant it.
        with anyio.CancelScope(shield=True):
            try:
                async with bridge:
                    opened = self._is_open = True
                    task_status.started()
                    try:
                        await self._leaving.wait()
                    finally:
                        self._is_open = False
            except Exception:
                if not opened:
                    raise
                logger.exception("the bridge failed; the next tool call opens another")


@asynccontextmanager
async def lazily_open(first: TaskBridge, make: MakeBridge) -> AsyncIterator[LazyBridge]:
    """While entered, a bridge can be had; on exit it is closed."""
    async with anyio.create_task_group() as group:
        lazy = LazyBridge(first, make, group)
        try:
            yield lazy
        finally:
            lazy.leave()
