"""Every event is read without loss, whatever a remote makes of it."""

from __future__ import annotations

import subprocess
import sys
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from agentlin_bridge import events
from agentlin_bridge.events import EVENTS, AgentTaskEvent, TaskTextDeltaEvent, UnknownEvent, parse_event
from agentlin_bridge.task import ToolCallItem
from tests.events.streams import RECORDINGS

DOCUMENTED = [
    "TaskAudioDeltaEvent",
    "TaskAudioDoneEvent",
    "TaskCanceledEvent",
    "TaskCompletedEvent",
    "TaskContentPartAddedEvent",
    "TaskContentPartDoneEvent",
    "TaskContextCompressionCompletedEvent",
    "TaskContextCompressionCreatedEvent",
    "TaskContextCompressionInProgressEvent",
    "TaskCreatedEvent",
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
]

TASK = {"task": {"id": "t", "status": "working"}}
ITEM = {"item": {"type": "tool_call", "call_id": "c", "name": "n"}}
PART = {"item_id": "i", "part": {"type": "text", "text": "x"}}
DELTA = {"item_id": "i", "delta": "x"}
TEXT = {"item_id": "i", "text": "x"}
CALL = {"item_id": "i", "call_id": "c"}
BACKGROUND = {"background_task_id": "b", "task_type": "k"}
MINIMAL: dict[str, dict[str, Any]] = {
    "task.created": TASK,
    "task.working": {},
    "task.queued": {},
    "task.input_required": {**TASK, "input_required_call_ids": ["c"]},
    "task.completed": TASK,
    "task.failed": {**TASK, "error": {"code": -32000, "message": "m"}},
    "task.paused": TASK,
    "task.canceled": TASK,
    "task.expired": TASK,
    "task.tools_updated": {"tools": [{"type": "function", "function": {"name": "n"}}]},
    "task.context_compression.created": {},
    "task.context_compression.in_progress": {},
    "task.context_compression.completed": {},
    "task.rollout": {"input_messages": [], "output_messages": [{"role": "assistant"}], "turn": 0},
    "task.output_item.added": ITEM,
    "task.output_item.done": ITEM,
    "task.content_part.added": PART,
    "task.content_part.done": PART,
    "task.reasoning_text.delta": DELTA,
    "task.reasoning_text.done": TEXT,
    "task.reasoning_summary_part.added": {**PART, "summary_index": 0, "agent_step": 0},
    "task.reasoning_summary_part.done": {**PART, "summary_index": 0, "agent_step": 0},
    "task.reasoning_summary_text.delta": {"item_id": "i", "summary_index": 0, "agent_step": 0},
    "task.reasoning_summary_text.done": {**TEXT, "summary_index": 0, "agent_step": 0},
    "task.text.delta": DELTA,
    "task.text.done": TEXT,
    "task.tool_call_arguments.delta": {**CALL, "delta": "{", "agent_step": 1},
    "task.tool_call_arguments.done": {**CALL, "arguments": "{}", "agent_step": 1},
    "task.tool_result.delta": {**CALL, "agent_step": 1},
    "task.tool_result.done": {**CALL, "agent_step": 1},
    "task.image.delta": {"item_id": "i", "partial_image_b64": "eA==", "partial_image_index": 0, "agent_step": 1},
    "task.image.done": {"item_id": "i", "agent_step": 1},
    "task.audio.delta": {**DELTA, "agent_step": 1},
    "task.audio.done": {"item_id": "i", "agent_step": 1},
    "task.file.delta": {"item_id": "i", "partial_file_b64": "eA==", "partial_file_index": 0, "agent_step": 1},
    "task.file.done": {"item_id": "i", "agent_step": 1},
    "task.block.delta": {"item_id": "i", "block": {"type": "text"}, "agent_step": 1},
    "task.block.done": {"item_id": "i", "block": {"type": "text"}, "agent_step": 1},
    "queue.item_received": {"item_type": "k", "priority": 1},
    "agent.state_changed": {"previous_state": "a", "new_state": "b"},
    "background.submitted": BACKGROUND,
    "background.progress": {**BACKGROUND, "progress": 0.5},
    "background.completed": {**BACKGROUND, "success": True},
    "user.message_received": {},
    "tool.call_created": {"call_id": "c", "name": "n", "arguments": {"x": 1}},
    "tool.result_received": {"call_id": "c", "output": [1], "is_error": False},
    "subagent.result_received": {"call_id": "c", "subagent_name": "s"},
}


