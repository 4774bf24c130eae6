"""Accepting a create request, inside one write transaction: a new turn, or results for a waiting one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from agentlin_bridge.errors import TASK_NOT_FOUND
from agentlin_bridge.server.refusals import Refusal, conflict, unknown_calls
from agentlin_bridge.server.request import CreateRequest, new_id
from agentlin_bridge.server.schema import ANSWERED, DROPPED, OPEN, calls, tasks
from agentlin_bridge.task import JsonrpcError, TaskStatus, ToolResultItem

RUNNABLE = (TaskStatus.CREATED, TaskStatus.QUEUED, TaskStatus.WORKING)
"""A task with one of these has a run, or gets one when the server starts."""


@dataclass(frozen=True)
class Accepted:
    """What became of a create request.

    Attributes:
        task_id: the task that answers it; not the requested one if its results were delivered before.
        to_run: whether that task is new and has to be run.
    """

    task_id: str
    session_id: str
    to_run: bool


def accept(connection: Connection, request: CreateRequest) -> Accepted:
    """Store what a request asks for, exactly once.

    Raises:
        Refusal: it contradicts what is stored. Nothing was changed.
    """
    existing = connection.execute(select(tasks).where(tasks.c.id == request.task_id)).first()
    if existing is not None:
        if existing.fingerprint != request.fingerprint:
            raise conflict(request.task_id)
        return Accepted(existing.id, existing.session_id, to_run=False)
    previous = _previous(connection, request)
    session_id = previous.session_id if previous else request.session_id
    if request.results:
        if session_id is None:
            raise Refusal("Tool results need the session_id, or the previous_task_id, they belong to")
        return _continue_turn(connection, request, session_id, previous)
    session_id = session_id or new_id("session_id")
    drop_open_calls(connection, session_id)
    status = _insert(
        connection,
        request,
        session_id,
        user_id=request.user_id or new_id("user_id"),
        turn_id=request.task_id,
        previous_task_id=request.previous_task_id,
    )
    return Accepted(request.task_id, session_id, to_run=status in RUNNABLE)


def _previous(connection: Connection, request: CreateRequest) -> Row[Any] | None:
    if request.previous_task_id is None:
        return None
    row = connection.execute(select(tasks).where(tasks.c.id == request.previous_task_id)).first()
    if row is None:
        raise Refusal(f"previous_task_id: no task {request.previous_task_id!r}", status=404, code=TASK_NOT_FOUND)
    if request.session_id not in {None, row.session_id}:
        raise Refusal(f"previous_task_id: task {row.id!r} belongs to another session")
    return row


def _continue_turn(
    connection: Connection, request: CreateRequest, session_id: str, previous: Row[Any] | None
) -> Accepted:
    known = _calls_of(connection, session_id, previous)
    delivered = {result.call_id: result for result in request.results}
    unknown = [call_id for call_id in delivered if call_id not in known]
    if unknown:
        raise unknown_calls(unknown, [row.call_id for row in known.values() if row.state == OPEN])
    fresh = [known[call_id] for call_id in delivered if known[call_id].state == OPEN]
    if not fresh:
        return _consumer(connection, session_id, [known[call_id].answered_by for call_id in delivered])
    turn_id = fresh[0].turn_id
    for row in fresh:
        connection.execute(
            update(calls)
            .where(calls.c.seq == row.seq)
            .values(state=ANSWERED, answered_by=request.task_id, result=_stored(delivered[row.call_id]))
        )
    open_calls = connection.execute(
        select(calls.c.call).where(calls.c.turn_id == turn_id, calls.c.state == OPEN).order_by(calls.c.seq)
    ).scalars()
    tip = connection.execute(
        select(tasks.c.id, tasks.c.user_id).where(tasks.c.turn_id == turn_id).order_by(tasks.c.seq.desc()).limit(1)
    ).one()
    connection.execute(update(tasks).where(tasks.c.id == tip.id).values(continued_by=request.task_id))
    status = _insert(
        connection,
        request,
        session_id,
        user_id=request.user_id or tip.user_id,
        turn_id=turn_id,
        previous_task_id=tip.id,
        still_open=list(open_calls),
    )
    return Accepted(request.task_id, session_id, to_run=status in RUNNABLE)


def _calls_of(connection: Connection, session_id: str, previous: Row[Any] | None) -> dict[str, Row[Any]]:
    """The session's calls by id. Where an id was used twice, the newest counts: older ones are not open."""
    query = select(calls).where(calls.c.session_id == session_id, calls.c.state != DROPPED)
    if previous is not None:
        query = query.where(calls.c.turn_id == previous.turn_id)
    return {row.call_id: row for row in connection.execute(query.order_by(calls.c.seq))}


def _consumer(connection: Connection, session_id: str, task_ids: Sequence[str]) -> Accepted:
    newest = connection.execute(
        select(tasks.c.id).where(tasks.c.id.in_(task_ids)).order_by(tasks.c.seq.desc()).limit(1)
    ).scalar_one()
    return Accepted(newest, session_id, to_run=False)


def _stored(result: ToolResultItem) -> dict[str, Any]:
    return result.model_dump(mode="json", exclude_none=True)


def _insert(
    connection: Connection,
    request: CreateRequest,
    session_id: str,
    *,
    user_id: str,
    turn_id: str,
    previous_task_id: str | None,
    still_open: Sequence[Mapping[str, Any]] = (),
) -> TaskStatus:
    status = TaskStatus.CREATED
    if still_open:
        status = TaskStatus.INPUT_REQUIRED
    elif _busy(connection, session_id):
        status = TaskStatus.QUEUED
    connection.execute(
        insert(tasks).values(
            id=request.task_id,
            session_id=session_id,
            user_id=user_id,
            turn_id=turn_id,
            previous_task_id=previous_task_id,
            status=status,
            created_at=int(time.time()),
            fingerprint=request.fingerprint,
            request=dict(request.body),
            output=list(still_open),
            tool_calls=0,
        )
    )
    return status


def _busy(connection: Connection, session_id: str) -> bool:
    running = select(func.count()).where(tasks.c.session_id == session_id, tasks.c.status.in_(RUNNABLE))
    return bool(connection.execute(running).scalar_one())


def drop_open_calls(connection: Connection, session_id: str, *, before: int | None = None) -> None:
    """A new user message drops what the session still waited for; the waiting task is canceled.

    Args:
        before: only calls of tasks created before this `seq`.
    """
    waiting = select(tasks.c.id, tasks.c.turn_id).where(
        tasks.c.session_id == session_id,
        tasks.c.status == TaskStatus.INPUT_REQUIRED,
        tasks.c.continued_by.is_(None),
    )
    if before is not None:
        waiting = waiting.where(tasks.c.seq < before)
    why = JsonrpcError(message="A newer message in the session replaced the tool calls this task waited for.")
    for row in connection.execute(waiting).all():
        close_calls(connection, row.turn_id)
        connection.execute(
            update(tasks)
            .where(tasks.c.id == row.id)
            .values(status=TaskStatus.CANCELED, error=why.model_dump(exclude_none=True))
        )


def close_calls(connection: Connection, turn_id: str) -> None:
    """A turn that has ended waits for nothing any more."""
    connection.execute(update(calls).where(calls.c.turn_id == turn_id, calls.c.state == OPEN).values(state=DROPPED))
