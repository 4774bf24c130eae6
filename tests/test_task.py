"""The vocabulary reads whatever a remote sends and loses none of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlin_bridge import Task, TaskStatus, ToolResult
from agentlin_bridge.task import (
    AudioContentItem,
    FileContentItem,
    ImageContentItem,
    MessageItem,
    ReasoningItem,
    TaskObject,
    TextContentItem,
    ToolCallItem,
    ToolResultItem,
    UnknownContentItem,
    UnknownItem,
    text_of,
)

WIRE = Path(__file__).parent / "wire"
RECORDED = [
    pytest.param(body["result"], id=path.stem)
    for path in sorted(WIRE.glob("*.json"))
    if isinstance(body := json.loads(path.read_text(encoding="utf-8"))["response"]["body"], dict)
    and isinstance(body.get("result"), dict)
]


def pruned(value: Any) -> Any:
    """A value without what pydantic adds: defaults of unset fields, and None for what was left out."""
    if isinstance(value, dict):
        return {key: pruned(item) for key, item in value.items() if item is not None}
    return [pruned(item) for item in value] if isinstance(value, list) else value


def contains(whole: Any, part: Any) -> bool:
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and contains(whole[key], part[key]) for key in part)
    if isinstance(part, list):
        return isinstance(whole, list) and len(whole) == len(part) and all(map(contains, whole, part))
    return bool(whole == part)


@pytest.mark.parametrize("result", RECORDED)
def test_recorded_tasks_lose_nothing(result: dict[str, Any]) -> None:
    task = TaskObject.model_validate(result)
    assert not any(isinstance(item, UnknownItem) for item in task.output)
    assert contains(task.model_dump(mode="json"), pruned(result))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KNOWN = st.sampled_from(
    ["message", "reasoning", "tool_call", "tool_result", "text", "image_url", "input_audio", "file"]
)
FIELDS = st.sampled_from(
    [
        "type",
        "call_id",
        "name",
        "arguments",
        "message_content",
        "content",
        "summary",
        "text",
        "image_url",
        "file",
        "role",
    ]
)
ITEM = JSON | st.builds(
    lambda kind, rest: {**rest, "type": kind}, KNOWN, st.dictionaries(FIELDS, JSON | KNOWN, max_size=6)
)


@given(output=st.lists(ITEM, max_size=4) | JSON, status=st.text(max_size=12) | st.none())
def test_no_output_and_no_status_makes_a_task_unreadable(output: Any, status: str | None) -> None:
    task = TaskObject.model_validate({"id": "task_1", "output": output, "status": status})
    assert task.status is None or task.status in TaskStatus
    assert all(call.call_id for call in task.open_calls) or any(call.call_id == "" for call in task.open_calls)
    TaskObject.model_validate_json(task.model_dump_json())


@given(st.lists(ITEM, max_size=4))
def test_items_survive_a_round_trip(output: list[Any]) -> None:
    once = TaskObject.model_validate({"id": "t", "output": output}).model_dump(mode="json")["output"]
    assert TaskObject.model_validate({"id": "t", "output": once}).model_dump(mode="json")["output"] == once


def test_items_and_contents_by_type() -> None:
    task = TaskObject.model_validate(
        {
            "id": "t",
            "output": [
                {"type": "reasoning", "id": "r", "summary": [{"text": "s", "type": "text"}], "content": ["why"]},
                {
                    "type": "message",
                    "message_content": [
                        {
                            "type": "output_text",
                            "text": "see ",
                            "annotations": [{"type": "url_citation", "url": "u", "start_index": 1, "colour": "red"}],
                            "logprobs": [
                                {"token": "a", "logprob": -1, "top_logprobs": [{"token": "b", "logprob": -2}]}
                            ],
                        },
                        {"type": "image_url", "image_url": {"url": "u", "detail": "low"}},
                        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                        {"type": "file", "file": {"file_url": "u", "filename": "f"}},
                        {"type": "image_url", "image_url": "no object"},
                        "plain",
                    ],
                },
                {"type": "message", "content": "only here"},
                {"type": "tool_call", "call_id": "c", "name": "n"},
                {"type": "tool_result", "call_id": "c", "output": "only here", "message_content": None},
                {"type": "tool_call", "name": "without an id"},
                {"type": "hologram", "depth": 3},
            ],
        }
    )
    kinds = [ReasoningItem, MessageItem, MessageItem, ToolCallItem, ToolResultItem, UnknownItem, UnknownItem]
    assert [type(item) for item in task.output] == kinds
    reasoning, first, second, _, result, broken, unknown = task.output
    assert isinstance(reasoning, ReasoningItem)
    assert text_of(reasoning.content) == "why"
    assert isinstance(first, MessageItem)
    assert [type(item) for item in first.message_content] == [
        TextContentItem,
        ImageContentItem,
        AudioContentItem,
        FileContentItem,
        UnknownContentItem,
        TextContentItem,
    ]
    assert first.text == "see plain"
    text = first.message_content[0]
    assert isinstance(text, TextContentItem)
    assert text.annotations is not None
    assert text.annotations[0].model_extra == {"colour": "red"}
    assert text.logprobs is not None
    assert text.logprobs[0].top_logprobs[0].token == "b"
    assert isinstance(second, MessageItem)
    assert second.text == "only here"
    assert isinstance(result, ToolResultItem)
    assert result.text == "only here"
    assert broken.model_dump() == {"type": "tool_call", "name": "without an id"}
    assert unknown.model_dump() == {"type": "hologram", "depth": 3}


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("input_required", TaskStatus.INPUT_REQUIRED),
        ("cancelled", TaskStatus.CANCELED),
        ("meditating", TaskStatus.WORKING),
        (TaskStatus.EXPIRED, TaskStatus.EXPIRED),
        *[(status.value, status) for status in TaskStatus],
    ],
)
def test_statuses(sent: str, read: TaskStatus) -> None:
    assert TaskObject.model_validate({"id": "t", "status": sent}).status is read


def test_terminal_statuses() -> None:
    assert [status.value for status in TaskStatus if status.is_terminal] == [
        "completed",
        "canceled",
        "expired",
        "failed",
    ]


def test_open_calls_are_the_union_of_what_waits() -> None:
    call = {"type": "tool_call", "name": "n", "arguments": "{}"}
    task = TaskObject.model_validate(
        {
            "id": "t",
            "status": "input-required",
            "input_required": {**call, "call_id": "c3"},
            "input_required_call_ids": ["c1"],
            "output": [
                {**call, "call_id": "c1"},
                {**call, "call_id": "c2"},
                {**call, "call_id": "c1"},
                {"type": "tool_result", "call_id": "c2"},
            ],
        }
    )
    assert [item.call_id for item in task.open_calls] == ["c1", "c3"]


def test_tool_results() -> None:
    assert ToolResult.error("no").text == "no"
    assert ToolResult.error("no").to_item("c").text == "ERROR: no"
    assert ToolResult().to_item("c").text == "(no output)"
    assert ToolResult.model_validate({"content": "yes"}).to_item("c").model_dump(exclude_none=True) == {
        "type": "tool_result",
        "call_id": "c",
        "message_content": [{"type": "text", "text": "yes"}],
        "block_list": [],
    }


def test_task_times_are_utc() -> None:
    task = Task.model_validate({"id": "t", "status": "created", "created_at": 0, "updated_at": 86400.5})
    assert task.created_at.isoformat() == "1970-01-01T00:00:00+00:00"
    assert Task.model_validate_json(task.model_dump_json()) == task
