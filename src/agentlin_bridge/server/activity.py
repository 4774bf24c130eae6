"""Whether anybody still needs the server: open requests and running tasks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio


class Activity:
    """Counts what goes on. Belongs to one event loop."""

    def __init__(self) -> None:
        self._open = 0
        self._quiet = anyio.Event()
        self._quiet.set()
        self._since = anyio.current_time()

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Something is under way while the context lasts."""
        if not self._open:
            self._quiet = anyio.Event()
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
            if not self._open:
                self._since = anyio.current_time()
                self._quiet.set()

    async def idle(self, seconds: float) -> None:
        """Return once nothing has gone on for so many seconds at a stretch."""
        while True:
            await self._quiet.wait()
            remaining = self._since + seconds - anyio.current_time()
            if remaining <= 0:
                return
            await anyio.sleep(remaining)
