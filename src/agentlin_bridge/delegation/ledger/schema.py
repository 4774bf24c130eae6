"""The ledger's tables. A change here needs a new revision under `migrations/versions`.

What comes from outside has no length of ours. Every change of a task counts its `version` up.

tasks    what was asked, by whom, how it stands
rounds   one remote task each: its id is written before it is sent; (task_id, seq) being unique is what
         makes one process the one that claims a continuation
calls    the tool calls of a round, each walking requested -> started -> answered -> delivered
notes    what a backend learned about its remote and wants to know again after a restart
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator

HEAD = "0002"

SCHEMA = "agentlin_bridge"
"""Where the tables are on PostgreSQL."""

CHANNEL = "agentlin_bridge_ledger"
"""Where a change of a task is told on PostgreSQL: `<application name> <task id> <status>`."""


class RemoteText(TypeDecorator[str]):
    """Text that a model wrote. PostgreSQL takes any character but one, which is no reason to lose the rest."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        """The text as the database takes it."""
        if value is None or dialect.name != "postgresql":
            return value
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")


metadata = MetaData()

tasks = Table(
    "tasks",
    metadata,
    Column("id", String, primary_key=True),
    Column("principal", String, nullable=False),
    Column("request_id", String),
    Column("fingerprint", String(64), nullable=False),
    Column("backend", String(64), nullable=False),
    Column("place", String, nullable=False),
    Column("agent", String),
    Column("continue_task", String),
    Column("previous_remote_id", String),
    Column("content", JSON, nullable=False),
    Column("client_tools", JSON, nullable=False),
    Column("options", JSON, nullable=False),
    Column("output_schema", JSON),
    Column("metadata", JSON, nullable=False),
    Column("session_id", String, nullable=False),
    Column("user_id", String, nullable=False),
    Column("stream", Boolean, nullable=False),
    Column("status", String(16), nullable=False),
    Column("answer", RemoteText),
    Column("error", JSON),
    Column("usage", JSON, nullable=False),
    Column("remote_outcome", String(16)),
    Column("version", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("deadline_at", Float, nullable=False),
    Column("deleted_at", Float),
    UniqueConstraint("principal", "request_id", name="uq_tasks_request"),
    Index("ix_tasks_listing", "principal", "created_at", "id"),
    Index("ix_tasks_session", "session_id"),
)

rounds = Table(
    "rounds",
    metadata,
    Column("task_id", String, ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("remote_id", String, nullable=False),
    Column("session_id", String, nullable=False),
    Column("owner", String(64), nullable=False),
    Column("fence", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("status", String(16)),
    Column("output", JSON),
    Column("usage", JSON),
    Column("claimed_at", Float, nullable=False),
    Column("seen_at", Float),
    Column("settled_at", Float),
    Index("ix_rounds_remote", "remote_id"),
)

calls = Table(
    "calls",
    metadata,
    Column("task_id", String, ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("call_id", String, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("name", String, nullable=False),
    Column("arguments", RemoteText, nullable=False),
    Column("state", String(16), nullable=False),
    Column("approval", String(16)),
    Column("edited", Text),  # the arguments a person approved instead of those asked for
    Column("owner", String(64)),
    Column("attempt", Integer, nullable=False),
    Column("result", JSON),
    Column("requested_at", Float, nullable=False),
    Column("started_at", Float),
    Column("answered_at", Float),
    Column("delivered_at", Float),
)

notes = Table(
    "notes",
    metadata,
    Column("backend", String(64), primary_key=True),
    Column("name", String, primary_key=True),
    Column("value", String, nullable=False),
    Column("noted_at", Float, nullable=False),
)
