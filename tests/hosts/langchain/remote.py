"""A remote that asks for what it is told to, for what the demo agent never does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import anyio
from anyio.from_thread import start_blocking_portal
from starlette.requests import Request
from starlette.responses import Response

from tests.support.remote import Json, ScriptedRemote, Turn, call, message, results_of


class Remote(ScriptedRemote):
    """Asks for `calls` in its first round and answers with their results in the second.

    Attributes:
        calls: tool names and their arguments, as the remote writes them.
        ending: how its last round ends, if not with an answer.
        hangs: whether its rounds end only when they are canceled or released.
        offered: the client tools it was offered, by name.
        results: what came back, by call id.
        answered: set when results have come.
        hanging: set when a round has begun to hang.
        told_to_cancel: set when a cancel has come.
    """

    def __init__(self) -> None:
        super().__init__(self.turn)
        self.calls: list[tuple[str, str]] = []
        self.ending: Turn | None = None
        self.hangs = False
        self.offered: dict[str, Any] = {}
        self.results: dict[str, str] = {}
        self.answered = threading.Event()
        self.hanging = threading.Event()
        self.told_to_cancel = threading.Event()
        self._gate = anyio.Event()

    def turn(self, body: Json) -> Turn:
        self.offered = {tool["function"]["name"]: tool["function"] for tool in body.get("client_tools", [])}
        gate = self._gate if self.hangs else None
        if gate is not None:
            self.hanging.set()
        if self.calls and not body.get("previous_task_id"):
            return Turn([call(f"call_{place}", *each) for place, each in enumerate(self.calls)], gate=gate)
        self.results = results_of(body)
        self.answered.set()
        return self.ending or Turn([message("\n".join(self.results.values()))], gate=gate)

    def release(self) -> None:
        """End the rounds that hang."""
        self._portal.call(self._gate.set)

    async def _cancel(self, request: Request) -> Response:
        response = await super()._cancel(request)
        self._gate.set()
        self.told_to_cancel.set()
        return response

    @contextmanager
    def serving(self) -> Iterator[Self]:
        """Serve it from a thread of its own."""
        with start_blocking_portal() as self._portal, self._portal.wrap_async_context_manager(self.serve()):
            try:
                yield self
            finally:
                self.release()
