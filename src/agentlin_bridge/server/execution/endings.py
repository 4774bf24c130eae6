"""What somebody does to a task: cancel, delete, pause, resume; and what time does. Inside a write transaction."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, insert, or_, select, update

from agentlin_bridge.errors import TASK_NOT_PAUSABLE
from agentlin_bridge.server.protocol.refusals import Refusal, not_cancelable, unknown_task
from agentlin_bridge.server.records.journal import (
    UNDER_WAY,
    Change,
    Start,
    announce,
    become,
    end,
    lock_session,
    locked_row,
    release,
)
from agentlin_bridge.server.records.schema import DROPPED, calls, events, leaving, tasks, tombstones
from agentlin_bridge.server.records.snapshot import RUNNABLE, row_of, task_objects
from agentlin_bridge.task import JsonrpcError, TaskObject, TaskStatus

GRAVE = 16 * 1024
"""Bytes of a task that are kept, once it is deleted, for whoever deletes it again."""
_SMALL = {"id", "session_id", "user_id", "status", "created_at", "previous_task_id", "usage"}


@dataclass(frozen=True)
class Ended:
    """What became of a task.

    Attributes:
        task: as the client is told.
        stopped: the tasks that were ended with it.
        inside: those of them that an executor has yet to leave.
        session_id: where the next task may have its turn; None if none can.
    """

    task: TaskObject
    stopped: tuple[str, ...] = ()
    inside: tuple[tuple[str, str], ...] = ()
    session_id: str | None = None


def known(connection: Connection, task_id: str, user: str | None) -> Row[Any]:
    """The row of a task that a user may see; its session stays as it is until the end of the transaction.

    Raises:
        Refusal: there is none.
    """
    row = locked_row(connection, task_id)
    if row is None or user not in {None, row.user_id}:
        raise unknown_task()
    return row


def cancel(connection: Connection, task_id: str, user: str | None) -> Ended:
    """Cancel a task. Canceling it again changes nothing.

    Raises:
        Refusal: it is unknown, over, or was continued by another task.
    """
    row = known(connection, task_id, user)
    if row.status == TaskStatus.CANCELED:
        # What had to follow may have failed the first time.
        return Ended(_task(connection, row), inside=_unleft(connection, task_id), session_id=row.session_id)
    if TaskStatus(row.status).is_terminal:
        raise not_cancelable(f"it is {row.status}")
    if row.continued_by is not None:
        raise not_cancelable(f"it was continued by {row.continued_by}")
    inside = _stop(connection, row, TaskStatus.CANCELED)
    return Ended(_task(connection, known(connection, task_id, user)), (task_id,), inside, row.session_id)


def _unleft(connection: Connection, task_id: str) -> tuple[tuple[str, str], ...]:
    found = connection.execute(select(leaving.c.task_id, leaving.c.executor).where(leaving.c.task_id == task_id))
    return tuple((row.task_id, row.executor) for row in found)


def expire(connection: Connection, task_id: str) -> Ended | None:
    """A task's time is up; None if it was in time after all."""
    row = locked_row(connection, task_id)
    if (
        row is None
        or row.continued_by is not None
        or TaskStatus(row.status).is_terminal
        or row.expires_at > time.time()
    ):
        return None
    why = JsonrpcError(message="The task was not done in time. Create it again, with a larger expires_in.")
    inside = _stop(connection, row, TaskStatus.EXPIRED, why)
    return Ended(_task(connection, row), (task_id,), inside, row.session_id)


def _stop(
    connection: Connection, row: Row[Any], status: TaskStatus, error: JsonrpcError | None = None
) -> tuple[tuple[str, str], ...]:
    """End a task from outside. Until the process that is in its round has left it, the session stays taken."""
    end(connection, row, status, error=error)
    if row.executor is None:
        return ()
    connection.execute(insert(leaving).values(task_id=row.id, session_id=row.session_id, executor=row.executor))
    announce(connection, row.id, to=row.executor)
    return ((row.id, row.executor),)


def leave(connection: Connection, task_id: str, executor: str) -> Start | None:
    """A process has left a round that was ended from outside; returns the round of its session that may start now."""
    found = select(leaving.c.session_id).where(leaving.c.task_id == task_id, leaving.c.executor == executor)
    session_id = connection.execute(found).scalar()
    if session_id is None:
        return None
    lock_session(connection, session_id)
    connection.execute(delete(leaving).where(leaving.c.task_id == task_id))
    return release(connection, session_id, executor)


def next_expiry(connection: Connection) -> tuple[str, float] | None:
    """The task that expires next, and when."""
    row = connection.execute(
        select(tasks.c.id, tasks.c.expires_at)
        .where(tasks.c.expires_at.is_not(None), tasks.c.finished_at.is_(None), tasks.c.continued_by.is_(None))
        .order_by(tasks.c.expires_at)
        .limit(1)
    ).first()
    return row and (row.id, row.expires_at)


def pause(connection: Connection, task_id: str, user: str | None) -> Ended:
    """Let a task stop before its next step. Pausing it again changes nothing.

    Raises:
        Refusal: it is unknown, or neither runs nor is about to.
    """
    row = known(connection, task_id, user)
    if row.status in RUNNABLE:
        become(connection, row, TaskStatus.PAUSED)
    elif row.status != TaskStatus.PAUSED:
        raise Refusal(f"Task cannot be paused: it is {row.status}", status=409, code=TASK_NOT_PAUSABLE)
    return Ended(_task(connection, known(connection, task_id, user)))


