"""What backends have in common whose remote runs a task in one pass: no client tools, sessions, streams, cancel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

from agentlin_bridge.errors import InvalidRequestError, RemoteError, UnsupportedError
from agentlin_bridge.remote.backend import Capabilities, Continuation, Listener
from agentlin_bridge.task import RemoteOutcome, TaskObject


class OnePassBackend:
    """To be derived from. What is left to say is `start`, `retrieve`, `list` and `delete` of `TaskBackend`.

    Args:
        name: the backend's name in settings and ledger.
        place: where it runs tasks.
        notice: what hosts are told before they delegate.
    """

    def __init__(self, name: str, place: str, notice: str = "") -> None:
        self.name = name
        self.place = place
        self.notice = notice
        self.capabilities = Capabilities(client_tools=False, sessions=False, files=False, cancel=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """There is nothing to close."""

    @property
    def notes(self) -> Mapping[str, str]:
        return {}

    def recall(self, notes: Mapping[str, str]) -> None:
        """There is nothing to learn about it."""

    def check_options(self, options: Mapping[str, Any]) -> None:
        if options:
            raise InvalidRequestError(
                f"The backend {self.name!r} takes no options; given: {', '.join(sorted(options))}.",
                next_step="leave them out",
            )

    async def dies_with_its_stream(self) -> bool:
        return False

    async def remedy(self, failed: TaskObject | None, tried: Sequence[str]) -> Literal["nudge", "replay"] | None:
        return None

    async def proceed(self, continuation: Continuation, *, listener: Listener | None = None) -> TaskObject:
        raise RemoteError(
            f"The backend {self.name!r} runs tasks in one pass; none can go on.", next_step="create another task"
        )

    async def cancel(self, remote_id: str, *, stream_closed: bool = False) -> RemoteOutcome:
        """Nothing is sent, and the run goes on."""
        return "unsupported"

    async def pause(self, remote_id: str) -> TaskObject:
        raise self._cannot("pause")

    async def resume(self, remote_id: str) -> TaskObject:
        raise self._cannot("resume")

    def _cannot(self, verb: str) -> UnsupportedError:
        return UnsupportedError(
            f"The backend {self.name!r} cannot {verb} a task.", next_step="cancel the task, or let it run"
        )
