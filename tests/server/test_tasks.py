"""The life of a task: once, visible while it runs, canceled for real, deleted for good."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from agentlin_bridge.server.agent import answer

from .agents import Gated, Scripted, eventually
from .conftest import Server, Serving


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


@pytest.fixture
def gated() -> Iterator[Gated]:
    agent = Gated()
    yield agent
    agent.gate.set()


def test_a_running_task_is_seen_working_and_ends_completed(
    serving: Serving, gated: Gated, pool: ThreadPoolExecutor
) -> None:
    server = serving(gated)
    made = pool.submit(server.make, "a", task_id="task_1")
    assert gated.entered.wait(10)
    running = server.task("task_1")
    assert (running["status"], running["output"]) == ("working", [])
    assert "input_required_call_ids" not in running
    gated.gate.set()
    assert made.result(10)["status"] == "completed"
    assert server.task("task_1") == made.result()


def test_create_is_idempotent_by_task_id(server: Server) -> None:
    first = server.make("Paris", task_id="task_1", user_id="u")
    again = server.make("Paris", task_id="task_1", user_id="u", request_id="another")
    as_list = server.make([{"type": "text", "text": "Paris"}], task_id="task_1", user_id="u")
    assert first == again == as_list
    assert len(server.get("tasks").json()["result"]) == 1


@pytest.mark.parametrize("change", [{"user_id": "other"}, {"session_id": "other"}, {"client_tools": []}])
def test_a_task_id_is_not_reused_for_something_else(server: Server, change: dict[str, object]) -> None:
    first = server.make("Paris", task_id="task_1", user_id="u")
    status, error = server.refuse("Paris", **{"task_id": "task_1", "user_id": "u", **change})
    assert (status, error["code"]) == (409, -32602)
    assert "task_1" in error["message"]
    assert server.task("task_1") == first


def test_a_repeated_create_waits_for_the_first(serving: Serving, gated: Gated, pool: ThreadPoolExecutor) -> None:
    server = serving(gated)
    makes = [pool.submit(server.make, "a", task_id="task_1") for _ in range(4)]
    assert gated.entered.wait(10)
    gated.gate.set()
    tasks = [made.result(10) for made in makes]
    assert tasks == [tasks[0]] * 4
    assert tasks[0]["status"] == "completed"
    assert gated.seen == ["a"]


def test_a_client_that_leaves_does_not_stop_the_run(serving: Serving, gated: Gated) -> None:
    server = serving(gated)
    with pytest.raises(Exception, match="timed out"):
        server.post("tasks", json={"user_message_content": "a", "task_id": "task_1"}, timeout=0.2)
    assert gated.entered.wait(10)
    gated.gate.set()
    eventually(lambda: server.task("task_1")["status"] == "completed")


def test_one_run_at_a_time_in_a_session(serving: Serving, gated: Gated, pool: ThreadPoolExecutor) -> None:
    server = serving(gated)
    first = pool.submit(server.make, "first", session_id="s")
    assert gated.entered.wait(10)
    second = pool.submit(server.make, "second", session_id="s", task_id="task_2")
    eventually(lambda: server.get("tasks/task_2").status_code == 200)
    assert server.task("task_2")["status"] == "queued"
    gated.entered.clear()
    other = pool.submit(server.make, "other", session_id="elsewhere")
    assert gated.entered.wait(10), "another session does not wait"
    assert gated.seen == ["first", "other"]
    gated.gate.set()
    assert [made.result(10)["status"] for made in (first, second, other)] == ["completed"] * 3
    assert gated.seen == ["first", "other", "second"]
    assert gated.most_inside == 2


def test_cancel_stops_the_run(serving: Serving, gated: Gated, pool: ThreadPoolExecutor) -> None:
    server = serving(gated)
    made = pool.submit(server.make, "a", task_id="task_1", session_id="s")
    assert gated.entered.wait(10)
    response = server.post("tasks/task_1/cancel", headers={"X-Request-ID": "req_c"})
    assert response.status_code == 200
    body = response.json()
    assert (body["id"], body["status"], body["jsonrpc"], body["request_id"]) == ("task_1", "canceled", "2.0", "req_c")
    assert body["result"] == server.task("task_1")
    assert made.result(10)["status"] == "canceled"
    eventually(lambda: gated.inside == 0)
    gated.gate.set()
    assert server.make("b", session_id="s")["status"] == "completed"
    assert server.task("task_1")["status"] == "canceled"


def test_cancel_of_a_queued_task_lets_the_next_wait_for_the_first(
    serving: Serving, gated: Gated, pool: ThreadPoolExecutor
) -> None:
    server = serving(gated)
    first = pool.submit(server.make, "first", session_id="s")
    assert gated.entered.wait(10)
    queued = pool.submit(server.make, "second", session_id="s", task_id="task_2")
    eventually(lambda: server.get("tasks/task_2").status_code == 200)
    third = pool.submit(server.make, "third", session_id="s", task_id="task_3")
    eventually(lambda: server.get("tasks/task_3").status_code == 200)
    assert server.post("tasks/task_2/cancel").json()["status"] == "canceled"
    assert queued.result(10)["status"] == "canceled"
    assert server.task("task_3")["status"] == "queued"
    gated.gate.set()
    assert first.result(10)["status"] == third.result(10)["status"] == "completed"
    assert gated.seen == ["first", "third"]
    assert gated.most_inside == 1


def test_cancel_of_a_waiting_task_drops_its_calls(server: Server) -> None:
    task = server.make("Paris", session_id="s")
    canceled = server.post(f"tasks/{task['id']}/cancel").json()
    assert canceled["status"] == "canceled"
    assert "input_required" not in canceled
    again = server.post(f"tasks/{task['id']}/cancel")
    assert (again.status_code, again.json()["result"]) == (200, canceled["result"])
    call_id = task["input_required_call_ids"][0]
    status, error = server.refuse([], session_id="s", tool_results=[{"call_id": call_id, "message_content": "x"}])
    assert status == 400
    assert "waits for no tool result" in error["message"]


def test_a_finished_task_cannot_be_canceled(demo: Server) -> None:
    task = demo.make("hello")
    response = demo.post(f"tasks/{task['id']}/cancel")
    assert (response.status_code, response.json()["code"]) == (409, -32002)
    assert response.json()["message"] == "Task cannot be canceled: it is completed"
    assert demo.task(task["id"])["status"] == "completed"


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("POST", "/cancel")])
def test_unknown_tasks_are_not_found(server: Server, method: str, path: str) -> None:
    response = server.request(method, f"tasks/task_none{path}", headers={"X-Request-ID": "req_1"})
    assert response.status_code == 404
    error = {"code": -32001, "message": "Task not found"}
    assert response.json() == {"jsonrpc": "2.0", "id": "req_1", "error": error, **error}


def test_delete_answers_the_task_as_it_was_and_forgets_it(demo: Server) -> None:
    task = demo.make("hello", task_id="task_1")
    deleted = demo.delete("tasks/task_1")
    assert (deleted.status_code, deleted.json()["result"]) == (200, task)
    again = demo.delete("tasks/task_1")
    assert (again.status_code, again.json()["result"]) == (200, task)
    assert demo.get("tasks/task_1").status_code == 404
    assert demo.get("tasks").json()["result"] == []
    status, error = demo.refuse("hello", task_id="task_1")
    assert (status, "was deleted" in error["message"]) == (409, True)


def test_delete_stops_a_run_and_releases_who_waits(serving: Serving, gated: Gated, pool: ThreadPoolExecutor) -> None:
    server = serving(gated)
    made = pool.submit(server.post, "tasks", json={"user_message_content": "a", "task_id": "task_1"})
    assert gated.entered.wait(10)
    assert server.delete("tasks/task_1").json()["result"]["status"] == "working"
    assert made.result(10).status_code == 404
    eventually(lambda: gated.inside == 0)
    assert server.get("tasks/task_1").status_code == 404


def test_a_later_turn_sees_the_earlier_completed_ones(serving: Serving) -> None:
    agent = Scripted(lambda conversation: [answer(f"turn {len(conversation.earlier) + 1}")])
    server = serving(agent)
    server.make("one", session_id="s")
    server.make("elsewhere", session_id="t")
    second = server.make("two", session_id="s")
    assert second["output"][0]["content"] == "turn 2"
    (turn,) = agent.seen[-1].earlier
    assert [item.text for item in turn.user_content] == ["one"]  # type: ignore[attr-defined]
    assert [item.text for item in turn.output] == ["turn 1"]  # type: ignore[attr-defined]


def test_what_could_not_be_recorded_fails(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError("disk full")

    server = serving(Scripted(lambda _: [answer("hi")]))
    with monkeypatch.context() as patch:
        patch.setattr("agentlin_bridge.server.execution.steps.dumped", full)
        task = server.make("a", task_id="task_1")
    assert task["status"] == "failed"
    assert "could not record" in task["error"]["message"]
    assert "disk full" in caplog.text
    assert server.make("b")["status"] == "completed"


def test_what_cannot_be_recorded_at_all_is_run_again(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("disk full")

    server = serving(Scripted(lambda _: [answer("hi")]))
    with ThreadPoolExecutor() as pool:
        with monkeypatch.context() as patch:
            patch.setattr("agentlin_bridge.server.execution.steps.dumped", full)
            patch.setattr("agentlin_bridge.server.execution.steps.fail", full)
            made = pool.submit(server.make, "a", task_id="task_1")
            eventually(lambda: "gave up" in caplog.text)
            assert server.task("task_1")["status"] == "working"
        assert made.result()["status"] == "completed"
