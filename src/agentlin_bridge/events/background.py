"""Events about queues and background work. Agentlin declares them; its task API has not sent any yet."""

from __future__ import annotations

from typing import Any, Literal

from agentlin_bridge.events.base import TaskEvent


class QueueItemReceivedEvent(TaskEvent):
    """Something was put into the agent's queue."""

    type: Literal["queue.item_received"] = "queue.item_received"
    item_type: str
    priority: int | float | str | None = None
    queue_depth: int | None = None
    correlation_id: str | None = None


class AgentStateChangedEvent(TaskEvent):
    """The agent went from one state to another."""

    type: Literal["agent.state_changed"] = "agent.state_changed"
    previous_state: str | None = None
    new_state: str
    reason: str | None = None


class BackgroundTaskEvent(TaskEvent):
    """An event about one background task."""

    background_task_id: str
    task_type: str | None = None


class BackgroundSubmittedEvent(BackgroundTaskEvent):
    """A background task was accepted."""

    type: Literal["background.submitted"] = "background.submitted"
    name: str | None = None
    reason: str | None = None


class BackgroundProgressEvent(BackgroundTaskEvent):
    """How far a background task is."""

    type: Literal["background.progress"] = "background.progress"
    progress: int | float | None = None
    message: str | None = None


class BackgroundCompletedEvent(BackgroundTaskEvent):
    """A background task is over, well or not."""

    type: Literal["background.completed"] = "background.completed"
    success: bool
    result: Any = None
    error: Any = None
    execution_time: int | float | None = None


class UserMessageReceivedEvent(TaskEvent):
    """A message of the user's arrived while the agent was at work."""

    type: Literal["user.message_received"] = "user.message_received"
    correlation_id: str | None = None
    queue_position: int | None = None


class ToolCallCreatedEvent(TaskEvent):
    """The agent called a tool. Here `arguments` is an object, not a JSON string."""

    type: Literal["tool.call_created"] = "tool.call_created"
    call_id: str
    name: str
    arguments: dict[str, Any] | None = None


class ToolResultReceivedEvent(TaskEvent):
    """A tool returned."""

    type: Literal["tool.result_received"] = "tool.result_received"
    call_id: str
    output: Any = None
    is_error: bool | None = None


class SubagentResultReceivedEvent(TaskEvent):
    """A subagent returned."""

    type: Literal["subagent.result_received"] = "subagent.result_received"
    call_id: str
    subagent_name: str | None = None
    output: Any = None
