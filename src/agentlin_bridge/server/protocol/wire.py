"""What goes out: envelopes, readable for the published SDK in all its versions."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from agentlin_bridge.server.protocol.sessions import shown_name
from agentlin_bridge.task import JsonrpcError, TaskObject

RequestId = str | int
"""What an envelope is told apart by."""


class Envelope(BaseModel):
    """A JSON-RPC answer. `id` is the request's."""

    jsonrpc: Literal["2.0"] = "2.0"
    id: RequestId


class TaskEnvelope(Envelope):
    """An answer with a task."""

    result: TaskObject


class TaskListEnvelope(Envelope):
    """An answer with a page of tasks, newest first."""

    result: list[TaskObject]
    has_more: bool = Field(description="Whether more tasks follow in the direction of paging.")


class ControlAnswer(TaskObject):
    """What became of a task, as a bare task object and, in `result`, in an envelope.

    Clients before 1.11 read the one, later ones the other. Here `id` is the task's.
    """

    jsonrpc: Literal["2.0"] = "2.0"
    request_id: RequestId
    result: TaskObject


class RpcAnswer(Envelope):
    """A JSON-RPC method's answer: a task, or a page of tasks."""

    result: TaskObject | list[TaskObject]
    has_more: bool | None = None


class ErrorAnswer(BaseModel):
    """An answer that says no. The error stands at the top level too, where some readers look."""

    jsonrpc: Literal["2.0"] = "2.0"
    id: RequestId | None
    error: JsonrpcError
    code: int
    message: str


class StopAnswer(BaseModel):
    """What became of a session that was to be stopped."""

    status: Literal["success"] = "success"
    message: str


class Health(BaseModel):
    """How the server is."""

    status: Literal["ok", "unavailable"]
    server: str
    version: str
    database: Literal["ok", "unavailable"]


def task_json(task: TaskObject, user: str | None) -> dict[str, Any]:
    """A task object in JSON, without empty fields, as a user or with None somebody who sees all is shown it."""
    fields = task.model_dump(mode="json", exclude_none=True)
    fields["created_at"] = int(task.created_at)
    fields["session_id"] = shown_name(user, task.session_id)
    return fields


def envelope(request_id: RequestId, result: Any) -> dict[str, Any]:
    """An answer."""
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def error_envelope(request_id: RequestId | None, code: int, message: str) -> dict[str, Any]:
    """An answer that says no."""
    error = {"code": code, "message": message}
    return {"jsonrpc": "2.0", "id": request_id, "error": error, **error}


def control_answer(request_id: RequestId, task: TaskObject, user: str | None) -> dict[str, Any]:
    """The answer to a cancel, a pause or a resume; see `ControlAnswer`."""
    fields = task_json(task, user)
    return {**fields, "jsonrpc": "2.0", "request_id": request_id, "result": fields}
