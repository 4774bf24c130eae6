"""Noticing that a task changed: at once when this process did it, or another on PostgreSQL, which tells; within half a
second when another did on SQLite.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio

from agentlin_bridge.delegation.ledger import reading
from agentlin_bridge.delegation.ledger.ledger import Ledger
from agentlin_bridge.errors import LedgerError
from agentlin_bridge.task import TaskStatus

logger = logging.getLogger(__name__)


class Changes:
    """Wakes those who wait for a task to change.

    Args:
        ledger: tells of changes by other processes, or is looked at for them.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._watched: Counter[str] = Counter()
        self._events: dict[str, anyio.Event] = {}
        self._versions: dict[str, int] = {}
        self._wanted = anyio.Event()
        self._missed = anyio.Event()

    @contextmanager
    def watching(self, task_id: str) -> Iterator[None]:
        """While entered, other processes' changes to the task are noticed too."""
        self._watched[task_id] += 1
        self._wanted.set()
        try:
            yield
        finally:
            self._watched[task_id] -= 1
            if not self._watched[task_id]:
                del self._watched[task_id]
                self._versions.pop(task_id, None)
                self._events.pop(task_id, None)

    def next(self, task_id: str) -> anyio.Event:
        """An event set at the next change. Take it before reading the task, or a change can be missed."""
        return self._events.setdefault(task_id, anyio.Event())

    def announce(self, task_id: str) -> None:
        """This process has changed the task."""
        if (event := self._events.pop(task_id, None)) is not None:
            event.set()

    async def run(self, on_terminal: Callable[[str], None]) -> None:
        """Notice other processes' changes, and keep this one noticed, until cancelled.

        Args:
            on_terminal: called with the id of a watched task that is over.
        """

        def heard(task_id: str, status: TaskStatus) -> None:
            self.announce(task_id)
            if status.is_terminal:
                on_terminal(task_id)

        async with anyio.create_task_group() as group:
            group.start_soon(self._ledger.keep_present, heard, self._miss)
            await self._look(on_terminal)

    async def _look(self, on_terminal: Callable[[str], None]) -> None:
        while True:
            await self._wanted.wait()
            if not self._watched:
                self._wanted = anyio.Event()
                continue
            self._missed = anyio.Event()
            try:
                found = await self._ledger.read(reading.versions, list(self._watched))
            except LedgerError as error:
                # Who waits is still woken by our own changes, and the next look may succeed.
                logger.warning("%s", error)
                found = {}
            for task_id, (version, status) in found.items():
                self._notice(task_id, version)
                if status.is_terminal:
                    on_terminal(task_id)
            with anyio.move_on_after(self._ledger.look_interval):
                await self._missed.wait()

    def _miss(self) -> None:
        self._missed.set()

    def _notice(self, task_id: str, version: int) -> None:
        if task_id in self._watched:
            # At the first look nobody knows which version those who watch have seen.
            if self._versions.get(task_id) != version:
                self.announce(task_id)
            self._versions[task_id] = version
