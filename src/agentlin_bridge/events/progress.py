"""What somebody who watches a task wants to know, gathered from its events."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

from agentlin_bridge.events.base import StepEvent, TaskEvent
from agentlin_bridge.events.output import (
    OutputItemEvent,
    TaskOutputItemDoneEvent,
    TaskTextDeltaEvent,
    TaskTextDoneEvent,
)
from agentlin_bridge.task import MessageItem, TaskObject, TaskStatus, ToolCallItem, ToolResultItem

TEXT_LIMIT = 2000
"""So many characters of the text are kept, the last ones."""

_CALL_LIMIT = 64
_NAME_LIMIT = 200

STATUS_OF = {
    "task.created": TaskStatus.CREATED,
    "task.queued": TaskStatus.QUEUED,
    "task.working": TaskStatus.WORKING,
    "task.input_required": TaskStatus.INPUT_REQUIRED,
    "task.paused": TaskStatus.PAUSED,
    "task.completed": TaskStatus.COMPLETED,
    "task.canceled": TaskStatus.CANCELED,
    "task.expired": TaskStatus.EXPIRED,
    "task.failed": TaskStatus.FAILED,
}
"""Lifecycle events and the status each stands for."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a task is.

    Attributes:
        step: the agent's model call, counted from 1; None or 0 before the first shows.
        text: the message being written, its last `TEXT_LIMIT` characters.
    """

    status: TaskStatus = TaskStatus.CREATED
    step: int | None = None
    text: str = ""
    _message_id: str | None = field(default=None, repr=False)
    _calls: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def tool(self) -> str | None:
        """The tool in use: of several, the one called last."""
        return self._calls[-1][1] if self._calls else None

    def _streamed(self, message_id: str | None) -> str:
        return self.text if message_id is not None and message_id == self._message_id else ""


def progress_of(task: TaskObject) -> Progress:
    """The progress that a task object shows, for who has no events: its output tells most of it."""
    answered = {item.call_id for item in task.output if isinstance(item, ToolResultItem)}
    calls = [item for item in task.output if isinstance(item, ToolCallItem)]
    texts = [item.text for item in task.output if isinstance(item, MessageItem)]
    is_result = [isinstance(item, ToolResultItem) for item in task.output]
    turns = sum(before and not now for before, now in itertools.pairwise(is_result))
    return Progress(
        status=task.status or TaskStatus.WORKING,
        step=turns + 1 if task.output else None,
        text=texts[-1][-TEXT_LIMIT:] if texts else "",
        _calls=tuple((call.call_id, call.name[:_NAME_LIMIT]) for call in calls if call.call_id not in answered),
    )


def advance(progress: Progress, event: TaskEvent) -> Progress:
    """The progress after an event of the task's own; events of its sub-tasks do not belong here."""
    status = STATUS_OF.get(event.type)
    if status is not None:
        return replace(progress, status=status, _calls=() if status.is_terminal else progress._calls)
    if not isinstance(event, StepEvent):
        return progress
    if event.agent_step is not None and event.agent_step > (-1 if progress.step is None else progress.step):
        progress = replace(progress, step=event.agent_step)
    if isinstance(event, OutputItemEvent):
        return _with_item(progress, event)
    if isinstance(event, TaskTextDeltaEvent):
        return _with_text(progress, progress._streamed(event.item_id) + event.delta, event.item_id)
    if isinstance(event, TaskTextDoneEvent) and not progress._streamed(event.item_id):
        return _with_text(progress, event.text, event.item_id)
    return progress


def _with_item(progress: Progress, event: OutputItemEvent) -> Progress:
    item = event.item
    if isinstance(item, MessageItem):
        return _with_text(progress, item.text or progress._streamed(item.id), item.id)
    if isinstance(item, ToolCallItem):
        call = (item.call_id, item.name[:_NAME_LIMIT])
        return (
            progress if call in progress._calls else replace(progress, _calls=(*progress._calls, call)[-_CALL_LIMIT:])
        )
    if isinstance(item, ToolResultItem) and isinstance(event, TaskOutputItemDoneEvent):
        return replace(progress, _calls=tuple(call for call in progress._calls if call[0] != item.call_id))
    return progress


def _with_text(progress: Progress, text: str, message_id: str | None) -> Progress:
    return replace(progress, text=text[-TEXT_LIMIT:], _message_id=message_id)
