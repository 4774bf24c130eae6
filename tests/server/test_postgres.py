"""Several servers on one PostgreSQL: what one runs, all can see, wait for and stop."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from agentlin_bridge.server.execution.cluster import NAMES
from tests.support.postgres import Postgres
from tests.support.processes import wait_until_gone

from .agents import Scripted, eventually, result, weather
from .conftest import Serving
from .crashing import CrashServer, check_journal, drive, read_journal


@pytest.fixture
def database(postgres: Postgres) -> str:
    return postgres.new_database()


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


class Both:
    """Two servers, and a client of each."""

    def __init__(self, one: CrashServer, other: CrashServer, client: httpx.Client, journal: Path) -> None:
        self.one, self.other, self._client = one, other, client
        self.journal = journal

    def make(self, server: CrashServer, key: str, session: str | None = None) -> dict[str, Any]:
        return self.post(server, {"user_message_content": key, "task_id": key, "session_id": session or key})

    def post(self, server: CrashServer, body: dict[str, Any]) -> dict[str, Any]:
        task: dict[str, Any] = self._client.post(server.url, json=body).json()["result"]
        return task

    def ask(self, server: CrashServer, task_id: str) -> dict[str, Any]:
        task: dict[str, Any] = self._client.get(f"{server.url}/{task_id}").json().get("result", {})
        return task

    def do(self, server: CrashServer, task_id: str, verb: str) -> httpx.Response:
        return self._client.post(f"{server.url}/{task_id}/{verb}")

    def end(self, server: CrashServer, task_id: str, how: str) -> int:
        if how == "delete":
            return self._client.delete(f"{server.url}/{task_id}").status_code
        return self.do(server, task_id, how).status_code

    def noted(self, what: str, key: str) -> bool:
        return any((line["what"], line.get("key")) == (what, key) for line in read_journal(self.journal))

    def open_gate(self) -> None:
        self.journal.with_suffix(".gate").touch()


@pytest.fixture
def both(database: str, journal: Path) -> Iterator[Both]:
    with (
        CrashServer(database, journal) as one,
        CrashServer(database, journal) as other,
        httpx.Client(timeout=30) as client,
    ):
        one.start()
        other.start()
        yield Both(one, other, client, journal)
        one.stop()
        other.stop()


def test_what_one_runs_another_shows_and_cancels(both: Both, pool: ThreadPoolExecutor) -> None:
    made = pool.submit(both.make, both.one, "hold-1")
    eventually(lambda: both.noted("begin", "hold-1"))
    assert both.ask(both.other, "hold-1")["status"] == "working"
    waiting = pool.submit(both.make, both.other, "hold-1")
    assert both.do(both.other, "hold-1", "cancel").json()["status"] == "canceled"
    eventually(lambda: both.noted("stopped", "hold-1"))
    assert made.result(20)["status"] == waiting.result(20)["status"] == "canceled"


def test_a_session_has_one_round_at_a_time_wherever_its_tasks_come_in(both: Both, pool: ThreadPoolExecutor) -> None:
    first = pool.submit(both.make, both.one, "hold-1", "s")
    eventually(lambda: both.noted("begin", "hold-1"))
    second = pool.submit(both.make, both.other, "hold-2", "s")
    eventually(lambda: both.ask(both.one, "hold-2").get("status") == "queued")
    both.open_gate()
    assert first.result(20)["status"] == second.result(20)["status"] == "completed"
    order = [line["key"] for line in read_journal(both.journal) if line["what"] == "begin"]
    assert order == ["hold-1", "hold-2"]


def test_what_one_runs_another_pauses_and_goes_on_with(both: Both, pool: ThreadPoolExecutor) -> None:
    made = pool.submit(both.make, both.one, "hold-1")
    eventually(lambda: both.noted("begin", "hold-1"))
    assert both.do(both.other, "hold-1", "pause").json()["status"] == "paused"
    assert made.result(20)["status"] == "paused"
    both.open_gate()
    eventually(lambda: bool(both.ask(both.other, "hold-1").get("output")))
    assert both.do(both.other, "hold-1", "resume").status_code == 200
    eventually(lambda: both.ask(both.one, "hold-1")["status"] == "completed")
    assert sum(line["what"] == "begin" for line in read_journal(both.journal)) == 1


def test_a_step_goes_on_when_another_server_pauses_and_resumes_it(both: Both, pool: ThreadPoolExecutor) -> None:
    made = pool.submit(both.make, both.one, "hold-1")
    eventually(lambda: both.noted("begin", "hold-1"))
    assert both.do(both.other, "hold-1", "pause").json()["status"] == "paused"
    assert made.result(20)["status"] == "paused"
    assert both.do(both.other, "hold-1", "resume").json()["status"] == "working"
    both.open_gate()
    eventually(lambda: both.ask(both.other, "hold-1")["status"] == "completed")
    assert [line["what"] for line in read_journal(both.journal)] == ["begin", "end"]


def test_a_paused_task_whose_server_died_is_resumed_elsewhere(both: Both, pool: ThreadPoolExecutor) -> None:
    pool.submit(both.make, both.one, "hold-1")
    eventually(lambda: both.noted("begin", "hold-1"))
    assert both.do(both.other, "hold-1", "pause").json()["status"] == "paused"
    both.one.kill()
    both.open_gate()
    assert both.do(both.other, "hold-1", "resume").status_code == 200
    eventually(lambda: both.ask(both.other, "hold-1")["status"] == "completed", 20)
    both.one.start()


def test_a_paused_task_is_resumed_elsewhere_though_its_server_was_started_again(
    both: Both, pool: ThreadPoolExecutor
) -> None:
    pool.submit(both.make, both.one, "hold-1")
    eventually(lambda: both.noted("begin", "hold-1"))
    assert both.do(both.one, "hold-1", "pause").json()["status"] == "paused"
    both.one.kill()
    both.one.start()
    both.open_gate()
    assert both.do(both.other, "hold-1", "resume").status_code == 200
    eventually(lambda: both.ask(both.other, "hold-1")["status"] == "completed", 20)
    assert [line["what"] for line in read_journal(both.journal)] == ["begin", "begin", "end"]


@pytest.mark.parametrize("how", ["cancel", "delete"])
def test_the_next_task_waits_until_the_server_of_an_ended_one_has_left_it(
    both: Both, pool: ThreadPoolExecutor, how: str
) -> None:
    pool.submit(both.make, both.one, "hold-slow", "s")
    eventually(lambda: both.noted("begin", "hold-slow"))
    assert both.end(both.other, "hold-slow", how) == 200
    eventually(lambda: both.noted("stopped", "hold-slow"))
    made = pool.submit(both.make, both.other, "q-2", "s")
    eventually(lambda: both.ask(both.other, "q-2").get("status") == "queued")
    both.open_gate()
    assert made.result(20)["status"] == "completed"
    order = [(line["what"], line["key"]) for line in read_journal(both.journal)]
    assert order.index(("left", "hold-slow")) < order.index(("begin", "q-2"))


def test_the_next_task_need_not_wait_for_a_server_that_died(both: Both, pool: ThreadPoolExecutor) -> None:
    pool.submit(both.make, both.one, "hold-slow", "s")
    eventually(lambda: both.noted("begin", "hold-slow"))
    assert both.end(both.other, "hold-slow", "cancel") == 200
    eventually(lambda: both.noted("stopped", "hold-slow"))
    made = pool.submit(both.make, both.other, "q-2", "s")
    eventually(lambda: both.ask(both.other, "q-2").get("status") == "queued")
    both.one.kill()
    assert made.result(20)["status"] == "completed"
    both.one.start()


def test_a_stream_ends_when_another_server_deletes_its_task(both: Both, pool: ThreadPoolExecutor) -> None:
    pool.submit(both.make, both.one, "hold-1")
    eventually(lambda: both.noted("begin", "hold-1"))
    heard: list[str] = []
    listener = pool.submit(_listen, both.other, "hold-1", heard)
    eventually(lambda: len(heard) == 2)
    assert both.end(both.one, "hold-1", "delete") == 200
    listener.result(20)
    assert heard[:2] == ["task.created", "task.working"]


def test_what_one_runs_another_tells_of(both: Both, pool: ThreadPoolExecutor) -> None:
    pool.submit(both.make, both.one, "hold-1")
    eventually(lambda: both.noted("begin", "hold-1"))
    heard: list[str] = []
    listener = pool.submit(_listen, both.other, "hold-1", heard)
    eventually(lambda: len(heard) == 2)
    both.open_gate()
    listener.result(20)
    assert heard == ["task.created", "task.working", "task.output_item.done", "task.completed"]


def _listen(server: CrashServer, task_id: str, heard: list[str]) -> None:
    with httpx.stream("GET", f"{server.url}/{task_id}/events", timeout=30) as response:
        for line in response.iter_lines():
            if line.startswith("data: "):
                heard.append(json.loads(line[6:])["result"]["type"])  # noqa: PERF401


def test_a_server_that_can_no_longer_decide_leaves_and_says_why(database: str, journal: Path) -> None:
    with CrashServer(database, journal) as server:
        server.start()
        with psycopg.connect(database, autocommit=True) as connection:
            names = connection.execute(
                "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = %s", (NAMES,)
            )
            (guard,) = [pid for (pid,) in names]
            ended = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid NOT IN (pg_backend_pid(), %s) "
                "AND (query LIKE '%%pg_advisory%%' OR query LIKE '%%pg_locks%%')",
                (guard,),
            )
            assert ended.fetchall() == [(True,)]
        assert server.wait_for_end() == 1
        assert "claim on the tasks" in server.log()


def test_a_server_that_loses_the_database_leaves_and_says_why(database: str, journal: Path) -> None:
    with CrashServer(database, journal) as server:
        server.start()
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        assert server.wait_for_end() == 1
        assert "claim on the tasks" in server.log()


def test_workers_share_a_port_and_the_work(database: str, journal: Path, pool: ThreadPoolExecutor) -> None:
    with CrashServer(database, journal, workers=2) as server:
        server.start()
        lanes = [pool.submit(drive, [server.url], f"w{number}") for number in range(8)]
        answers = {key: text for lane in lanes for key, text in lane.result().items()}
        workers = {line["pid"] for line in read_journal(journal)}
        assert server.pid not in workers
        victim = workers.pop()
        os.kill(victim, signal.SIGKILL)
        wait_until_gone(victim)
        lanes = [pool.submit(drive, [server.url], f"x{number}") for number in range(8)]
        answers |= {key: text for lane in lanes for key, text in lane.result().items()}
        eventually(lambda: f"process {victim}" in server.log())
        eventually(lambda: _serving(server) == 3, 30)
        check_journal(read_journal(journal), answers)
        server.stop()


def test_workers_leave_when_the_process_that_started_them_is_killed(database: str, journal: Path) -> None:
    with CrashServer(database, journal, workers=2) as server:
        server.start()
        eventually(lambda: _serving(server) == 2, 30)
        drive([server.url], "k")
        workers = {line["pid"] for line in read_journal(journal)}
        server.kill()
        for worker in workers:
            wait_until_gone(worker, 20)


def _serving(server: CrashServer) -> int:
    """How many workers have said that they serve."""
    return server.log().count("serving countdown agent")


def test_the_life_of_a_task_is_the_same_as_on_sqlite(serving: Serving, database: str) -> None:
    server = serving(Scripted(weather), database=database, retention=0.6)
    asked = server.make("Paris Rome", session_id="s", task_id="task_1")
    first, second = asked["input_required_call_ids"]
    part = server.make([], session_id="s", thought_messages=[result(first, "sun")])
    assert part["input_required_call_ids"] == [second]
    done = server.make([], session_id="s", thought_messages=[result(second, "rain")])
    assert done["output"][0]["content"] == "sun | rain"
    assert server.make("Paris Rome", session_id="s", task_id="task_1") == server.task("task_1")
    waiting = server.make("Oslo", session_id="t", expires_in=0.3)
    eventually(lambda: server.task(waiting["id"])["status"] == "expired")
    gone = server.make("Bern", task_id="gone")
    assert server.post("tasks/gone/cancel").json()["status"] == "canceled"
    deleted = server.delete("tasks/gone").json()["result"]
    assert server.delete("tasks/gone").json()["result"] == deleted
    assert server.refuse("Bern", task_id="gone")[0] == 409
    assert gone["id"] == deleted["id"]
    kept = server.make("Lima", session_id="u")
    eventually(lambda: [task["id"] for task in server.get("tasks").json()["result"]] == [kept["id"]], 15)
    eventually(lambda: server.delete("tasks/gone").status_code == 404, 15)


def test_results_that_come_to_several_servers_at_once_run_the_agent_once(both: Both, pool: ThreadPoolExecutor) -> None:
    asked = both.make(both.one, "k-1", "k")
    answers = {"thought_messages": [result(asked["input_required_call_ids"][0], "yes")], "session_id": "k"}

    def deliver(number: int) -> dict[str, Any]:
        return both.post((both.one, both.other)[number % 2], {"user_message_content": [], **answers})

    tasks = list(pool.map(deliver, range(8)))
    assert {task["status"] for task in tasks} == {"completed"}
    assert len({task["id"] for task in tasks}) == 1
    assert sum(line["what"] == "begin" and line["step"] == "model 3" for line in read_journal(both.journal)) == 1


def test_one_task_id_that_comes_to_several_servers_at_once_is_one_task(both: Both, pool: ThreadPoolExecutor) -> None:
    body = {"user_message_content": "k-1", "task_id": "k-1"}
    tasks = list(pool.map(lambda number: both.post((both.one, both.other)[number % 2], body), range(8)))
    assert [task["status"] for task in tasks] == ["input-required"] * 8
    assert len({task["session_id"] for task in tasks}) == 1
    assert sum(line["what"] == "begin" and line["step"] == "model 1" for line in read_journal(both.journal)) == 1
