"""A database that takes no writes for a while: what could not be recorded is run again, or fails and says so."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from .agents import Gated, eventually
from .conftest import Server, Serving


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


class Refusing:
    """A database whose tasks cannot be changed in some column, or at all."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def refuse(self, column: str = "") -> None:
        of = f"OF {column} " if column else ""
        self._do(f"CREATE TRIGGER refusing BEFORE UPDATE {of}ON tasks BEGIN SELECT RAISE(ABORT, 'disk full'); END")

    def accept(self) -> None:
        self._do("DROP TRIGGER refusing")

    def _do(self, statement: str) -> None:
        with closing(sqlite3.connect(self._path, timeout=20)) as connection:
            connection.execute(statement)


@pytest.fixture
def database(tmp_path: Path) -> Refusing:
    return Refusing(tmp_path / "server.sqlite")


def begun(server: Server, agent: Gated, pool: ThreadPoolExecutor) -> Future[dict[str, Any]]:
    made = pool.submit(server.make, "a", task_id="task_1", session_id="s")
    assert agent.entered.wait(10)
    return made


def test_a_round_that_could_not_be_recorded_is_run_again(
    serving: Serving, pool: ThreadPoolExecutor, database: Refusing, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Gated()
    server = serving(agent)
    made = begun(server, agent, pool)
    database.refuse()
    agent.gate.set()
    eventually(lambda: "gave up its round" in caplog.text)
    assert server.task("task_1")["status"] == "working"
    database.accept()
    assert made.result(20)["status"] == "completed"
    assert agent.seen == ["a", "a"]


def test_a_step_that_cannot_be_recorded_fails_its_task(
    serving: Serving, pool: ThreadPoolExecutor, database: Refusing
) -> None:
    agent = Gated()
    server = serving(agent)
    made = begun(server, agent, pool)
    database.refuse("steps")
    agent.gate.set()
    task = made.result(20)
    assert task["status"] == "failed"
    assert "could not record" in task["error"]["message"]
    database.accept()
    assert server.make("b", session_id="s")["status"] == "completed"


def test_a_round_that_could_not_be_recorded_can_be_canceled(
    serving: Serving, pool: ThreadPoolExecutor, database: Refusing, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Gated()
    server = serving(agent)
    made = begun(server, agent, pool)
    database.refuse()
    agent.gate.set()
    eventually(lambda: "gave up its round" in caplog.text)
    agent.gate.clear()
    database.accept()
    assert server.post("tasks/task_1/cancel").json()["status"] == "canceled"
    assert made.result(20)["status"] == "canceled"
    agent.gate.set()
    assert server.make("b", session_id="s")["status"] == "completed"
    assert agent.most_inside == 1
