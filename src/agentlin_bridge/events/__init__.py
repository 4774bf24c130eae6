"""The events of a remote task's stream: 47 types, and how one is told from its JSON object.

The type names are those of PyPI `agentlin` 0.0.27; the class names are those of `agentlin_client.types` in the
task API documents, and made alike where the documents have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import ValidationError

from agentlin_bridge.events.background import (
    AgentStateChangedEvent,
    BackgroundCompletedEvent,
    BackgroundProgressEvent,
    BackgroundSubmittedEvent,
    QueueItemReceivedEvent,
    SubagentResultReceivedEvent,
    ToolCallCreatedEvent,
    ToolResultReceivedEvent,
    UserMessageReceivedEvent,
)
from agentlin_bridge.events.base import TaskEvent, UnknownEvent
from agentlin_bridge.events.lifecycle import (
    TaskCanceledEvent,
    TaskCompletedEvent,
    TaskContextCompressionCompletedEvent,
    TaskContextCompressionCreatedEvent,
    TaskContextCompressionInProgressEvent,
    TaskCreatedEvent,
    TaskExpiredEvent,
    TaskFailedEvent,
    TaskInputRequiredEvent,
    TaskPausedEvent,
    TaskQueuedEvent,
    TaskRolloutEvent,
    TaskToolsUpdatedEvent,
    TaskWorkingEvent,
)
from agentlin_bridge.events.output import (
    TaskAudioDeltaEvent,
    TaskAudioDoneEvent,
    TaskBlockDeltaEvent,
    TaskBlockDoneEvent,
    TaskContentPartAddedEvent,
    TaskContentPartDoneEvent,
    TaskFileDeltaEvent,
    TaskFileDoneEvent,
    TaskImageDeltaEvent,
    TaskImageDoneEvent,
    TaskOutputItemAddedEvent,
    TaskOutputItemDoneEvent,
    TaskReasoningSummaryPartAddedEvent,
    TaskReasoningSummaryPartDoneEvent,
    TaskReasoningSummaryTextDeltaEvent,
    TaskReasoningSummaryTextDoneEvent,
    TaskReasoningTextDeltaEvent,
    TaskReasoningTextDoneEvent,
    TaskTextDeltaEvent,
    TaskTextDoneEvent,
    TaskToolCallArgumentsDeltaEvent,
    TaskToolCallArgumentsDoneEvent,
    TaskToolResultDeltaEvent,
    TaskToolResultDoneEvent,
)
from agentlin_bridge.events.progress import Progress, advance

AgentTaskEvent = (
    TaskCreatedEvent
    | TaskQueuedEvent
    | TaskWorkingEvent
    | TaskInputRequiredEvent
    | TaskPausedEvent
    | TaskCompletedEvent
    | TaskCanceledEvent
    | TaskExpiredEvent
    | TaskFailedEvent
    | TaskToolsUpdatedEvent
    | TaskContextCompressionCreatedEvent
    | TaskContextCompressionInProgressEvent
    | TaskContextCompressionCompletedEvent
    | TaskRolloutEvent
    | TaskOutputItemAddedEvent
    | TaskOutputItemDoneEvent
    | TaskContentPartAddedEvent
    | TaskContentPartDoneEvent
    | TaskTextDeltaEvent
    | TaskTextDoneEvent
    | TaskReasoningTextDeltaEvent
    | TaskReasoningTextDoneEvent
    | TaskReasoningSummaryPartAddedEvent
    | TaskReasoningSummaryPartDoneEvent
    | TaskReasoningSummaryTextDeltaEvent
    | TaskReasoningSummaryTextDoneEvent
    | TaskToolCallArgumentsDeltaEvent
    | TaskToolCallArgumentsDoneEvent
    | TaskToolResultDeltaEvent
    | TaskToolResultDoneEvent
    | TaskImageDeltaEvent
    | TaskImageDoneEvent
    | TaskAudioDeltaEvent
    | TaskAudioDoneEvent
    | TaskFileDeltaEvent
    | TaskFileDoneEvent
    | TaskBlockDeltaEvent
    | TaskBlockDoneEvent
    | QueueItemReceivedEvent
    | AgentStateChangedEvent
    | BackgroundSubmittedEvent
    | BackgroundProgressEvent
    | BackgroundCompletedEvent
    | UserMessageReceivedEvent
    | ToolCallCreatedEvent
    | ToolResultReceivedEvent
    | SubagentResultReceivedEvent
    | UnknownEvent
)

EVENTS: dict[str, type[TaskEvent]] = {
    model.model_fields["type"].default: model for model in get_args(AgentTaskEvent) if model is not UnknownEvent
}
"""The model of each type on the wire."""

_VALIDATORS = {kind: model.__pydantic_validator__.validate_python for kind, model in EVENTS.items()}


def parse_event(raw: Mapping[str, Any]) -> AgentTaskEvent:
    """The event that a JSON object tells of. It never raises: what no model fits becomes an `UnknownEvent`."""
    fields = raw if isinstance(raw, dict) else dict(raw)
    kind = fields.get("type")
    validate = _VALIDATORS.get(kind) if isinstance(kind, str) else None
    if validate is not None:
        try:
            event: AgentTaskEvent = validate(fields)
        except ValidationError:
            return _unknown(fields)
        return event
    return _unknown(fields)


def _unknown(fields: dict[str, Any]) -> UnknownEvent:
    known = {key: fields[key] for key in ("type", "task_id") if isinstance(fields.get(key), str)}
    number = fields.get("sequence_number")
    if isinstance(number, int):
        known["sequence_number"] = number
    return UnknownEvent.model_construct(**known, raw=fields)


__all__ = [
    "EVENTS",
    "AgentStateChangedEvent",
    "AgentTaskEvent",
    "BackgroundCompletedEvent",
    "BackgroundProgressEvent",
    "BackgroundSubmittedEvent",
    "Progress",
    "QueueItemReceivedEvent",
    "SubagentResultReceivedEvent",
    "TaskAudioDeltaEvent",
    "TaskAudioDoneEvent",
    "TaskBlockDeltaEvent",
    "TaskBlockDoneEvent",
    "TaskCanceledEvent",
    "TaskCompletedEvent",
    "TaskContentPartAddedEvent",
    "TaskContentPartDoneEvent",
    "TaskContextCompressionCompletedEvent",
    "TaskContextCompressionCreatedEvent",
    "TaskContextCompressionInProgressEvent",
    "TaskCreatedEvent",
    "TaskEvent",
    "TaskExpiredEvent",
    "TaskFailedEvent",
    "TaskFileDeltaEvent",
    "TaskFileDoneEvent",
    "TaskImageDeltaEvent",
    "TaskImageDoneEvent",
    "TaskInputRequiredEvent",
    "TaskOutputItemAddedEvent",
    "TaskOutputItemDoneEvent",
    "TaskPausedEvent",
    "TaskQueuedEvent",
    "TaskReasoningSummaryPartAddedEvent",
    "TaskReasoningSummaryPartDoneEvent",
    "TaskReasoningSummaryTextDeltaEvent",
    "TaskReasoningSummaryTextDoneEvent",
    "TaskReasoningTextDeltaEvent",
    "TaskReasoningTextDoneEvent",
    "TaskRolloutEvent",
    "TaskTextDeltaEvent",
    "TaskTextDoneEvent",
    "TaskToolCallArgumentsDeltaEvent",
    "TaskToolCallArgumentsDoneEvent",
    "TaskToolResultDeltaEvent",
    "TaskToolResultDoneEvent",
    "TaskToolsUpdatedEvent",
    "TaskWorkingEvent",
    "ToolCallCreatedEvent",
    "ToolResultReceivedEvent",
    "UnknownEvent",
    "UserMessageReceivedEvent",
    "advance",
    "parse_event",
]
