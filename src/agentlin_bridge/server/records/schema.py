"""The server's tables, as the newest migration leaves them.

A *turn* is what one user message sets off: a chain of tasks, each continuing the one before with tool
results. `turn_id` is the id of its first task. `seq` is the order of creation.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import JSON, Column, Float, Index, Integer, MetaData, String, Table, Text

HEAD = "0003"
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
    Column("created_at", Integer, nullable=False),  # Unix seconds, as all times here
    Column("fingerprint", String(64), nullable=False),
    Column("request", JSON, nullable=False),
    Column("error", JSON(none_as_null=True)),
    Column("tool_calls", Integer, nullable=False),  # asked by this task, without those it only repeats
    Column("steps", Integer, nullable=False, server_default="0"),  # the model calls of this task that are recorded
    Column("attempt", Integer, nullable=False, server_default="1"),  # which of its workflows counts
    Column("executor", String(40)),  # the process that is in its round, or about to be; None while none is
    Column("usage", JSON(none_as_null=True)),  # tokens, as far as the model told
    Column("size", Integer, nullable=False, server_default="0"),  # bytes of its output items
    Column("told", Integer, nullable=False, server_default="0"),  # the number of its newest event
    Column("expires_at", Float),
    Column("finished_at", Float),
    Index("tasks_by_session", "session_id", "seq"),
    Index("tasks_by_user", "user_id", "seq"),
    Index("tasks_by_status", "status", "seq"),
    Index("tasks_by_turn", "turn_id", "seq"),
    Index("tasks_by_expiry", "expires_at"),
    sqlite_autoincrement=True,
)

events = Table(
    "events",
    metadata,
    Column("task_id", _ID, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),  # 1, 2, 3... per task
    Column("at", Float, nullable=False),
    Column("status", String(20)),  # what the task became, or
    Column("item", JSON(none_as_null=True)),  # an output item that is complete
    Column("step", Integer, nullable=False),  # which model call it belongs to; 0 for none
)

HELD = "held"
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
    Column("state", String(10), nullable=False),  # held until the round ends, open, answered or dropped
    Column("call", JSON, nullable=False),
    Column("result", JSON(none_as_null=True)),
    Index("calls_by_session", "session_id", "state"),
    Index("calls_by_turn", "turn_id", "state"),
    Index("calls_by_asker", "asked_by"),
    Index("calls_by_answer", "answered_by"),
    sqlite_autoincrement=True,
)

leaving = Table(
    "leaving",
    metadata,
    Column("task_id", _ID, primary_key=True),  # of a task that was ended from outside, and is perhaps deleted
    Column("session_id", _ID, nullable=False),
    Column("executor", String(40), nullable=False),  # the process that has yet to leave its round
    Index("leaving_by_session", "session_id"),
)

tombstones = Table(
    "tombstones",
    metadata,
    Column("id", _ID, primary_key=True),  # of a deleted task
    Column("user_id", _ID, nullable=False),
    Column("deleted_at", Float, nullable=False),
    Column("answer", JSON, nullable=False),  # what the first delete said, without what is large
    Index("tombstones_by_age", "deleted_at"),
)
