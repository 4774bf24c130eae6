"""The server's tables, as the newest migration leaves them.

A *turn* is what one user message sets off: a chain of tasks, each continuing the one before with tool
results. `turn_id` is the id of its first task. `seq` is the order of creation.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import JSON, Column, Index, Integer, MetaData, String, Table, Text

HEAD = "0001"
MIGRATIONS = Path(__file__).with_name("migrations")

_ID = String(200)

metadata = MetaData()

tasks = Table(
    "tasks",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("id", _ID, nullable=False, unique=True),
    Column("session_id", _ID, nullable=False),
    Column("user_id", _ID, nullable=False),
    Column("turn_id", _ID, nullable=False),
    Column("previous_task_id", _ID),
    Column("continued_by", _ID),  # the task that took this one's tool results
    Column("status", String(20), nullable=False),
    Column("created_at", Integer, nullable=False),  # Unix seconds
    Column("fingerprint", String(64), nullable=False),
    Column("request", JSON, nullable=False),
    Column("output", JSON, nullable=False),
    Column("error", JSON(none_as_null=True)),
    Column("tool_calls", Integer, nullable=False),  # asked by this task, without those it only repeats
    Index("tasks_by_session", "session_id", "seq"),
    Index("tasks_by_user", "user_id", "seq"),
    Index("tasks_by_status", "status", "seq"),
    Index("tasks_by_turn", "turn_id", "seq"),
    sqlite_autoincrement=True,
)

OPEN = "open"
ANSWERED = "answered"
DROPPED = "dropped"

calls = Table(
    "calls",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("session_id", _ID, nullable=False),
    Column("turn_id", _ID, nullable=False),
    Column("call_id", Text, nullable=False),
    Column("asked_by", _ID, nullable=False),
    Column("answered_by", _ID),
    Column("state", String(10), nullable=False),  # open, answered or dropped
    Column("call", JSON, nullable=False),
    Column("result", JSON(none_as_null=True)),
    Index("calls_by_session", "session_id", "state"),
    Index("calls_by_asker", "asked_by"),
    Index("calls_by_answer", "answered_by"),
    sqlite_autoincrement=True,
)
