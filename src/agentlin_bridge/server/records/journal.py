"""Status changes and output items of tasks, each with an event. Inside a write transaction."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from sqlalchemy import (
    CompoundSelect,
    Connection,
    Row,
    bindparam,
    insert,
    literal_column,
    select,
    text,
    union_all,
    update,
)

from agentlin_bridge.server.records.schema import DROPPED, HELD, OPEN, calls, events, leaving, tasks
from agentlin_bridge.server.records.snapshot import row_of
from agentlin_bridge.task import JsonrpcError, TaskStatus

BUSY = (TaskStatus.CREATED, TaskStatus.WORKING, TaskStatus.PAUSED)
"""A session with a task like this has no room for another."""
UNDER_WAY = (TaskStatus.CREATED, TaskStatus.WORKING)
"""A task with one of these has to be in some process's hands."""

CHANNEL = "agentlin_bridge_tasks"
"""Where processes on one PostgreSQL tell each other what changed."""

_TELL = insert(events)
_UPDATE = update(tasks).where(tasks.c.id == bindparam("task_id"))
_BUSY: CompoundSelect[Any] = union_all(
    select(literal_column("1")).where(tasks.c.session_id == bindparam("session"), tasks.c.status.in_(BUSY)),
    select(literal_column("1")).where(leaving.c.session_id == bindparam("session")),
).limit(1)


@dataclass(frozen=True)
class Start:
    """A round that is to be run.

    Attributes:
        attempt: which try at it: a new one after a pause, or after the engine lost one.
        base: the task's model calls that were recorded before this attempt.
    """

    task_id: str
    attempt: int
    base: int

    @property
    def workflow_id(self) -> str:
        """The id under which the engine runs it, once and no more."""
        return f"{self.task_id}:{self.attempt}"


def start_of(row: Row[Any]) -> Start:
    """The round of a task, from where it is."""
    return Start(row.id, row.attempt, row.steps)


class Change:
    """What happens to one task in one transaction: written with `write`, as one update and its events.

    Attributes:
        status: what the task has become.
    """

    def __init__(self, row: Row[Any]) -> None:
        self._row = row
        self._values: dict[str, Any] = {}
        self._events: list[dict[str, Any]] = []
        self.status = TaskStatus(row.status)

    def set(self, **values: Any) -> None:
        """Change columns that nobody is told about."""
        self._values |= values

    def put_out(self, items: Sequence[Mapping[str, Any]], step: int = 0) -> None:
        """Append output items."""
        self._events += [{"status": None, "item": item, "step": step} for item in items]

    def become(self, status: TaskStatus, error: JsonrpcError | None = None) -> None:
        """Give the task another status."""
        self.status = status
        self._values["status"] = status
        if error is not None:
            self._values["error"] = error.model_dump(exclude_none=True)
        if status.is_terminal:
            self._values["finished_at"] = time.time()
        if status.is_terminal or status is TaskStatus.INPUT_REQUIRED:
            self._values["executor"] = None
        self._events.append({"status": status.value, "item": None, "step": 0})

    @property
    def after(self) -> Any:
        """The row as it is once the change is written."""
        return SimpleNamespace(**{"error": None, **self._row._mapping, **self._values})

    def write(self, connection: Connection) -> None:
        """Carry it out."""
        told: int = self._row.told
        if self._events:
            common = {"task_id": self._row.id, "at": time.time()}
            rows = [{**common, **event, "number": number} for number, event in enumerate(self._events, told + 1)]
            connection.execute(_TELL, rows)
        values = {**self._values, "told": told + len(self._events)}
        connection.execute(_UPDATE, {**values, "task_id": self._row.id})
        announce(connection, self._row.id)


def announce(connection: Connection, task_id: str, to: str = "") -> None:
    """Tell the other processes, once this is committed, that something about a task has changed.

    Args:
        to: the executor that has to do something about it.
    """
    if connection.dialect.name == "postgresql":
        executor = connection.get_execution_options().get("executor", "")
        connection.execute(
            text("SELECT pg_notify(:channel, :payload)"), {"channel": CHANNEL, "payload": f"{executor} {to} {task_id}"}
        )


def become(
    connection: Connection, row: Row[Any], status: TaskStatus, *, error: JsonrpcError | None = None, **values: Any
) -> None:
    """Give a task another status."""
    change = Change(row)
    change.set(**values)
    change.become(status, error)
    change.write(connection)


def end(connection: Connection, row: Row[Any], status: TaskStatus, *, error: JsonrpcError | None = None) -> None:
    """A task ends without an answer: its turn waits for nothing any more."""
    close_calls(connection, row.turn_id)
    become(connection, row, status, error=error)


def close_calls(connection: Connection, turn_id: str) -> None:
    """Nobody waits for the results of a turn any more."""
    waiting = calls.c.state.in_((OPEN, HELD))
    connection.execute(update(calls).where(calls.c.turn_id == turn_id, waiting).values(state=DROPPED))


def is_busy(connection: Connection, session_id: str) -> bool:
    """Whether a round of the session is under way, or has yet to be left."""
    return connection.execute(_BUSY, {"session": session_id}).first() is not None


def release(connection: Connection, session_id: str, executor: str) -> Start | None:
    """Let the next queued task of a session go, if nothing of it is under way."""
    lock_session(connection, session_id)
    if is_busy(connection, session_id):
        return None
    queued = select(tasks).where(tasks.c.session_id == session_id, tasks.c.status == TaskStatus.QUEUED)
    row = connection.execute(queued.order_by(tasks.c.seq).limit(1)).first()
    if row is None:
        return None
    values = {"status": TaskStatus.CREATED, "executor": executor}
    connection.execute(update(tasks).where(tasks.c.id == row.id).values(values))
    return start_of(row)


def queued_beside(connection: Connection, task_id: str) -> tuple[str | None, bool]:
    """The session of a task if somebody is queued there, and whether anybody is queued anywhere."""
    queued = tasks.c.status == TaskStatus.QUEUED
    session = select(tasks.c.session_id).where(tasks.c.id == task_id).scalar_subquery()
    here = select(tasks.c.session_id).where(queued, tasks.c.session_id == session).limit(1)
    found: str | None = connection.execute(here).scalar()
    if found is not None:
        return found, True
    return None, connection.execute(select(tasks.c.seq).where(queued).limit(1)).first() is not None


def lock_session(connection: Connection, session_id: str) -> None:
    """Keep other processes away from a session until the end of the transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:session, 7346223))"), {"session": session_id}
        )


def locked_row(connection: Connection, task_id: str) -> Row[Any] | None:
    """The row of a task, whose session nobody else changes until the end of the transaction."""
    row = row_of(connection, task_id)
    if row is None or connection.dialect.name != "postgresql":
        return row
    lock_session(connection, row.session_id)
    return row_of(connection, task_id)
