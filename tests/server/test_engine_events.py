"""What listeners are told: all of it, in order, from any number on, and by many at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import httpx
import pytest
from anyio import to_thread

from agentlin_bridge.server.agent import Conversation, Item, answer, tool_call
from agentlin_bridge.server.execution import feed

from .agents import Gated, Scripted, Tooled, eventually, result, weather
from .conftest import Server, Serving

PIECES = [f"piece {number} " for number in range(50)]


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(40) as threads:
        yield threads


def listen(server: Server, task_id: str, after: int = 0, *, heard: list[Any] | None = None) -> list[dict[str, Any]]:
    """The events of a task until its stream ends; each with the number it can be asked for."""
    heard = [] if heard is None else heard
    with httpx.stream("GET", f"{server.url}/tasks/{task_id}/events", params={"after": after}, timeout=20) as response:
        number = 0
        for line in response.iter_lines():
            if line.startswith("id: "):
                number = int(line[4:])
            elif line.startswith("data: "):
                heard.append({**json.loads(line[6:])["result"], "number": number})
    return heard


def types(events: Sequence[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("task.") for event in events]


class Speaking(Tooled):
    """Says its pieces when the gate opens, and then a whole message."""

    def __init__(self) -> None:
        super().__init__(self._answer, says=())
        self.gate, self.entered = Event(), Event()

    async def _answer(self, _: Conversation) -> Sequence[Item]:
        return [answer("".join(PIECES))]

    async def step(self, conversation: Conversation, voice: Any) -> Any:
        self.entered.set()
        while not self.gate.is_set():
            await to_thread.run_sync(self.gate.wait, 0.02)
        for piece in PIECES:
            voice.reasoning("hm ")
            voice.text(piece)
            voice.text("")
        return await super().step(conversation, voice)


def test_a_finished_task_is_told_from_the_beginning(serving: Serving) -> None:
    def step(conversation: Conversation) -> Sequence[Item]:
        return [answer("so")] if conversation.rounds else [answer("hm"), tool_call("add", '{"a": 1, "b": 2}')]

    server = serving(Tooled(step, {"add": lambda a, b: a + b}))
    task = server.make("go")
    told = listen(server, task["id"])
    assert types(told) == ["created", "working", *["output_item.done"] * 4, "completed"]
    assert [event["number"] for event in told] == list(range(1, 8))
    assert [event["sequence_number"] for event in told] == list(range(7))
    assert [event["item"] for event in told[2:6]] == task["output"]
    assert [event["agent_step"] for event in told[2:6]] == [1, 1, 1, 2]
    assert told[-1]["task"] == task
    assert told[0]["task"]["status"] == "created"
    assert "output" not in told[0]["task"] or told[0]["task"]["output"] == []
    for after in range(8):
        assert listen(server, task["id"], after) == told[after:]


def test_waiting_and_then_dropped(serving: Serving) -> None:
    server = serving(Scripted(weather))
    asked = server.make("Paris", session_id="s")
    told = listen(server, asked["id"])
    assert types(told) == ["created", "working", "output_item.done", "input_required"]
    assert told[-1]["input_required_call_ids"] == asked["input_required_call_ids"]
    server.make("Rome", session_id="s")
    assert types(listen(server, asked["id"], after=4)) == ["canceled"]
    failed = serving_failure(server, asked["session_id"])
    assert failed[-1]["type"] == "task.canceled"


def serving_failure(server: Server, session_id: str) -> list[dict[str, Any]]:
    newest = server.get("tasks", params={"session_id": session_id, "status": "input-required"}).json()["result"][0]
    server.post(f"tasks/{newest['id']}/cancel")
    return listen(server, newest["id"])


def test_a_failure_is_told_with_its_error(serving: Serving) -> None:
    server = serving(Tooled(lambda _: [answer("x" * 3000)]), output_limit=2000)
    task = server.make("go")
    told = listen(server, task["id"])
    assert told[-1]["type"] == "task.failed"
    assert told[-1]["error"] == task["error"]


def test_many_listeners_hear_every_piece(serving: Serving, pool: ThreadPoolExecutor) -> None:
    agent = Speaking()
    server = serving(agent)
    made = pool.submit(server.make, "go", task_id="task_1")
    assert agent.entered.wait(10)
    heards: list[list[dict[str, Any]]] = [[] for _ in range(30)]
    listeners = [pool.submit(listen, server, "task_1", heard=heard) for heard in heards]
    eventually(lambda: all(len(heard) == 2 for heard in heards))
    agent.gate.set()
    for listener, heard in zip(listeners, heards, strict=True):
        listener.result(20)
        assert "".join(event["delta"] for event in heard if event["type"] == "task.text.delta") == "".join(PIECES)
        assert types(heard)[:4] == ["created", "working", "output_item.added", "reasoning_text.delta"]
        assert types(heard)[-2:] == ["output_item.done", "completed"]
        numbers = [event["number"] for event in heard]
        assert numbers == sorted(numbers)
        message = heard[-2]["item"]
        assert {event["item_id"] for event in heard if event["type"] == "task.text.delta"} == {message["id"]}
    assert made.result(10)["status"] == "completed"
    assert heards[0] == heards[-1]


def test_who_comes_in_the_middle_hears_the_rest(serving: Serving, pool: ThreadPoolExecutor) -> None:
    agent = Gated()
    server = serving(agent)
    pool.submit(server.make, "a", task_id="task_1")
    assert agent.entered.wait(10)
    heard: list[dict[str, Any]] = []
    listener = pool.submit(listen, server, "task_1", 1, heard=heard)
    eventually(lambda: types(heard) == ["working"])
    late = pool.submit(listen, server, "task_1", 2)
    agent.gate.set()
    listener.result(20)
    assert types(heard) == ["working", "output_item.done", "completed"]
    assert types(late.result(20)) == ["output_item.done", "completed"]


def test_a_pause_ends_the_stream_and_what_follows_is_told_afterwards(
    serving: Serving, pool: ThreadPoolExecutor
) -> None:
    agent = Gated()
    server = serving(agent)
    pool.submit(server.make, "a", task_id="task_1")
    assert agent.entered.wait(10)
    listener = pool.submit(listen, server, "task_1")
    server.post("tasks/task_1/pause")
    told = listener.result(20)
    assert types(told)[-1] == "paused"
    agent.gate.set()
    eventually(lambda: bool(server.task("task_1").get("output")))
    server.post("tasks/task_1/resume")
    eventually(lambda: server.task("task_1")["status"] == "completed")
    rest = listen(server, "task_1", told[-1]["number"])
    assert types(rest) == ["output_item.done", "working", "completed"]


def test_a_stream_ends_when_its_task_is_deleted(serving: Serving, pool: ThreadPoolExecutor) -> None:
    agent = Gated()
    server = serving(agent)
    pool.submit(server.post, "tasks", json={"user_message_content": "a", "task_id": "task_1"})
    assert agent.entered.wait(10)
    heard: list[dict[str, Any]] = []
    listener = pool.submit(listen, server, "task_1", heard=heard)
    eventually(lambda: len(heard) == 2)
    server.delete("tasks/task_1")
    listener.result(20)
    assert types(heard)[:2] == ["created", "working"]
    agent.gate.set()


def test_what_was_told_first_is_told_again_as_it_was(serving: Serving) -> None:
    server = serving(Tooled(weather))
    body = {"user_message_content": "Paris", "session_id": "s", "task_id": "task_1", "stream": True}
    live = told_in(server.post("tasks", json={**body, "metadata": {"mine": 1}}))
    asked = server.task("task_1")
    assert asked["usage"]["input_tokens"] == 3
    server.make([], session_id="s", thought_messages=[result(asked["input_required_call_ids"][0], "sun")])
    again = listen(server, "task_1")
    assert again[0] == live[0]
    assert again[0]["task"]["metadata"] == {"mine": 1}
    assert set(again[0]["task"]["usage"].values()) == {0}


def test_every_rest_is_told_again_as_it_was(serving: Serving, pool: ThreadPoolExecutor) -> None:
    agent = Gated()
    server = serving(agent)
    pool.submit(server.make, "a", task_id="task_1")
    assert agent.entered.wait(10)
    server.post("tasks/task_1/pause")
    agent.gate.set()
    eventually(lambda: bool(server.task("task_1").get("output")))
    server.post("tasks/task_1/resume")
    eventually(lambda: server.task("task_1")["status"] == "completed")
    told = {event["type"]: event["task"] for event in listen(server, "task_1") if "task" in event}
    assert {kind: task["status"] for kind, task in told.items()} == {
        "task.created": "created",
        "task.paused": "paused",
        "task.completed": "completed",
    }
    assert [len(task.get("output", [])) for task in told.values()] == [0, 0, 1]


def test_a_waiting_task_that_was_dropped_is_told_again_as_it_waited(server: Server) -> None:
    asked = server.make("Paris", session_id="s")
    server.make("Rome", session_id="s")
    waited = listen(server, asked["id"])[3]
    assert waited["task"] == asked
    assert waited["input_required_call_ids"] == asked["input_required_call_ids"]


def told_in(response: httpx.Response) -> list[dict[str, Any]]:
    events, number = [], 0
    for line in response.text.splitlines():
        if line.startswith("id: "):
            number = int(line[4:])
        elif line.startswith("data: "):
            events.append({**json.loads(line[6:])["result"], "number": number})
    return events


def test_who_creates_a_task_hears_a_model_that_speaks_at_once(serving: Serving, pool: ThreadPoolExecutor) -> None:
    server = serving(Tooled(lambda _: [answer("".join(PIECES))], says=PIECES))

    def create(number: int) -> list[dict[str, Any]]:
        body = {"user_message_content": "go", "task_id": f"task_{number}", "stream": True}
        return told_in(httpx.post(f"{server.url}/tasks", json=body, timeout=20))

    for heard in pool.map(create, range(20)):
        assert types(heard)[:2] == ["created", "working"]
        assert "".join(event["delta"] for event in heard if event["type"] == "task.text.delta") == "".join(PIECES)
        assert types(heard)[-2:] == ["output_item.done", "completed"]
        numbers = [event["number"] for event in heard]
        assert numbers == sorted(numbers)


def test_a_task_that_is_created_again_is_streamed_from_its_beginning(serving: Serving) -> None:
    server = serving(Scripted(weather))
    body = {"user_message_content": "Paris", "session_id": "s", "task_id": "task_1", "stream": True}
    first = told_in(server.post("tasks", json=body))
    assert told_in(server.post("tasks", json=body)) == first
    call_id = server.task("task_1")["input_required_call_ids"][0]
    results = {"session_id": "s", "thought_messages": [result(call_id, "sun")], "stream": True}
    second = told_in(server.post("tasks", json={**results, "task_id": "task_2"}))
    repeated = told_in(server.post("tasks", json={**results, "task_id": "task_3"}))
    assert types(second) == ["created", "working", "output_item.done", "completed"]
    assert repeated == second, "of the task that has the results"


def test_who_lags_behind_a_fast_model_misses_only_pieces(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "KEPT", 8)
    server = serving(Tooled(lambda _: [answer("".join(PIECES))], says=PIECES))
    body = {"user_message_content": "go", "task_id": "task_1", "stream": True}
    heard = told_in(server.post("tasks", json=body))
    assert [kind for kind in types(heard) if "delta" not in kind and "added" not in kind] == [
        "created",
        "working",
        "output_item.done",
        "completed",
    ]
    pieces = [event for event in heard if event["type"] == "task.text.delta"]
    assert len(pieces) < len(PIECES)
    assert "".join(PIECES).endswith("".join(event["delta"] for event in pieces))


def test_a_partial_delivery_is_told_at_once(server: Server) -> None:
    asked = server.make("Paris Rome", session_id="s")
    first, _ = asked["input_required_call_ids"]
    part = server.make([], session_id="s", thought_messages=[result(first, "sun")])
    assert types(listen(server, part["id"])) == ["created", "output_item.done", "input_required"]