def test_every_type_has_its_model_and_its_name() -> None:
    assert set(EVENTS) == set(MINIMAL)
    assert len(EVENTS) == 47
    assert set(DOCUMENTED) <= set(events.__all__)
    for kind, model in EVENTS.items():
        words = kind.replace("task.", "", 1).replace(".", "_").title().replace("_", "")
        assert model.__name__ == f"{'Task' if kind.startswith('task.') else ''}{words}Event"
        assert getattr(events, model.__name__) is model
        assert model.__doc__


@pytest.mark.parametrize("kind", MINIMAL)
def test_each_type_round_trips(kind: str) -> None:
    raw = {"type": kind, "task_id": "t", "sequence_number": 3, **MINIMAL[kind]}
    read = parse_event(raw)
    assert type(read) is EVENTS[kind]
    assert read.model_dump(mode="json", exclude_unset=True) == raw
    assert parse_event(read.model_dump(mode="json")) == read.model_validate(read.model_dump())
    made = EVENTS[kind](**{key: value for key, value in raw.items() if key != "type"})
    assert made.model_dump() == read.model_dump()
    assert TypeAdapter(AgentTaskEvent).validate_python(read) is read


@pytest.mark.parametrize("kind", MINIMAL)
def test_fields_nobody_told_us_about_are_kept(kind: str) -> None:
    raw = {"type": kind, "task_id": "t", "sequence_number": 3, **MINIMAL[kind]}
    raw |= {"new_field": {"a": [1, None]}, "model_dump": "no", "self": 1, "timestamp": "2026-11-22T07:25:12+00:00"}
    read = parse_event(raw)
    assert type(read) is EVENTS[kind]
    assert read.model_dump(mode="json", exclude_unset=True) == raw


@pytest.mark.parametrize(
    "raw",
    [
        {"type": "task.brand_new", "task_id": "t", "sequence_number": 7, "raw": {"x": 1}},
        {"type": "task.completed", "task_id": "t", "task": "gone"},
        {"type": "task.text.delta", "task_id": "t", "sequence_number": "soon", "item_id": "i", "delta": "x"},
        {"type": "task.text.delta", "task_id": ["t"], "item_id": "i", "delta": "x"},
        {"type": {"a": 1}, "task_id": 5},
        {},
    ],
)
def test_what_no_model_fits_is_kept_as_it_came(raw: dict[str, Any]) -> None:
    read = parse_event(raw)
    assert isinstance(read, UnknownEvent)
    assert read.raw == raw == read.model_dump() == read.model_dump(mode="json")
    assert read.type == (raw.get("type") if isinstance(raw.get("type"), str) else "")
    assert read.task_id == (raw.get("task_id") if isinstance(raw.get("task_id"), str) else "")
    assert read.sequence_number == (7 if raw.get("sequence_number") == 7 else 0)
    assert parse_event(read.model_dump()) == read


def test_any_mapping_will_do() -> None:
    class Fields(dict[str, Any]):
        pass

    raw = {"type": "task.text.delta", "task_id": "t", "item_id": "i", "delta": "x"}
    assert parse_event(MappingProxyType(raw)) == parse_event(Fields(raw)) == parse_event(raw)
    assert isinstance(parse_event(raw), TaskTextDeltaEvent)


def test_an_item_of_an_unknown_shape_does_not_cost_the_event() -> None:
    read = parse_event({"type": "task.output_item.done", "task_id": "t", "item": {"type": "tool_call", "name": 5}})
    assert isinstance(read, EVENTS["task.output_item.done"])
    assert not isinstance(getattr(read, "item", None), ToolCallItem)


@pytest.mark.parametrize("name", RECORDINGS)
def test_recorded_events_lose_nothing(name: str) -> None:
    for raw in RECORDINGS[name].events:
        read = parse_event(raw)
        assert type(read) is EVENTS[raw["type"]]
        assert read.model_dump(mode="json", exclude_unset=True) == raw


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = sorted({name for model in EVENTS.values() for name in model.model_fields} - {"type"})


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), JSON, max_size=6),
    st.sampled_from(sorted(EVENTS)) | JSON,
    st.booleans(),
)
def test_nothing_in_an_object_makes_it_raise(fields: dict[str, Any], kind: Any, complete: bool) -> None:
    raw = {**fields, "type": kind}
    if complete and isinstance(kind, str):
        raw = {"task_id": "t", **MINIMAL.get(kind, {}), **raw}
    read = parse_event(raw)
    if isinstance(read, UnknownEvent):
        assert read.raw == raw
    else:
        assert set(raw) <= set(read.model_dump())
        assert (read.type, read.task_id) == (raw["type"], raw["task_id"])


def test_who_imports_the_package_does_not_pay_for_events() -> None:
    code = "import sys, agentlin_bridge; print(any(name.startswith('agentlin_bridge.events') for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
