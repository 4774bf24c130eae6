"""What the server says no to, and how: an HTTP status with a JSON-RPC error code."""

from __future__ import annotations

from collections.abc import Sequence

from agentlin_bridge.errors import INVALID_PARAMS, TASK_NOT_CANCELABLE, TASK_NOT_FOUND, BridgeError

INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
PUSH_UNSUPPORTED = -32003


class Refusal(BridgeError):
    """A request the server cannot serve. Nothing was changed.

    Attributes:
        status: the HTTP status of the answer.
    """

    def __init__(self, message: str, *, status: int = 400, code: int = INVALID_PARAMS) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def unknown_task() -> Refusal:
    """No task has this id."""
    return Refusal("Task not found", status=404, code=TASK_NOT_FOUND)


def conflict(task_id: str) -> Refusal:
    """The id belongs to a task that was created by a different request."""
    return Refusal(
        f"Conflict: task_id {task_id!r} was already used with a different request; use a new task_id",
        status=409,
    )


def not_cancelable(why: str) -> Refusal:
    """The task is over, or another one goes on in its place."""
    return Refusal(f"Task cannot be canceled: {why}", status=409, code=TASK_NOT_CANCELABLE)


def unknown_calls(unknown: Sequence[str], open_ids: Sequence[str]) -> Refusal:
    """Results came for calls nobody waits for."""
    waiting = f"it waits for: {', '.join(open_ids)}" if open_ids else "it waits for no tool result"
    return Refusal(f"The session has no open tool call {', '.join(map(repr, unknown))}; {waiting}")
