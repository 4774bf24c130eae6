"""The end of a server: waits for tasks end with what is known by then, and the tasks go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio


class Waits:
    """The waits that are open now, which can be ended together."""

    def __init__(self) -> None:
        self._scopes: set[anyio.CancelScope] = set()
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the server is leaving, and nothing shall wait any more."""
        return self._ended

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """What happens inside stops as soon as the waits are ended, and then goes on behind."""
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            if self._ended:
                scope.cancel()
            try:
                yield
            finally:
                self._scopes.discard(scope)

    def end(self) -> None:
        """End all of them, and those that begin later."""
        self._ended = True
        for scope in tuple(self._scopes):
            scope.cancel()
