"""Sessions: what users with keys call theirs, and how one is stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from agentlin_bridge.server.agent import Conversation, Item, answer
from agentlin_bridge.task import text_of

from .agents import Gated, Scripted, eventually, result, weather
from .conftest import Server, Serving
from .test_keys import KEYS, client, ids, rpc

RECORDED = Path(__file__).parents[1] / "wire"


def recalling(conversation: Conversation) -> Sequence[Item]:
    """Asks for the weather, or answers with everything it was told before."""
    said = text_of(conversation.user_content)
    if said.startswith("weather"):
        return weather(conversation)
    return [answer(" ".join([*(text_of(turn.user_content) for turn in conversation.earlier), said]))]


@pytest.fixture
def shared(serving: Serving) -> Server:
    """A server with a key that opens everything, and keys of two users."""
    return serving(Scripted(recalling), api_key="key of all", keys=KEYS)


@pytest.fixture
def ann(shared: Server) -> Iterator[Server]:
    yield from client(shared, "key of ann")


@pytest.fixture
def bob(shared: Server) -> Iterator[Server]:
    yield from client(shared, "key of bob")


def said(task: dict[str, Any]) -> str:
    content: str = task["output"][-1]["content"]
    return content


def test_a_name_means_the_same_when_others_come_and_go(ann: Server, bob: Server) -> None:
    hers = ann.make("a1", session_id="s")
    assert said(bob.make("b1", session_id="s")) == "b1"
    assert ann.delete(f"tasks/{hers['id']}").status_code == 200
    assert said(bob.make("b2", session_id="s")) == "b1 b2"
    assert said(ann.make("a2", session_id="s")) == "a2"
    assert said(bob.make("b3", session_id="s")) == "b1 b2 b3"


@pytest.mark.parametrize("name", ["s", "n" * 183, "n" * 184, "n" * 200])
def test_everybody_is_shown_their_own_name(ann: Server, bob: Server, shared: Server, name: str) -> None:
    bob.make("x", session_id=name)
    task = ann.make("weather", session_id=name, task_id="task_1")
    shown = task["session_id"]
    assert shown == name or (len(name) > 183 and shown.startswith(name[:150]))
    streamed = ann.get("tasks/task_1/events").text
    events = [json.loads(line[6:])["result"] for line in streamed.splitlines() if line.startswith("data: ")]
    tasks = [event["task"] for event in events if "task" in event]
    tasks += [ann.task("task_1"), *ann.get("tasks").json()["result"]]
    tasks += [rpc(ann, "tasks/get", id="task_1").json()["result"], *rpc(ann, "tasks/list").json()["result"]]
    cancelled = ann.post("tasks/task_1/cancel").json()
    tasks += [cancelled, cancelled["result"], ann.delete("tasks/task_1").json()["result"]]
    assert len(tasks) == 9
    assert {each["session_id"] for each in tasks} == {shown}
    again = ann.make("y", session_id=shown)
    assert again["session_id"] == shown
    assert ids(ann, session_id=name) == ids(ann, session_id=shown) == [again["id"]]
    stored = {task["session_id"] for task in shared.get("tasks").json()["result"]}
    assert len(stored) == 2
    assert all(len(session) <= 200 for session in stored)


def test_sessions_of_an_older_version_go_on(ann: Server, bob: Server, shared: Server) -> None:
    digest = f"sess_{sha256(b'bob:s').hexdigest()[:32]}"
    shared.make("a1", session_id="s", user_id="ann")
    asked = shared.make("weather Rome", session_id=digest, user_id="bob")
    assert said(ann.make("a2", session_id="s")) == "a1 a2"
    answers = [result(call_id, "sun") for call_id in asked["input_required_call_ids"]]
    assert said(bob.make([], session_id="s", tool_results=answers)) == "sun | sun"
    assert said(bob.make("b2", session_id=digest)) == "weather Rome b2"


def test_a_session_the_server_named_goes_on(ann: Server, bob: Server) -> None:
    first = ann.make("a1")
    assert said(ann.make("a2", session_id=first["session_id"])) == "a1 a2"
    assert said(bob.make("b1", session_id=first["session_id"])) == "b1"


def test_a_session_with_tasks_of_others_is_no_users(ann: Server, shared: Server) -> None:
    shared.make("a1", session_id="s", user_id="ann")
    shared.make("x1", session_id="s", user_id="somebody")
    assert said(ann.make("a2", session_id="s")) == "a2"


def stop(server: Server, session_id: str) -> None:
    response = server.post("tasks/agent/stop", json={"session_id": session_id})
    assert response.status_code == 200, response.text
    assert response.json() == {"status": "success", "message": f"Session {session_id} stopped successfully"}


@pytest.mark.parametrize("name", ["agent_stop", "agent_stop_unknown"])
def test_a_stop_is_answered_as_the_published_server_does(server: Server, name: str) -> None:
    recorded = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))
    response = server.post("tasks/agent/stop", json=recorded["request"]["body"])
    assert (response.status_code, response.json()) == (recorded["response"]["status"], recorded["response"]["body"])


def test_what_of_a_session_runs_or_is_queued_is_stopped(serving: Serving) -> None:
    agent = Gated()
    server = serving(agent)
    with ThreadPoolExecutor() as pool:
        made = [pool.submit(server.make, "go", session_id="s", task_id="task_0")]
        assert agent.entered.wait(10)
        made += [pool.submit(server.make, "go", session_id="s", task_id=f"task_{n}") for n in (1, 2)]
        eventually(lambda: len(ids(server)) == 3)
        stop(server, "s")
        assert [each.result(10)["status"] for each in made] == ["canceled"] * 3
    assert agent.seen == ["go"], "no queued task had its turn"
    agent.gate.set()
    assert server.make("more", session_id="s")["status"] == "completed"


def test_what_of_a_session_waits_is_stopped_and_the_rest_stays(server: Server) -> None:
    first = server.make("Paris", session_id="s", task_id="task_1")
    done = server.make([], session_id="s", tool_results=[result(first["input_required_call_ids"][0], "sun")])
    waiting = server.make("Rome", session_id="s")
    other = server.make("Oslo", session_id="t")
    stop(server, "s")
    stop(server, "s")
    found = {task["id"]: task["status"] for task in server.get("tasks").json()["result"]}
    assert found == {
        "task_1": "input-required",
        done["id"]: "completed",
        waiting["id"]: "canceled",
        other["id"]: "input-required",
    }
    status, _ = server.refuse([], session_id="s", tool_results=[result(waiting["input_required_call_ids"][0], "x")])
    assert status == 400


def test_nobody_stops_the_session_of_another(ann: Server, bob: Server, shared: Server) -> None:
    hers = ann.make("weather", session_id="s", task_id="task_1")
    stop(bob, "s")
    stop(bob, shared.task("task_1")["session_id"])
    stop(shared, "s")
    assert ann.task(hers["id"])["status"] == "input-required"
    stop(ann, "s")
    assert ann.task(hers["id"])["status"] == "canceled"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"session_id": ""}', b'{"session_id": 7}'])
def test_a_stop_names_its_session(server: Server, body: bytes) -> None:
    response = server.post("tasks/agent/stop", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == -32602
