"""The migrations lead to the tables the code uses, and refuse what a newer version wrote."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from agentlin_bridge.database import open_database
from agentlin_bridge.errors import LedgerError
from agentlin_bridge.server.records.schema import HEAD, MIGRATIONS, metadata


def test_the_migrated_schema_is_the_one_in_the_code(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "db", migrations=MIGRATIONS, head=HEAD)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_the_migration_is_committed(tmp_path: Path) -> None:
    open_database(tmp_path / "db", migrations=MIGRATIONS, head=HEAD).dispose()
    with sqlite3.connect(tmp_path / "db") as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]
        assert connection.execute("SELECT count(*) FROM tasks").fetchall() == [(0,)]
    connection.close()
    open_database(tmp_path / "db", migrations=MIGRATIONS, head=HEAD).dispose()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    open_database(tmp_path / "db", migrations=MIGRATIONS, head=HEAD).dispose()
    with sqlite3.connect(tmp_path / "db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(LedgerError, match="newer version"):
        open_database(tmp_path / "db", migrations=MIGRATIONS, head=HEAD)


def test_the_tables_of_an_older_version_keep_their_tasks(tmp_path: Path) -> None:
    path = tmp_path / "db"
    open_database(path, migrations=MIGRATIONS, head="0001").dispose()
    old = [
        ("done", "completed", [{"type": "message", "role": "assistant", "content": "hi"}]),
        ("asked", "input-required", [{"type": "tool_call", "call_id": "c", "name": "f", "arguments": "{}"}]),
        ("part", "input-required", [{"type": "tool_call", "call_id": "c", "name": "f", "arguments": "{}"}]),
        ("new", "created", []),
    ]
    with sqlite3.connect(path) as connection:
        for task_id, status, output in old:
            connection.execute(
                "INSERT INTO tasks (id, session_id, user_id, turn_id, status, created_at, fingerprint, request, output,"
                " tool_calls) VALUES (?, 's', 'u', ?, ?, 7, '', '{}', ?, 0)",
                (task_id, task_id, status, json.dumps(output)),
            )
        connection.execute(
            "INSERT INTO calls (session_id, turn_id, call_id, asked_by, state, call)"
            " VALUES ('s', 'asked', 'c', 'asked', 'open', '{}')"
        )
    connection.close()
    open_database(path, migrations=MIGRATIONS, head=HEAD).dispose()
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT task_id, number, status, item, step FROM events ORDER BY task_id, number")
        events = [
            (task_id, number, status or json.loads(item)["type"], step) for task_id, number, status, item, step in rows
        ]
        told = dict(connection.execute("SELECT id, told FROM tasks"))
    connection.close()
    assert events == [
        ("asked", 1, "created", 0),
        ("asked", 2, "tool_call", 1),
        ("asked", 3, "input-required", 1),
        ("done", 1, "created", 0),
        ("done", 2, "message", 1),
        ("done", 3, "completed", 1),
        ("new", 1, "created", 0),
        ("part", 1, "created", 0),
        ("part", 2, "tool_call", 0),
        ("part", 3, "input-required", 0),
    ]
    assert told == {"asked": 3, "done": 3, "new": 1, "part": 3}


def test_what_an_older_version_left_is_put_in_order(tmp_path: Path) -> None:
    path = tmp_path / "db"
    open_database(path, migrations=MIGRATIONS, head="0002").dispose()
    rows = [
        ("whole", "input-required", "rest", "whole"),
        ("rest", "completed", None, "whole"),
        ("cut", "input-required", "gone", "cut"),
        ("broken", "failed", "gone", "broken"),
        ("held", "paused", None, "held"),
    ]
    large = {
        "id": "old",
        "object": "task",
        "status": "completed",
        "output": [{"type": "message", "content": "x" * 20_000}],
    }
    with sqlite3.connect(path) as connection:
        connection.executemany(
            "INSERT INTO tasks (id, session_id, user_id, turn_id, status, created_at, fingerprint, request, tool_calls,"
            " told, executor, continued_by) VALUES (?, 's', 'u', ?, ?, 7, '', '{}', 0, 2, 'server', ?)",
            [(task_id, turn, status, later) for task_id, status, later, turn in rows],
        )
        connection.executemany(
            "INSERT INTO tombstones (id, user_id, deleted_at, answer) VALUES (?, 'u', 7, ?)",
            [("old", json.dumps(large)), ("small", json.dumps({"id": "small", "output": []}))],
        )
    connection.close()
    open_database(path, migrations=MIGRATIONS, head=HEAD).dispose()
    with sqlite3.connect(path) as connection:
        found = connection.execute("SELECT id, status, continued_by, executor, told FROM tasks ORDER BY seq").fetchall()
        ends = connection.execute("SELECT task_id, number, status FROM events").fetchall()
        graves = dict(connection.execute("SELECT id, answer FROM tombstones"))
        why = connection.execute("SELECT error FROM tasks WHERE id = 'cut' AND finished_at IS NOT NULL").fetchone()
    connection.close()
    assert found == [
        ("whole", "input-required", "rest", None, 2),
        ("rest", "completed", None, None, 2),
        ("cut", "canceled", None, None, 3),
        ("broken", "failed", None, None, 2),
        ("held", "paused", None, "server", 2),
    ]
    assert ends == [("cut", 3, "canceled")]
    assert "deleted" in json.loads(why[0])["message"]
    assert json.loads(graves["old"]) == {"id": "old", "object": "task", "status": "completed"}
    assert json.loads(graves["small"]) == {"id": "small", "output": []}
