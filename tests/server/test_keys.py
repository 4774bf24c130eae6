"""Keys that name users: each sees only its own, and nothing tells it of the others."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from agentlin_bridge.errors import ConfigurationError
from agentlin_bridge.server.web.keys import Keys

from .agents import Scripted, result, weather
from .conftest import Server, Serving

KEYS = {"ann": SecretStr("key of ann"), "bob": SecretStr("key of bob")}


@pytest.fixture
def shared(serving: Serving) -> Server:
    """A server with a key that opens everything, and keys of two users."""
    return serving(Scripted(weather), api_key="key of all", keys=KEYS)


@pytest.fixture
def ann(shared: Server) -> Iterator[Server]:
    yield from client(shared, "key of ann")


@pytest.fixture
def bob(shared: Server) -> Iterator[Server]:
    yield from client(shared, "key of bob")


def client(server: Server, key: str) -> Iterator[Server]:
    with Server(base_url=server.url, headers={"Authorization": f"Bearer {key}"}, timeout=10) as opened:
        opened.url, opened.api_key = server.url, key
        yield opened


def ids(server: Server, **query: Any) -> list[str]:
    return [task["id"] for task in server.get("tasks", params=query).json()["result"]]


def rpc(server: Server, method: str, **params: Any) -> httpx.Response:
    return server.post("tasks/agent", json={"jsonrpc": "2.0", "id": "r", "method": method, "params": params})


def test_a_key_makes_tasks_for_its_user(ann: Server) -> None:
    assert ann.make("Paris")["user_id"] == "ann"
    assert ann.make("Paris", user_id="bob")["user_id"] == "ann"
    made = rpc(ann, "tasks/create", user_id="bob", payload={"user_message_content": "Paris"}).json()["result"]
    assert made["user_id"] == "ann"


def test_everybody_lists_their_own(ann: Server, bob: Server, shared: Server) -> None:
    for number, server in enumerate((ann, bob, ann)):
        server.make("Paris", task_id=f"task_{number}", session_id=f"s{number}")
    assert ids(ann) == ["task_2", "task_0"]
    assert ids(bob) == ["task_1"]
    assert ids(ann, user_id="bob") == ids(ann, session_id="s1") == []
    assert ids(shared) == ["task_2", "task_1", "task_0"]
    assert ids(shared, user_id="bob") == ["task_1"]
    assert [task["id"] for task in rpc(bob, "tasks/list").json()["result"]] == ["task_1"]
    foreign = ann.get("tasks", params={"starting_after": "task_1"})
    unknown = ann.get("tasks", params={"starting_after": "task_9"})
    assert foreign.status_code == unknown.status_code == 400
    assert without_ids(foreign) == without_ids(unknown)


def without_ids(response: httpx.Response) -> tuple[int, dict[str, str], str]:
    headers = {name: value for name, value in response.headers.items() if name != "date"}
    text = re.sub(r"task_\w+|req_\w+", "...", response.text)
    return response.status_code, {**headers, "content-length": "..."}, text


def test_the_task_of_another_is_as_if_it_did_not_exist(ann: Server, bob: Server) -> None:
    task = ann.make("Paris", task_id="task_1", session_id="s")

    def asked(task_id: str) -> list[httpx.Response]:
        control = [bob.post(f"tasks/{task_id}/{verb}") for verb in ("cancel", "pause", "resume")]
        named = ("get", "cancel", "pause", "resume", "delete", "resubscribe")
        called = [rpc(bob, f"tasks/{name}", id=task_id) for name in named]
        continued = bob.post("tasks", json={"user_message_content": "more", "previous_task_id": task_id})
        events = bob.get(f"tasks/{task_id}/events")
        return [bob.get(f"tasks/{task_id}"), bob.delete(f"tasks/{task_id}"), *control, *called, continued, events]

    theirs, nobodys = asked("task_1"), asked("task_9")
    assert {response.status_code for response in theirs} == {404}
    assert [without_ids(response) for response in theirs] == [without_ids(response) for response in nobodys]
    assert ann.task("task_1") == task


def test_looking_for_it_takes_no_longer(ann: Server, bob: Server) -> None:
    """A class of timing, not a stop watch: both ways end after the same single query."""
    ann.make("Paris", task_id="task_1")
    spent: dict[str, list[float]] = {"task_1": [], "task_9": []}
    for _ in range(60):
        for task_id, times in spent.items():
            began = time.perf_counter()
            assert bob.get(f"tasks/{task_id}").status_code == 404
            times.append(time.perf_counter() - began)
    assert median(spent["task_1"]) < 3 * median(spent["task_9"]) + 0.002


def test_the_session_of_another_is_as_if_it_did_not_exist(ann: Server, bob: Server, shared: Server) -> None:
    (call_id,) = ann.make("Paris", session_id="s", task_id="task_1")["input_required_call_ids"]
    answer = {"user_message_content": [], "thought_messages": [result(call_id, "stolen")]}
    refused = bob.post("tasks", json={"session_id": "s", **answer})
    nowhere = bob.post("tasks", json={"session_id": "nowhere", **answer})
    assert refused.status_code == nowhere.status_code == 400
    assert without_ids(refused) == without_ids(nowhere)
    other = bob.make("Rome", session_id="s")
    assert other["status"] == "input-required"
    assert ann.task("task_1")["status"] == "input-required", "a message of bob's drops no call of ann's"
    bob.make("Oslo", session_id="s")
    assert bob.task(other["id"])["status"] == "canceled", "but one of his own"
    done = ann.make([], session_id="s", thought_messages=[result(call_id, "sun")])
    assert done["output"][0]["content"] == "sun"
    assert ids(ann, session_id="s") == [done["id"], "task_1"]
    assert ids(shared, session_id=shared.task("task_1")["session_id"]) == [done["id"], "task_1"]
    assert ids(shared, session_id="s") == []


def test_a_taken_id_is_a_conflict_whoever_has_it(ann: Server, bob: Server) -> None:
    body = {"user_message_content": "Paris", "task_id": "task_1", "session_id": "s"}
    assert ann.post("tasks", json=body).status_code == 200
    bob.make("Paris", task_id="task_2")
    theirs = bob.post("tasks", json=body)
    own = bob.post("tasks", json={**body, "task_id": "task_2"})
    assert theirs.status_code == own.status_code == 409
    assert without_ids(theirs) == without_ids(own), "it does not tell whose it is"
    assert ann.post("tasks", json=body).status_code == 200
    assert ids(bob) == ["task_2"]
    assert ann.delete("tasks/task_1").status_code == 200
    assert without_ids(bob.post("tasks", json=body)) == without_ids(own), "nor that it was deleted"


def test_the_key_without_a_user_sees_all(ann: Server, shared: Server) -> None:
    ann.make("Paris", task_id="task_1")
    assert shared.task("task_1")["user_id"] == "ann"
    assert shared.post("tasks/task_1/cancel").status_code == 200
    assert shared.make("Rome", user_id="ann", task_id="task_2")["user_id"] == "ann"
    assert ids(ann) == ["task_2", "task_1"]


def test_no_other_key_opens_anything(shared: Server) -> None:
    for key in ("key of", "key of annn", "KEY OF ANN", "x"):
        for path in ("tasks", "tasks/task_1", "tasks/task_1/events"):
            assert shared.get(path, headers={"Authorization": f"Bearer {key}"}).status_code == 401


@pytest.mark.parametrize(
    ("api_key", "users", "problem"),
    [
        ("", {}, "empty"),
        (None, {"ann": ""}, "empty"),
        ("same", {"ann": "same"}, "are the same"),
        (None, {"ann": "same", "bob": "same"}, "are the same"),
        (None, {"": "key"}, "cannot be the user"),
        (None, {"ann\n": "key"}, "cannot be the user"),
    ],
)
def test_keys_that_cannot_be_used_are_refused(api_key: str | None, users: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        Keys(None if api_key is None else SecretStr(api_key), {name: SecretStr(key) for name, key in users.items()})
    assert caught.value.next_step
    assert "same'" not in str(caught.value)


def test_keys_show_no_key() -> None:
    keys = Keys(SecretStr("secret"), KEYS)
    assert "secret" not in repr(vars(keys))
    assert keys.caller(b"secret") is not None
    assert not Keys()
