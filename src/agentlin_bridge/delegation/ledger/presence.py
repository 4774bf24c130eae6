"""Which bridge instances are alive, told by OS file locks: no clocks, no lease rows."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout


class Presence:
    """This bridge instance's own lock, held for as long as it lives, and a look at the others'.

    Args:
        directory: where the lock files are; shared by all instances on one ledger.
    """

    def __init__(self, directory: Path) -> None:
        self.instance = f"bridge_{secrets.token_hex(8)}"
        self._directory = directory
        self._lock = self._lock_of(self.instance)

    def announce(self) -> None:
        """Take this instance's lock."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock.acquire(blocking=False)

    def withdraw(self) -> None:
        """Release it."""
        self._lock.release()
        self._path_of(self.instance).unlink(missing_ok=True)

    def is_alive(self, instance: str) -> bool:
        """Whether the process behind an instance still runs."""
        if instance == self.instance:
            return True
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
