"""Event streams: their form, what they tell, how they are resumed, and that leaving one changes nothing."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio.from_thread import start_blocking_portal

from agentlin_bridge.remote.agentlin.frames import FrameReader
from agentlin_bridge.server.agent import Conversation, Item, answer, tool_call
from agentlin_bridge.server.process import GRACE, ServeOptions, serve
from agentlin_bridge.server.web import streaming

from .agents import Gated, Scripted, Tooled, eventually, result, weather
from .conftest import Server, Serving
from .talking import Talking

FRAME = re.compile(rb"id: (\d+)\r\ndata: ([^\r\n]+)")


def frames(raw: bytes) -> list[tuple[int, dict[str, Any]]]:
    """Number and envelope of every frame; all of it must be frames, and nothing else."""
    assert raw.endswith(b"\r\n\r\n")
    found = []
    for block in raw.removesuffix(b"\r\n\r\n").split(b"\r\n\r\n"):
        match = FRAME.fullmatch(block)
        assert match, block
        found.append((int(match[1]), json.loads(match[2])))
    return found


def events_of(found: list[tuple[int, dict[str, Any]]]) -> list[tuple[int, dict[str, Any]]]:
    """Number and event. The task in `task.created` is left out: it may show what became of it meanwhile."""
    events = [(number, envelope["result"]) for number, envelope in found]
    return [(n, {**event, "task": None} if event["type"] == "task.created" else event) for n, event in events]


def told(server: Server, task_id: str, headers: dict[str, str] | None = None, **params: Any) -> list[Any]:
    response = server.get(f"tasks/{task_id}/events", params=params, headers=headers)
    assert response.status_code == 200, response.text
    return frames(response.content) if response.content else []


def streamed(server: Server, content: Any, **body: Any) -> httpx.Response:
    return server.post("tasks", json={"user_message_content": content, "stream": True, **body})


def test_a_create_is_streamed(server: Server) -> None:
    response = streamed(server, "Paris", task_id="task_1", request_id="req_1")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"
    found = frames(response.content)
    assert {(envelope["jsonrpc"], envelope["id"]) for _, envelope in found} == {("2.0", "req_1")}
    events = [envelope["result"] for _, envelope in found]
    kinds = [event["type"] for event in events]
    assert kinds == ["task.created", "task.working", "task.output_item.done", "task.input_required"]
    assert [number for number, _ in found] == [1, 2, 3, 4]
    assert [event["sequence_number"] for event in events] == [0, 1, 2, 3]
    assert {event["task_id"] for event in events} == {"task_1"}
    assert events[-1]["task"] == server.task("task_1")
    assert events[-1]["input_required_call_ids"] == [events[2]["item"]["call_id"]]


def test_our_own_reader_reads_it(server: Server) -> None:
    raw = streamed(server, "Paris", task_id="task_1").content
    for size in (1, 7, 4096):
        reader = FrameReader("task_1")
        for start in range(0, len(raw), size):
            reader.feed(raw[start : start + size])
        reader.close()
        assert (reader.outcome, reader.garbage) == ("ended", 0)
        assert reader.task is not None
        assert reader.task.status == "input-required"


def test_a_failed_task_tells_why_in_the_envelope_too(serving: Serving) -> None:
    def broken(_: object) -> list[Any]:
        raise ZeroDivisionError("with a secret")

    raw = streamed(serving(Scripted(broken)), "Paris").content
    _, envelope = frames(raw)[-1]
    assert envelope["result"]["type"] == "task.failed"
    assert envelope["error"] == envelope["result"]["error"] == envelope["result"]["task"]["error"]
    assert b"secret" not in raw


def test_what_is_refused_is_no_stream(server: Server) -> None:
    response = streamed(server, 7)
    assert (response.status_code, response.headers["content-type"]) == (400, "application/json")
    missing = server.get("tasks/task_none/events")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, -32001)


def test_a_stream_goes_on_from_any_event(server: Server) -> None:
    everything = events_of(frames(streamed(server, "Paris", task_id="task_1").content))
    for after in range(len(everything) + 1):
        assert events_of(told(server, "task_1", after=after)) == everything[after:]
        assert events_of(told(server, "task_1", headers={"Last-Event-ID": str(after)})) == everything[after:]
    assert told(server, "task_1", after=999_999_999) == []


def test_a_wrong_position_is_refused(server: Server) -> None:
    server.make("Paris", task_id="task_1")
    for after in ("x", "-1", "1.5", "9" * 10, "9" * 40):
        for response in (
            server.get("tasks/task_1/events", params={"after": after}),
            server.get("tasks/task_1/events", headers={"Last-Event-ID": after}),
        ):
            assert response.status_code == 400
            assert "after" in response.json()["error"]["message"]


@contextmanager
def opened(server: Server, path: str, **request: Any) -> Iterator[Iterator[bytes]]:
    """A stream whose first event has come: what follows it."""
    with server.stream("POST" if "json" in request else "GET", path, **request) as response:
        chunks = response.iter_raw()
        first = next(chunks)
        assert b"task.created" in first
        yield chain([first.split(b"\r\n\r\n", 1)[1]], chunks)


def test_leaving_the_stream_does_not_end_the_run(serving: Serving) -> None:
    agent = Gated()
    server = serving(agent)
    body = {"user_message_content": "stay", "stream": True, "task_id": "task_1"}
    with opened(server, "tasks", json=body):
        assert agent.entered.wait(10)
    agent.gate.set()
    assert told(server, "task_1")[-1][1]["result"]["type"] == "task.completed"
    assert server.task("task_1")["output"][0]["content"] == "done: stay"


def test_many_listen_to_one_task(serving: Serving) -> None:
    agent = Gated()
    server = serving(agent)
    with ThreadPoolExecutor(20) as pool:
        creating = pool.submit(server.make, "stay", task_id="task_1")
        assert agent.entered.wait(10)
        listening = [pool.submit(told, server, "task_1") for _ in range(19)]
        gauge = re.compile(r"^agentlin_event_streams 19\.0$", re.MULTILINE)
        eventually(lambda: gauge.search(server.get(server.url.removesuffix("/v1") + "/metrics").text) is not None)
        agent.gate.set()
        heard = [future.result() for future in listening]
        done = creating.result()
    assert all(events[-1][1]["result"]["task"] == done for events in heard)


def test_a_silent_stream_is_kept_open(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comment ends no event: after an `id` line the published SDK would take an empty one for data."""
    monkeypatch.setattr(streaming, "PING", 0.05)
    agent = Gated()
    server = serving(agent)
    with opened(server, "tasks", json={"user_message_content": "stay", "stream": True}) as chunks:
        raw = b""
        while raw.count(b": ping\r\n") < 2:
            raw += next(chunks)
        agent.gate.set()
        raw += b"".join(chunks)
    assert b": ping\r\n\r\n" not in raw
    assert frames(raw.replace(b": ping\r\n", b""))[-1][1]["result"]["type"] == "task.completed"