def resume(connection: Connection, task_id: str, user: str | None, executor: str) -> tuple[Ended, Start | None]:
    """Let a paused task go on. Resuming what runs changes nothing.

    A round that has not noticed the pause goes on where it is: another attempt would do its step again.

    Returns:
        What became of it, and the round that has to be under way here now.

    Raises:
        Refusal: it is unknown, or neither paused nor running.
    """
    row = known(connection, task_id, user)
    start = None
    if row.status == TaskStatus.PAUSED:
        change = Change(row)
        where, attempt = row.executor or executor, row.attempt + (row.executor is None)
        if row.executor is None and _is_busy_otherwise(connection, row):
            change.set(attempt=attempt)
            change.become(TaskStatus.QUEUED)
        else:
            change.set(attempt=attempt, executor=where)
            if _has_begun(connection, row):
                change.become(TaskStatus.WORKING)
            else:
                change.set(status=TaskStatus.CREATED)  # that it begins will be told then
            if where == executor:
                start = Start(row.id, attempt, row.steps)
            else:
                announce(connection, row.id, to=where)
        change.write(connection)
    elif row.status not in RUNNABLE:
        raise Refusal(f"Task cannot be resumed: it is {row.status}", status=409, code=TASK_NOT_PAUSABLE)
    return Ended(_task(connection, known(connection, task_id, user))), start


def _is_busy_otherwise(connection: Connection, row: Row[Any]) -> bool:
    """Whether another task has the session. One that was paused in the queue has not."""
    begun = and_(tasks.c.status == TaskStatus.PAUSED, or_(tasks.c.steps > 0, tasks.c.executor.is_not(None)))
    others = select(tasks.c.seq).where(
        tasks.c.session_id == row.session_id, tasks.c.id != row.id, or_(tasks.c.status.in_(UNDER_WAY), begun)
    )
    unleft = select(leaving.c.task_id).where(leaving.c.session_id == row.session_id)
    return any(connection.execute(query.limit(1)).first() is not None for query in (others, unleft))


def _has_begun(connection: Connection, row: Row[Any]) -> bool:
    began = select(events.c.number).where(events.c.task_id == row.id, events.c.status == TaskStatus.WORKING)
    return connection.execute(began.limit(1)).first() is not None


def forget(connection: Connection, task_id: str, user: str | None) -> Ended:
    """Delete a task. What of its turn is still going is canceled: a turn cannot go on without a link.

    Deleting it again gives the first answer, without what was large in it.

    Raises:
        Refusal: it is unknown.
    """
    found = row_of(connection, task_id)
    if found is None:
        grave = connection.execute(select(tombstones).where(tombstones.c.id == task_id)).first()
        if grave is None or user not in {None, grave.user_id}:
            raise unknown_task()
        return Ended(TaskObject.model_validate(grave.answer))
    row = known(connection, task_id, user)
    before = _task(connection, row)
    connection.execute(update(tasks).where(tasks.c.continued_by == task_id).values(continued_by=row.continued_by))
    stopped: list[str] = []
    inside: tuple[tuple[str, str], ...] = ()
    for link in connection.execute(select(tasks).where(tasks.c.turn_id == row.turn_id)).all():
        if link.continued_by is None and not TaskStatus(link.status).is_terminal:
            why = JsonrpcError(message=f"The task {task_id} was deleted, and its turn cannot go on without it.")
            inside += _stop(connection, link, TaskStatus.CANCELED, why)
            stopped.append(link.id)
    connection.execute(update(calls).where(calls.c.answered_by == task_id).values(state=DROPPED, result=None))
    _erase(connection, [task_id])
    announce(connection, task_id)
    connection.execute(
        insert(tombstones).values(id=task_id, user_id=row.user_id, deleted_at=time.time(), answer=_remains(before))
    )
    return Ended(before, tuple(stopped), inside, row.session_id)


def _remains(task: TaskObject) -> dict[str, Any]:
    whole = task.model_dump(mode="json", exclude_none=True)
    if len(json.dumps(whole)) <= GRAVE:
        return whole
    return task.model_dump(mode="json", exclude_none=True, include=_SMALL)


def outdated(connection: Connection, before: float, limit: int) -> list[str]:
    """Turns (by id) all of whose tasks ended, or were continued, and the last of them before a time."""
    last = select(tasks.c.turn_id).where(tasks.c.finished_at < before, tasks.c.continued_by.is_(None)).limit(limit)
    return list(connection.execute(last).scalars())


def erase_turn(connection: Connection, turn_id: str, before: float) -> bool:
    """Delete what is left of a turn, unless it goes on again."""
    rows = connection.execute(select(tasks).where(tasks.c.turn_id == turn_id)).all()
    if not rows:
        return False
    lock_session(connection, rows[0].session_id)
    unfinished = or_(tasks.c.finished_at.is_(None), tasks.c.finished_at >= before)
    alive = select(tasks.c.seq).where(tasks.c.turn_id == turn_id, tasks.c.continued_by.is_(None), unfinished)
    if connection.execute(alive.limit(1)).first() is not None:
        return False
    _erase(connection, [row.id for row in rows])
    return True


def clear_graves(connection: Connection, before: float) -> None:
    """Forget what was deleted before a time."""
    connection.execute(delete(tombstones).where(tombstones.c.deleted_at < before))


def _erase(connection: Connection, task_ids: Sequence[str]) -> None:
    connection.execute(delete(calls).where(calls.c.asked_by.in_(task_ids)))
    connection.execute(delete(events).where(events.c.task_id.in_(task_ids)))
    connection.execute(delete(tasks).where(tasks.c.id.in_(task_ids)))


def _task(connection: Connection, row: Row[Any]) -> TaskObject:
    return task_objects(connection, [row])[0]
