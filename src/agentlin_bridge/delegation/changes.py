"""Noticing that a task changed: at once when this process did it, within a moment when another did."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio

from agentlin_bridge.delegation.ledger import reading
from agentlin_bridge.delegation.ledger.ledger import Ledger
from agentlin_bridge.errors import LedgerError

logger = logging.getLogger(__name__)

INTERVAL = 0.5
"""Seconds between looks at the ledger for other processes' changes, while somebody waits."""


class Changes:
    """Wakes those who wait for a task to change.

    Args:
        ledger: looked at for changes by other processes.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._watched: Counter[str] = Counter()
        self._events: dict[str, anyio.Event] = {}
        self._versions: dict[str, int] = {}
        self._wanted = anyio.Event()

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
        """Look for other processes' changes until cancelled.

        Args:
            on_terminal: called with the id of a watched task that is over.
        """
        while True:
            await self._wanted.wait()
            if not self._watched:
                self._wanted = anyio.Event()
                continue
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
            await anyio.sleep(INTERVAL)

    def _notice(self, task_id: str, version: int) -> None:
        if self._versions.get(task_id, version) != version:
            self.announce(task_id)
        if task_id in self._watched:
            self._versions[task_id] = version
