"""A remote whose agents ask for what a plan says, round by round, and answer with all they were told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import anyio
from anyio.from_thread import start_blocking_portal

from tests.support.remote import Json, ScriptedRemote, Turn, call, message, results_of

Call = tuple[str, str, Mapping[str, Any]]
"""A call id, a tool's name and its arguments."""


class Planned(ScriptedRemote):
    """Attributes:
    plans: by the instructions, the calls of each round.
    """

    def __init__(self) -> None:
        super().__init__(self.turn)
        self.plans: dict[str, Sequence[Sequence[Call]]] = {}
        self._gate = anyio.Event()

    @property
    def creates(self) -> list[str]:
        """The instructions of the tasks that were created, in their order."""
        return [_instructions(post) for post in self.posts if not post.get("previous_task_id")]

    def results(self, instructions: str) -> list[dict[str, str]]:
        """What each further round of a task was told, by call id."""
        sessions = {post["session_id"] for post in self.posts if _instructions(post) == instructions}
        return [
            results_of(post) for post in self.posts if post.get("previous_task_id") and post["session_id"] in sessions
        ]

    def turn(self, body: Json) -> Turn:
        of_session = [post for post in self.posts if post["session_id"] == body["session_id"]]
        plan = self.plans[_instructions(of_session[0])]
        rounds = len(of_session) - 1
        if rounds < len(plan):
            return Turn([call(call_id, name, dict(arguments)) for call_id, name, arguments in plan[rounds]])
        told = [result for post in of_session for result in results_of(post).values()]
        return Turn([message(" | ".join(told))])

    @contextmanager
    def serving(self) -> Iterator[Self]:
        """Serve it from a thread of its own."""
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(self.serve()):
            yield self


def _instructions(body: Json) -> str:
    content = body.get("user_message_content") or [{"text": ""}]
    first = content[0]
    return str(first if isinstance(first, str) else first["text"])