def test_a_deleted_task_has_no_stream_any_more(serving: Serving) -> None:
    agent = Gated()
    server = serving(agent)
    with opened(server, "tasks", json={"user_message_content": "stay", "stream": True, "task_id": "task_1"}) as chunks:
        assert agent.entered.wait(10)
        assert server.delete("tasks/task_1").status_code == 200
        assert b"task.completed" not in b"".join(chunks)
    assert server.get("tasks/task_1/events").status_code == 404


def test_the_next_round_is_a_stream_of_its_own(server: Server) -> None:
    asked = server.make("Paris", session_id="s")
    results = [result(asked["input_required_call_ids"][0], "sun")]
    events = frames(streamed(server, [], session_id="s", thought_messages=results, task_id="task_2").content)
    assert [envelope["result"]["type"] for _, envelope in events][-1] == "task.completed"
    assert events[-1][1]["result"]["task"]["previous_task_id"] == asked["id"]


def test_partial_results_are_streamed_as_well(serving: Serving) -> None:
    agent = Scripted(weather)
    server = serving(agent)
    asked = server.make("Paris Rome", session_id="s")
    results = [result(asked["input_required_call_ids"][0], "sun")]
    events = frames(streamed(server, [], session_id="s", thought_messages=results).content)
    last = events[-1][1]["result"]
    assert (last["type"], last["input_required_call_ids"]) == (
        "task.input_required",
        asked["input_required_call_ids"][1:],
    )
    assert len(agent.seen) == 1


def test_text_comes_while_it_is_made(serving: Serving) -> None:
    agent = Talking()
    server = serving(agent)
    with opened(server, "tasks", json={"user_message_content": "hi", "stream": True, "task_id": "task_1"}) as chunks:
        agent.gate.set()
        found = frames(b"".join(chunks))
    pieces = [(number, envelope["result"]) for number, envelope in found if ".delta" in envelope["result"]["type"]]
    text = [event for _, event in pieces if event["type"] == "task.text.delta"]
    thought = [event for _, event in pieces if event["type"] == "task.reasoning_text.delta"]
    assert "".join(event["delta"] for event in text) == "Hello!" == "".join(event["delta"] for event in thought)
    (message,) = server.task("task_1")["output"]
    assert {event["item_id"] for event in text} == {message["id"]}
    numbers = [number for number, _ in found]
    assert numbers == sorted(numbers)
    rest = told(server, "task_1", after=pieces[0][0])
    assert [envelope["result"]["type"] for _, envelope in rest] == ["task.output_item.done", "task.completed"]


def test_tools_of_the_server_are_told_as_part_of_the_task(serving: Serving) -> None:
    def step(conversation: Conversation) -> list[Item]:
        if conversation.rounds:
            return [answer(conversation.rounds[0].results[0].text)]
        return [tool_call("double", '{"number": 21}')]

    server = serving(Tooled(step, {"double": lambda number: 2 * number}))
    events = [envelope["result"] for _, envelope in frames(streamed(server, "go", task_id="task_1").content)]
    items = [event["item"]["type"] for event in events if event["type"] == "task.output_item.done"]
    assert items == ["tool_call", "tool_result", "message"]
    assert {event["task_id"] for event in events} == {"task_1"}


def test_a_stopping_server_ends_its_streams_and_the_next_goes_on(tmp_path: Path) -> None:
    agent = Gated()
    options = ServeOptions(database=tmp_path / "server.sqlite", agent=agent)
    body = {"user_message_content": "stay", "stream": True, "task_id": "task_1"}
    with start_blocking_portal() as portal:
        future, url = portal.start_task(serve, options)
        with httpx.stream("POST", f"{url}/tasks", json=body) as response:
            chunks = response.iter_raw()
            assert b"task.created" in next(chunks)
            assert agent.entered.wait(10)
            began = time.monotonic()
            future.cancel()
            assert b"task.completed" not in b"".join(chunks)
            assert time.monotonic() - began < GRACE
    agent.gate.set()
    with start_blocking_portal() as portal:
        future, url = portal.start_task(serve, options)
        events = frames(httpx.get(f"{url}/tasks/task_1/events").content)
        future.cancel()
    assert events[-1][1]["result"]["type"] == "task.completed"
