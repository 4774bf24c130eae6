"""What the ledger gives out: plain, immutable records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from agentlin_bridge.remote.backend import ToolDefinition
from agentlin_bridge.task import JsonrpcError, RemoteOutcome, TaskStatus, ToolResult


class CallState(StrEnum):
    """How far a tool call has come. The walk goes one way only."""

    REQUESTED = "requested"
    STARTED = "started"
    ANSWERED = "answered"
    DELIVERED = "delivered"


class ApprovalState(StrEnum):
    """Whether a person has approved a call that needs it."""

    REQUIRED = "required"
    GRANTED = "granted"


class RoundState(StrEnum):
    """How far a round has come: its remote id is claimed, the remote was seen to have it, it has ended."""

    CLAIMED = "claimed"
    SEEN = "seen"
    SETTLED = "settled"


class RoundKind(StrEnum):
    """Why a round is sent.

    START and RESULTS are the rounds every task has: the instructions, then the results for a round's calls.
    NUDGE asks a remote whose model failed to go on; REPLAY tells a fresh session everything from the ledger.
    """

    START = "start"
    RESULTS = "results"
    NUDGE = "nudge"
    REPLAY = "replay"


@dataclass(frozen=True, slots=True)
class NextRound:
    """A round about to be claimed: why, and under which ids it will be sent."""

    kind: RoundKind
    remote_id: str
    session_id: str


@dataclass(frozen=True, slots=True)
class NewTask:
    """What `create` writes down before anything is sent.

    `client_tools` is None for a task that was created elsewhere: what it was offered is not known.
    """

    id: str
    principal: str
    request_id: str | None
    fingerprint: str
    backend: str
    place: str
    agent: str | None
    continue_task: str | None
    previous_remote_id: str | None
    content: list[dict[str, Any]]
    client_tools: list[ToolDefinition] | None
    options: Mapping[str, Any]
    output_schema: Mapping[str, Any] | None
    metadata: Mapping[str, Any]
    session_id: str
    user_id: str
    stream: bool
    deadline_at: float


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One tool call of one round."""

    call_id: str
    name: str
    arguments: str
    state: CallState
    approval: ApprovalState | None
    edited: str | None
    owner: str | None
    attempt: int
    result: ToolResult | None

    @property
    def is_answered(self) -> bool:
        """Whether a result is on record, delivered or not."""
        return self.state in (CallState.ANSWERED, CallState.DELIVERED)


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """One remote task of the chain."""

    seq: int
    kind: RoundKind
    remote_id: str
    session_id: str
    owner: str
    fence: int
    attempt: int
    state: RoundState
    status: TaskStatus | None
    output: list[dict[str, Any]]
    usage: Mapping[str, Any]
    claimed_at: float
    calls: list[CallRecord] = field(default_factory=list)

    @property
    def is_answered(self) -> bool:
        """Whether the round has ended and every call of it has a result."""
        return self.state is RoundState.SETTLED and all(call.is_answered for call in self.calls)


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A task with all its rounds, oldest first. `client_tools` is None where nobody knows them."""

    id: str
    principal: str
    request_id: str | None
    fingerprint: str
    backend: str
    place: str
    previous_remote_id: str | None
    content: list[dict[str, Any]]
    client_tools: list[ToolDefinition] | None
    options: Mapping[str, Any]
    output_schema: Mapping[str, Any] | None
    metadata: Mapping[str, Any]
    session_id: str
    user_id: str
    stream: bool
    status: TaskStatus
    answer: str | None
    error: JsonrpcError | None
    usage: Mapping[str, Any]
    remote_outcome: RemoteOutcome | None
    version: int
    created_at: float
    updated_at: float
    deadline_at: float
    is_deleted: bool
    rounds: list[RoundRecord] = field(default_factory=list)

    @property
    def current(self) -> RoundRecord:
        """The newest round."""
        return self.rounds[-1]
