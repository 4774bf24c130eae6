"""Which bridge instances are alive: told by locks that end with their holder, not by clocks or lease rows."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import anyio.to_thread
from filelock import FileLock, Timeout

from agentlin_bridge.task import TaskStatus

Heard = Callable[[str, TaskStatus], None]
"""Told the id and the status of a task that another instance has changed."""


def new_instance() -> str:
    """A name that no other bridge instance has."""
    return f"bridge_{secrets.token_hex(8)}"


class Presence(Protocol):
    """This bridge instance among those on one ledger.

    Attributes:
        instance: its name.
        look_interval: seconds after which it has to look for changes that it was not told.
    """

    instance: str
    look_interval: float

    async def join(self) -> None:
        """Be alive from now on, for the others."""

    async def leave(self) -> None:
        """Be so no longer."""

    async def is_alive(self, instance: str) -> bool:
        """Whether the process behind an instance still runs."""

    async def secured(self) -> None:
        """Return as long as the others can tell that this instance is alive.

        Raises:
            LedgerError: they cannot, and that does not pass.
        """

    async def keep(self, heard: Heard, missed: Callable[[], None]) -> None:
        """Stay alive for the others, until cancelled.

        Args:
            heard: told of changes by others.
            missed: called when there may have been some that were not told.
        """


class FilePresence:
    """Presence by an OS file lock: for the instances on one machine.

    Args:
        instance: this instance's name.
        directory: where the lock files are; shared by all instances on one ledger.
    """

    look_interval = 0.5

    def __init__(self, instance: str, directory: Path) -> None:
        self.instance = instance
        self._directory = directory
        self._lock = self._lock_of(self.instance)

    async def join(self) -> None:
        """Take this instance's lock."""
        await anyio.to_thread.run_sync(self._take)

    async def leave(self) -> None:
        """Release it."""
        await anyio.to_thread.run_sync(self._release)

    async def is_alive(self, instance: str) -> bool:
        """Whether the process behind an instance still runs."""
        return instance == self.instance or await anyio.to_thread.run_sync(self._is_locked, instance)

    async def secured(self) -> None:
        """A file lock cannot be lost."""

    async def keep(self, heard: Heard, missed: Callable[[], None]) -> None:
        """Nothing is told: changes by others are to be looked for."""

    def _take(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock.acquire(blocking=False)

    def _release(self) -> None:
        self._lock.release()
        self._path_of(self.instance).unlink(missing_ok=True)

    def _is_locked(self, instance: str) -> bool:
        path = self._path_of(instance)
        if not path.exists():
            return False
        lock = self._lock_of(instance)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return True
        lock.release()
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return False

    def _path_of(self, instance: str) -> Path:
        return self._directory / f"{instance}.lock"

    def _lock_of(self, instance: str) -> FileLock:
        return FileLock(self._path_of(instance), thread_local=False)
