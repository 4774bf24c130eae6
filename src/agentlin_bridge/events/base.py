"""What all stream events share, and the event that takes in what no model fits."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_serializer

from agentlin_bridge.task import WireModel


class TaskEvent(WireModel):
    """One thing that happened to a remote task.

    Required in the events are only the fields without which they say nothing; what is left out is None or
    empty, and what nobody told us about is kept.

    Attributes:
        task_id: whose event it is. Server tools and subagents run under ids of their own, in the same stream.
        sequence_number: counts from 0, without gaps, per `task_id`.
        timestamp: RFC 3339, as it came; on lifecycle events.
    """

    type: str
    task_id: str
    sequence_number: int = 0
    timestamp: str | float | None = None


class StepEvent(TaskEvent):
    """An event of the agent's run. `agent_step` counts its model calls from 1; reasoning has 0."""

    agent_step: int | None = None


class ItemEvent(StepEvent):
    """An event about one output item."""

    item_id: str


class ContentEvent(ItemEvent):
    """An event about one part of an output item's content."""

    content_index: int | None = None


class UnknownEvent(TaskEvent):
    """An event of a type or shape this version does not know. `raw` is what came, and what is dumped."""

    type: str = ""
    task_id: str = ""
    raw: dict[str, Any] = Field(default={}, repr=False)

    @model_serializer
    def _as_it_came(self) -> dict[str, Any]:
        return self.raw
