"""What is left when a task is deleted: a small tombstone, and a turn that says how it ended."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from agentlin_bridge.server.agent import answer
from agentlin_bridge.server.execution.endings import GRAVE

from .agents import Scripted, eventually, result, weather
from .conftest import Server, Serving


def deleted(server: Server, task_id: str) -> dict[str, Any]:
    response = server.delete(f"tasks/{task_id}")
    assert response.status_code == 200, response.text
    task: dict[str, Any] = response.json()["result"]
    return task


def answered(server: Server, asked: dict[str, Any], call: int = 0) -> dict[str, Any]:
    call_id = asked["input_required_call_ids"][call]
    return server.make([], session_id=asked["session_id"], thought_messages=[result(call_id, "sun")])


def test_a_tombstone_is_small(serving: Serving, tmp_path: Path) -> None:
    server = serving(Scripted(lambda _: [answer("x" * 100_000)]))
    task = server.make("go", task_id="task_1", metadata={"note": "y" * 100_000})
    first, second = deleted(server, "task_1"), deleted(server, "task_1")
    assert first == task
    assert second == deleted(server, "task_1")
    assert second == {name: value for name, value in first.items() if name not in {"output", "metadata"}} | {
        "output": second.get("output", [])
    }
    assert second.get("output", []) == []
    with sqlite3.connect(tmp_path / "server.sqlite") as connection:
        ((size,),) = connection.execute("SELECT length(answer) FROM tombstones").fetchall()
    connection.close()
    assert size < GRAVE


def test_what_is_small_stays_whole(server: Server) -> None:
    task = server.make("Paris", metadata={"note": "y"})
    assert [deleted(server, task["id"]) for _ in range(2)] == [task | {"status": "input-required"}] * 2


def test_somebody_elses_tombstone_is_as_any_id_that_is_taken(serving: Serving) -> None:
    keys = {"anna": SecretStr("a"), "ben": SecretStr("b")}
    server = serving(Scripted(weather), keys=keys)
    anna, ben = ({"Authorization": f"Bearer {key}"} for key in "ab")

    def make(headers: dict[str, str]) -> tuple[int, str]:
        body = {"user_message_content": "Paris", "task_id": "task_1", "stream": False}
        response = server.post("tasks", json=body, headers=headers)
        return response.status_code, response.json().get("message", "")

    assert make(anna)[0] == 200
    taken = make(ben)
    assert server.delete("tasks/task_1", headers=anna).status_code == 200
    assert make(ben) == taken
    assert taken[0] == 409
    assert "deleted" in make(anna)[1]


@pytest.mark.parametrize("first", ["last", "middle"])
def test_what_goes_before_a_deleted_task_ends_and_goes_with_retention(serving: Serving, first: str) -> None:
    server = serving(Scripted(weather), retention=1.5)
    asked = server.make("Paris Rome", session_id="s")
    part = answered(server, asked)
    done = answered(server, part)
    if first == "middle":
        deleted(server, part["id"])
        assert server.task(asked["id"])["metadata"] == {"continued_by": done["id"]}
        deleted(server, done["id"])
        ended = [asked["id"]]
    else:
        deleted(server, done["id"])
        ended = [part["id"]]
        assert server.task(asked["id"])["metadata"] == {"continued_by": part["id"]}
    for task_id in ended:
        task = server.task(task_id)
        assert (task["status"], "metadata" in task) == ("canceled", False)
        assert done["id"] in task["error"]["message"]
    eventually(lambda: not server.get("tasks").json()["result"], 15)


def test_a_failed_task_stays_failed_when_the_one_that_went_on_with_it_is_deleted(serving: Serving) -> None:
    tries = [ZeroDivisionError("once")]

    def step(_: object) -> list[Any]:
        if tries:
            raise tries.pop()
        return [answer("done")]

    server = serving(Scripted(step), retention=1.5)
    failed = server.make("go", session_id="s")
    done = server.make([], session_id="s", thought_messages=[{"role": "user", "content": "continue"}])
    assert done["previous_task_id"] == failed["id"]
    deleted(server, done["id"])
    assert server.task(failed["id"]) == failed
    eventually(lambda: not server.get("tasks").json()["result"], 15)
