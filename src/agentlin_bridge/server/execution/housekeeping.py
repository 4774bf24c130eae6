"""What has to be done now and then: tasks expire, and what nobody needs any more is deleted."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial

import anyio
from sqlalchemy.exc import SQLAlchemyError

from agentlin_bridge.server.execution import endings
from agentlin_bridge.server.execution.engine import BATCH, Engine
from agentlin_bridge.server.records.store import Store

logger = logging.getLogger(__name__)

INTERVAL = 60.0
"""Seconds between two rounds of cleaning, and at most between two looks for what expires."""
ROUNDS_KEPT = 600.0
"""Seconds for which the engine's own record of a round is kept after its end."""


class Housekeeping:
    """The keeper of one process. Several processes on one database do not get into each other's way.

    Args:
        retention: seconds for which ended tasks are kept; None is for ever.
        expired: called with the id of a task whose time is up.
    """

    def __init__(
        self,
        store: Store,
        engine: Engine,
        retention: float | None,
        expired: Callable[[str], Awaitable[None]],
    ) -> None:
        self._store = store
        self._engine = engine
        self._retention = retention
        self._expired = expired
        self._wake_at = 0.0
        self._sooner = anyio.Event()

    def expect(self, expires_at: float) -> None:
        """A task expires at a time."""
        if expires_at < self._wake_at:
            self._sooner.set()

    async def keep(self) -> None:
        """Go on for ever."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch_the_clock)
            group.start_soon(self._clean)

    async def _watch_the_clock(self) -> None:
        while True:
            self._sooner = anyio.Event()
            self._wake_at = 0.0
            now = time.time()
            self._wake_at = now + INTERVAL
            with _surviving("could not look for expired tasks"):
                found = await self._store.read(endings.next_expiry)
                if found is not None and found[1] <= now:
                    await self._expired(found[0])
                    continue
                if found is not None:
                    self._wake_at = min(self._wake_at, found[1])
            with anyio.move_on_after(self._wake_at - now):
                await self._sooner.wait()

    async def _clean(self) -> None:
        interval = INTERVAL if self._retention is None else min(INTERVAL, max(self._retention / 2, 0.1))
        while True:
            with _surviving("could not delete what is outdated"):
                await self.clean()
            await anyio.sleep(interval)

    async def clean(self) -> None:
        """Delete what is outdated by now."""
        while await self._engine.clear(ROUNDS_KEPT) == BATCH:
            pass
        if self._retention is None:
            return
        before = time.time() - self._retention
        while turns := await self._store.read(partial(endings.outdated, before=before, limit=BATCH)):
            erased = 0
            for turn_id in turns:
                erased += await self._store.write(partial(endings.erase_turn, turn_id=turn_id, before=before))
            if not erased:
                break
        await self._store.write(partial(endings.clear_graves, before=before))


@contextmanager
def _surviving(what: str) -> Iterator[None]:
    """A database that is away for a moment does not end the housekeeping."""
    try:
        yield
    except SQLAlchemyError as error:
        logger.warning("%s: %s", what, type(error).__name__)
