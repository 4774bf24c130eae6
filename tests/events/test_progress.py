"""Progress follows the main task's events and stays small."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest

from agentlin_bridge.events import Progress, advance, parse_event
from agentlin_bridge.events.progress import STATUS_OF, TEXT_LIMIT, progress_of
from agentlin_bridge.remote.agentlin.frames import FrameReader
from agentlin_bridge.task import TaskObject, TaskStatus
from tests.events.streams import RECORDINGS, delta, event


def after(*raw: dict[str, Any], start: Progress | None = None) -> Progress:
    return reduce(advance, map(parse_event, raw), start or Progress())


def item(kind: str, item_type: str, step: int | None = 1, **fields: Any) -> dict[str, Any]:
    return event(f"output_item.{kind}", item={"type": item_type, **fields}, agent_step=step)


def message(kind: str, text: str, item_id: str | None = "msg_1") -> dict[str, Any]:
    return item(kind, "message", id=item_id, content=text)


def call(name: str, call_id: str, kind: str = "done") -> dict[str, Any]:
    return item(kind, "tool_call", name=name, call_id=call_id)


def result(call_id: str, kind: str = "done") -> dict[str, Any]:
    return item(kind, "tool_result", call_id=call_id)


@pytest.mark.parametrize(("kind", "status"), STATUS_OF.items())
def test_the_status_comes_from_the_type_alone(kind: str, status: TaskStatus) -> None:
    lying = {"task": {"id": "t", "status": "completed"}}
    assert after({"type": kind, "task_id": "t", **lying}).status is status
    assert after({"type": kind, "task_id": "t", "task": "unreadable"}).status is status


def test_steps_never_go_back() -> None:
    steps = [
        after(event("image.done", item_id="i", agent_step=step), start=Progress(step=2)).step for step in (0, 2, 3)
    ]
    assert steps == [2, 2, 3]
    assert Progress().step is None
    assert after(event("image.done", item_id="i", agent_step=0)).step == 0
    assert after(event("image.done", item_id="i")).step is None


def test_the_tool_in_use_is_the_last_call_without_a_result() -> None:
    progress = after(call("a", "1", "added"), call("a", "1"))
    assert progress.tool == "a"
    progress = after(call("b", "2"), result("1", "added"), result("2", "added"), start=progress)
    assert progress.tool == "b"
    assert after(result("1"), start=progress).tool == "b"
    assert after(result("2"), start=progress).tool == "a"
    assert after(result("2"), result("1"), start=progress).tool is None
    assert after(event("input_required"), start=progress).tool == "b"
    assert after(event("failed"), start=progress).tool is None


def test_text_comes_whole_or_in_pieces() -> None:
    assert after(message("added", ""), message("done", "whole")).text == "whole"
    live = after(message("added", ""), delta("pie"), delta("ces"))
    assert live.text == "pieces"
    assert after(event("text.done", item_id="msg_1", text="only one part"), start=live).text == "pieces"
    assert after(message("done", ""), start=live).text == "pieces"
    assert after(message("done", "pieces!"), start=live).text == "pieces!"
    assert after(event("text.done", item_id="msg_2", text="alone"), start=live).text == "alone"
    assert after(message("added", "", "msg_2"), start=live).text == ""
    assert after(message("added", "", None), message("done", "x", None), message("added", "", None)).text == ""


def test_progress_stays_small() -> None:
    progress = after(*(delta("x" * 999) for _ in range(9)), delta("end"))
    assert len(progress.text) == TEXT_LIMIT
    assert progress.text.endswith("xend")
    progress = after(*(call("n" * 9999, str(number)) for number in range(200)))
    assert len(progress.tool or "") == 200
    assert len(repr(progress)) < 500
    assert len(progress._calls) == 64


def test_other_events_change_nothing() -> None:
    progress = after(delta("x"))
    for raw in (
        event("tools_updated", tools=[]),
        event("brand_new", agent_step=9),
        {"type": "queue.item_received", "task_id": "t", "item_type": "k"},
        item("done", "reasoning", None),
        item("done", "brand_new", None),
        event("reasoning_text.delta", item_id="r", delta="hm"),
    ):
        assert after(raw, start=progress) == progress, raw


def test_a_recorded_run() -> None:
    recording = RECORDINGS["create_server_tool_stream"]
    reader, progress, tools, steps = FrameReader(recording.main_id), Progress(), [], []
    for frame in reader.feed(recording.stream):
        if frame.is_main and frame.event is not None:
            progress = advance(progress, frame.event)
            tools.append(progress.tool)
            steps.append(progress.step)
    assert reader.task is not None
    assert progress.status is TaskStatus.COMPLETED
    assert progress.text == getattr(reader.task.output[-1], "text", None) != ""
    assert list(dict.fromkeys(tools)) == [None, "echo_tool"]
    assert tools[-1] is None
    assert list(dict.fromkeys(steps)) == [None, 1, 2]


def test_a_task_object_shows_most_of_it() -> None:
    def said(text: str) -> dict[str, Any]:
        return {"type": "message", "message_content": text}

    def asked(call_id: str) -> dict[str, Any]:
        return {"type": "tool_call", "call_id": call_id, "name": f"tool_{call_id}"}

    def answered(call_id: str) -> dict[str, Any]:
        return {"type": "tool_result", "call_id": call_id}

    def shown(
        *output: dict[str, Any], status: str | None = "working"
    ) -> tuple[TaskStatus, int | None, str, str | None]:
        progress = progress_of(TaskObject.model_validate({"id": "t", "status": status, "output": list(output)}))
        return progress.status, progress.step, progress.text, progress.tool

    working = TaskStatus.WORKING
    assert shown(status=None) == (working, None, "", None)
    assert shown(said("x")) == (working, 1, "x", None)
    assert shown(asked("a"), asked("b")) == (working, 1, "", "tool_b")
    assert shown(asked("a"), asked("b"), answered("b")) == (working, 1, "", "tool_a")
    turns = [asked("a"), answered("a"), asked("b"), answered("b"), said("y" * 3000)]
    assert shown(*turns, status="completed") == (TaskStatus.COMPLETED, 3, "y" * TEXT_LIMIT, None)
