"""Which rounds the durable engine is told of: those that last."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from .agents import Gated, eventually
from .conftest import Serving


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def entered(tmp_path: Path) -> dict[str, str]:
    """The rounds on record beside the server's database, and how each ended."""
    with closing(sqlite3.connect(tmp_path / "server.sqlite.engine")) as engine:
        return dict(engine.execute("SELECT workflow_uuid, status FROM workflow_status").fetchall())


def test_a_round_that_lasts_is_entered_and_one_that_does_not_is_not(
    serving: Serving, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    agent = Gated()
    server = serving(agent)
    lasting = pool.submit(server.make, "long", task_id="task_long")
    eventually(lambda: entered(tmp_path) == {"task_long:1": "PENDING"})
    agent.gate.set()
    assert lasting.result(10)["status"] == "completed"
    eventually(lambda: entered(tmp_path) == {"task_long:1": "SUCCESS"})
    assert server.make("short")["status"] == "completed"
    assert list(entered(tmp_path)) == ["task_long:1"]
    assert agent.seen == ["long", "short"], "each is run once"


def test_a_round_that_cannot_be_entered_goes_on(
    serving: Serving, pool: ThreadPoolExecutor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Gated()
    server = serving(agent)
    with closing(sqlite3.connect(tmp_path / "server.sqlite.engine")) as engine:
        engine.execute("ALTER TABLE workflow_status RENAME TO lost")
    task = pool.submit(server.make, "long")
    eventually(lambda: "could not be entered" in caplog.text)
    agent.gate.set()
    assert task.result(10)["status"] == "completed"
    assert agent.seen == ["long"]
    with closing(sqlite3.connect(tmp_path / "server.sqlite.engine")) as engine:
        engine.execute("ALTER TABLE lost RENAME TO workflow_status")
