"""Events about a task as a whole: its statuses, and how its run is set up."""

from __future__ import annotations

from typing import Any, Literal

from agentlin_bridge.events.base import TaskEvent
from agentlin_bridge.task import JsonrpcError, TaskObject


class TaskObjectEvent(TaskEvent):
    """An event that carries the task object.

    The published server may change the object before it writes the event: a `task.created` can already
    show the outcome. Only the event that ends the task's own stream is to be believed.
    """

    task: TaskObject


class TaskCreatedEvent(TaskObjectEvent):
    """The task exists."""

    type: Literal["task.created"] = "task.created"


class TaskQueuedEvent(TaskEvent):
    """The task waits for its turn."""

    type: Literal["task.queued"] = "task.queued"


class TaskWorkingEvent(TaskEvent):
    """The agent has begun."""

    type: Literal["task.working"] = "task.working"


class TaskInputRequiredEvent(TaskObjectEvent):
    """The run stopped at client tools; `task.open_calls` are the calls without a result."""

    type: Literal["task.input_required"] = "task.input_required"
    input_required_call_ids: list[str] | None = None


class TaskPausedEvent(TaskObjectEvent):
    """The run stopped until it is resumed."""

    type: Literal["task.paused"] = "task.paused"


class TaskCompletedEvent(TaskObjectEvent):
    """The task is done; `task.output` holds the answer."""

    type: Literal["task.completed"] = "task.completed"


class TaskCanceledEvent(TaskObjectEvent):
    """Somebody canceled the task."""

    type: Literal["task.canceled"] = "task.canceled"


class TaskExpiredEvent(TaskObjectEvent):
    """The task was not done in time."""

    type: Literal["task.expired"] = "task.expired"


class TaskFailedEvent(TaskObjectEvent):
    """The task failed."""

    type: Literal["task.failed"] = "task.failed"
    error: JsonrpcError | None = None


class TaskToolsUpdatedEvent(TaskEvent):
    """The whole list of tools the model is offered from now on."""

    type: Literal["task.tools_updated"] = "task.tools_updated"
    tools: list[dict[str, Any]]


class TaskContextCompressionCreatedEvent(TaskEvent):
    """The context is too long and will be compressed."""

    type: Literal["task.context_compression.created"] = "task.context_compression.created"


class TaskContextCompressionInProgressEvent(TaskEvent):
    """The context is being compressed."""

    type: Literal["task.context_compression.in_progress"] = "task.context_compression.in_progress"


class TaskContextCompressionCompletedEvent(TaskEvent):
    """The context is compressed."""

    type: Literal["task.context_compression.completed"] = "task.context_compression.completed"


class TaskRolloutEvent(TaskEvent):
    """One model call, in and out. Sent only when the request asked for `return_rollout`."""

    type: Literal["task.rollout"] = "task.rollout"
    session_id: str | None = None
    trace_id: str | None = None
    request_id: str | None = None
    rollout_id: str | None = None
    input_messages: list[Any]
    output_messages: list[Any]
    inference_args: dict[str, Any] | None = None
    tools: list[Any] | None = None
    request: dict[str, Any] | None = None
    is_answer: bool | None = None
    turn: int | None = None
    step: int | None = None
