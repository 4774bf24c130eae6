"""The protocol every backend speaks, and the requests it takes.

A backend is an async context manager; it raises `agentlin_bridge.errors.RemoteError` and its children only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, runtime_checkable

from agentlin_bridge.task import ContentItem, OutputItem, RemoteOutcome, TaskObject, TaskStatus, ToolResultItem

if TYPE_CHECKING:
    from agentlin_bridge.events import AgentTaskEvent


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A client tool as the remote agent sees it. `parameters` is a JSON Schema of type object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StartRequest:
    """The first round of a task.

    Attributes:
        remote_id: the id the remote task shall have; written down by us before it is sent.
        content: what the host says to the agent.
        previous_remote_id: the last remote task of the session that is continued, if one is.
        output_schema: a JSON Schema the answer should follow.
        options: further parameters of the backend's own API, passed through.
        stream: whether to follow the round by event stream.
    """

    remote_id: str
    session_id: str
    user_id: str
    content: list[ContentItem]
    client_tools: list[ToolDefinition] = field(default_factory=list)
    previous_remote_id: str | None = None
    output_schema: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = False


@dataclass(frozen=True, slots=True)
class PastRound:
    """A round that ended in tool calls: what the remote said, and the results its calls were given."""

    output: list[OutputItem]
    results: list[ToolResultItem]


ContinuationKind = Literal["results", "nudge", "replay"]


@dataclass(frozen=True, slots=True)
class Continuation:
    """A further round.

    Attributes:
        kind: `results` gives the results for all unanswered calls of the newest past round; `nudge` asks a
            session whose model failed to go on; `replay` tells everything to a session that knows nothing.
        history: the rounds that ended in calls, oldest first.
        content: what the host said at first.
    """

    kind: ContinuationKind
    remote_id: str
    session_id: str
    user_id: str
    previous_remote_id: str
    history: list[PastRound]
    content: list[ContentItem]
    client_tools: list[ToolDefinition] = field(default_factory=list)
    output_schema: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What really works on this backend, not what its API declares.

    Attributes:
        sessions: whether a task can go on with another one's conversation.
        files: whether attachments can be anything but text.
    """

    client_tools: bool = True
    sessions: bool = True
    files: bool = True
    cancel: bool = True
    delete: bool = True
    stream: bool = False
    pause: bool = False
    resume: bool = False


@dataclass(frozen=True, slots=True)
class AgentSummary:
    """One of the agents that a remote has. Name and description are the remote's words.

    Attributes:
        inputs: what a run very likely has to be given besides its instructions.
    """

    id: str
    name: str = ""
    description: str = ""
    inputs: tuple[str, ...] = ()


Listener = Callable[["AgentTaskEvent"], None]
"""Told each event of a remote task's own stream; never those of its sub-tasks."""


class TaskBackend(Protocol):
    """Runs remote tasks."""

    @property
    def name(self) -> str:
        """The backend's name in settings and in the ledger."""
        ...

    @property
    def place(self) -> str:
        """Where it runs tasks; a task stays with the place that it was given to."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """Which of the operations below really work."""
        ...

    async def dies_with_its_stream(self) -> bool:
        """Whether a run ends when the event stream that follows it is lost."""
        ...

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Check the options of a request before anything is created.

        Raises:
            InvalidRequestError: one of them cannot be used.
        """
        ...

    @property
    def notice(self) -> str:
        """What a host must be told about this backend before it delegates; empty if nothing."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    async def start(self, request: StartRequest, *, listener: Listener | None = None) -> TaskObject:
        """Run the first round and return the task as it stands when the round ends.

        Args:
            request: what to run.
            listener: told the events as they come, where the round is followed by stream.

        Raises:
            RemoteUnavailable: nothing was sent.
            ReplyLost: it may be running; look it up, and send it again if it is not there.
            RemoteError: it was refused; or nobody can find out whether it runs, and it must not be sent again.
        """
        ...

    async def proceed(self, continuation: Continuation, *, listener: Listener | None = None) -> TaskObject:
        """Run a further round. Raises like `start`, and:

        Raises:
            RemoteNotFound: the remote has forgotten the session; nothing was sent.
        """
        ...

    async def remedy(self, failed: TaskObject | None, tried: Sequence[str]) -> Literal["nudge", "replay"] | None:
        """How to make up for a round that failed, if there is a way.

        Args:
            failed: the remote task; None if the remote has forgotten it.
            tried: the kinds of the rounds since the last that ended in calls, the failed one included.
        """
        ...

    def recall(self, notes: Mapping[str, str]) -> None:
        """What `notes` gave out before a restart."""
        ...

    @property
    def notes(self) -> Mapping[str, str]:
        """What was learned about the remote and is worth knowing after a restart."""
        ...

    async def retrieve(self, remote_id: str) -> TaskObject:
        """The remote task as it stands.

        Raises:
            RemoteNotFound: the remote knows no such task.
        """
        ...

    def list(self, *, session_id: str | None = None, status: TaskStatus | None = None) -> AsyncIterator[TaskObject]:
        """All remote tasks that match; ends whatever the remote's cursors mean."""
        ...

    async def cancel(self, remote_id: str, *, stream_closed: bool = False) -> RemoteOutcome:
        """Stop a remote task, and say what that really did.

        Args:
            remote_id: the remote task.
            stream_closed: whether it was followed by an event stream that is closed by now.
        """
        ...

    async def delete(self, remote_id: str) -> RemoteOutcome:
        """Delete a remote task, and say what that really did."""
        ...

    async def pause(self, remote_id: str) -> TaskObject:
        """Pause a remote task.

        Raises:
            UnsupportedError: this backend cannot.
        """
        ...

    async def resume(self, remote_id: str) -> TaskObject:
        """Resume a paused remote task.

        Raises:
            UnsupportedError: this backend cannot.
        """
        ...


@runtime_checkable
class ListsAgents(Protocol):
    """What a backend is, besides, whose remote tells which agents it has."""

    async def agents(self, query: str = "") -> Sequence[AgentSummary]:
        """The remote's agents.

        Args:
            query: what is searched for, in whatever way the remote searches. Empty: all.

        Raises:
            RemoteError: it cannot be asked.
        """
        ...
