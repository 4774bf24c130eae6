"""Accepting a create request, inside one write transaction: a new turn, or results for a waiting one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import JSON, Connection, Row, bindparam, insert, select, update

from agentlin_bridge.errors import TASK_NOT_FOUND
from agentlin_bridge.server.protocol.refusals import Refusal, conflict, unknown_calls
from agentlin_bridge.server.protocol.request import CreateRequest, new_id
from agentlin_bridge.server.records.journal import end, is_busy, lock_session
from agentlin_bridge.server.records.schema import ANSWERED, DROPPED, HELD, OPEN, calls, events, tasks, tombstones
from agentlin_bridge.server.records.snapshot import row_of
from agentlin_bridge.task import JsonrpcError, TaskStatus, ToolResultItem

_NEVER = 2**31 - 1
_INSERT = insert(tasks)
_TELL = insert(events)
_GRAVE = select(tombstones.c.user_id).where(tombstones.c.id == bindparam("task_id"))
_WAITING = select(tasks).where(
    tasks.c.session_id == bindparam("session"),
    tasks.c.status == TaskStatus.INPUT_REQUIRED,
    tasks.c.continued_by.is_(None),
    tasks.c.seq < bindparam("before"),
)
_CALLS = (
    select(calls)
    .where(calls.c.session_id == bindparam("session"), calls.c.state.not_in((DROPPED, HELD)))
    .order_by(calls.c.seq)
)
_ANSWER = (
    update(calls)
    .where(calls.c.seq == bindparam("call_seq"))
    .values(state=ANSWERED, answered_by=bindparam("task_id"), result=bindparam("answer", type_=JSON))
)
_OPEN = select(calls.c.call).where(calls.c.turn_id == bindparam("turn"), calls.c.state == OPEN).order_by(calls.c.seq)
_TIP = (
    select(tasks.c.id, tasks.c.user_id)
    .where(tasks.c.turn_id == bindparam("turn"))
    .order_by(tasks.c.seq.desc())
    .limit(1)
)
_CONTINUE = update(tasks).where(tasks.c.id == bindparam("tip")).values(continued_by=bindparam("task_id"))


@dataclass(frozen=True)
class Accepted:
    """What became of a create request.

    Attributes:
        task_id: the task that answers it; not the requested one if its results were delivered before.
        to_run: whether that task is new and has to be run at once.
        is_queued: whether it is new and has to wait for others of its session.
        dropped: tasks that were canceled because of it.
        expires_at: when it expires; None if that is never, or no news.
    """

    task_id: str
    to_run: bool = False
    is_queued: bool = False
    dropped: tuple[str, ...] = ()
    expires_at: float | None = None

    @property
    def is_new(self) -> bool:
        """Whether that task has just come, and will run."""
        return self.to_run or self.is_queued


@dataclass(frozen=True)
class Intake:
    """What holds for every request one process accepts.

    Attributes:
        executor: the process.
        expires_in: seconds a task has, unless its request says otherwise; None is for ever.
    """

    executor: str
    expires_in: float | None = None

    def accept(self, connection: Connection, request: CreateRequest) -> Accepted:
        """Store what a request asks for, exactly once.

        Raises:
            Refusal: it contradicts what is stored. Nothing was changed.
        """
        previous = _previous(connection, request)
        session_id = previous.session_id if previous else request.session_id
        if session_id is not None:
            lock_session(connection, session_id)
        existing = row_of(connection, request.task_id)
        if existing is not None:
            if existing.fingerprint != request.fingerprint or request.owner not in {None, existing.user_id}:
                raise conflict(request.task_id)
            return Accepted(existing.id)
        grave = connection.execute(_GRAVE, {"task_id": request.task_id}).first()
        if grave is not None and request.owner not in {None, grave.user_id}:
            raise conflict(request.task_id)
        if grave is not None:
            raise Refusal(f"Conflict: the task {request.task_id!r} was deleted; use a new task_id", status=409)
        if session_id is not None and request.owner is not None:
            _keep_out(connection, session_id, request.owner)
        if request.results:
            if session_id is None:
                raise Refusal("Tool results need the session_id, or the previous_task_id, they belong to")
            return self._continue_turn(connection, request, session_id, previous)
        failed = _failed(connection, session_id) if request.is_nudge and session_id else None
        if failed is not None:
            return self._go_on(connection, request, failed)
        session_id = session_id or new_id("session_id")
        dropped = drop_open_calls(connection, session_id)
        accepted = self._insert(
            connection,
            request,
            session_id,
            user_id=request.user_id or new_id("user_id"),
            turn_id=request.task_id,
            previous_task_id=request.previous_task_id,
        )
        return replace(accepted, dropped=dropped)

    def _continue_turn(
        self, connection: Connection, request: CreateRequest, session_id: str, previous: Row[Any] | None
    ) -> Accepted:
        known = _calls_of(connection, session_id, previous)
        delivered = {result.call_id: result for result in request.results}
        unknown = [call_id for call_id in delivered if call_id not in known]
        if unknown:
            raise unknown_calls(unknown, [row.call_id for row in known.values() if row.state == OPEN])
        fresh = [known[call_id] for call_id in delivered if known[call_id].state == OPEN]
        if not fresh:
            return _consumer(connection, [known[call_id].answered_by for call_id in delivered])
        turn_id = fresh[0].turn_id
        for row in fresh:
            answer = _stored(delivered[row.call_id])
            connection.execute(_ANSWER, {"call_seq": row.seq, "task_id": request.task_id, "answer": answer})
        open_calls = connection.execute(_OPEN, {"turn": turn_id}).scalars()
        tip = connection.execute(_TIP, {"turn": turn_id}).one()
        connection.execute(_CONTINUE, {"tip": tip.id, "task_id": request.task_id})
        return self._insert(
            connection,
            request,
            session_id,
            user_id=request.user_id or tip.user_id,
            turn_id=turn_id,
            previous_task_id=tip.id,
            still_open=list(open_calls),
        )

    def _go_on(self, connection: Connection, request: CreateRequest, failed: Row[Any]) -> Accepted:
        connection.execute(_CONTINUE, {"tip": failed.id, "task_id": request.task_id})
        return self._insert(
            connection,
            request,
            failed.session_id,
            user_id=request.user_id or failed.user_id,
            turn_id=failed.turn_id,
            previous_task_id=failed.id,
        )

    def _insert(
        self,
        connection: Connection,
        request: CreateRequest,
        session_id: str,
        *,
        user_id: str,
        turn_id: str,
        previous_task_id: str | None,
        still_open: Sequence[Mapping[str, Any]] = (),
    ) -> Accepted:
        status = TaskStatus.WORKING  # its round is started as soon as this is committed
        if still_open:
            status = TaskStatus.INPUT_REQUIRED
        elif is_busy(connection, session_id) or _has_queue(connection, session_id):
            status = TaskStatus.QUEUED
        now = time.time()
        expires_in = request.expires_in if request.expires_in is not None else self.expires_in
        expires_at = None if expires_in is None else now + expires_in
        told: list[dict[str, Any]] = [{"status": TaskStatus.CREATED, "item": None}]
        told += [{"status": None, "item": item} for item in still_open]
        told.append({"status": status, "item": None})
        common = {"task_id": request.task_id, "at": now, "step": 0}
        row = {
            "id": request.task_id,
            "session_id": session_id,
            "user_id": user_id,
            "turn_id": turn_id,
            "previous_task_id": previous_task_id,
            "status": status,
            "created_at": int(now),
            "fingerprint": request.fingerprint,
            "request": dict(request.body),
            "tool_calls": 0,
            "told": len(told),
            "executor": self.executor if status is TaskStatus.WORKING else None,
            "expires_at": expires_at,
        }
        connection.execute(_INSERT, row)
        connection.execute(_TELL, [{**common, **event, "number": n} for n, event in enumerate(told, 1)])
        return Accepted(
            request.task_id,
            to_run=status is TaskStatus.WORKING,
            is_queued=status is TaskStatus.QUEUED,
            expires_at=expires_at,
        )


def _has_queue(connection: Connection, session_id: str) -> bool:
    """Whether somebody who came earlier is about to have the session."""
    queued = select(tasks.c.seq).where(tasks.c.session_id == session_id, tasks.c.status == TaskStatus.QUEUED)
    return connection.execute(queued.limit(1)).first() is not None


def _failed(connection: Connection, session_id: str) -> Row[Any] | None:
    """The newest task of a session, if it failed: its turn can go on."""
    newest = select(tasks).where(tasks.c.session_id == session_id).order_by(tasks.c.seq.desc()).limit(1)
    row = connection.execute(newest).first()
    return row if row is not None and row.status == TaskStatus.FAILED else None


def _keep_out(connection: Connection, session_id: str, user: str) -> None:
    strangers = select(tasks.c.seq).where(tasks.c.session_id == session_id, tasks.c.user_id != user).limit(1)
    if connection.execute(strangers).first() is not None:
        raise Refusal("This session_id cannot be used; leave it out to get a new one", status=409)


def _previous(connection: Connection, request: CreateRequest) -> Row[Any] | None:
    if request.previous_task_id is None:
        return None
    row = row_of(connection, request.previous_task_id)
    if row is None or request.owner not in {None, row.user_id}:
        raise Refusal(f"previous_task_id: no task {request.previous_task_id!r}", status=404, code=TASK_NOT_FOUND)
    if request.session_id not in {None, row.session_id}:
        raise Refusal(f"previous_task_id: task {row.id!r} belongs to another session")
    return row


def _calls_of(connection: Connection, session_id: str, previous: Row[Any] | None) -> dict[str, Row[Any]]:
    """The session's calls by id. Where an id was used twice, the newest counts: older ones are not open."""
    rows = connection.execute(_CALLS, {"session": session_id})
    return {row.call_id: row for row in rows if previous is None or row.turn_id == previous.turn_id}


def _consumer(connection: Connection, task_ids: Sequence[str]) -> Accepted:
    newest = connection.execute(
        select(tasks.c.id).where(tasks.c.id.in_(task_ids)).order_by(tasks.c.seq.desc()).limit(1)
    ).scalar_one()
    return Accepted(newest)


def _stored(result: ToolResultItem) -> dict[str, Any]:
    return result.model_dump(mode="json", exclude_none=True)


def drop_open_calls(connection: Connection, session_id: str, *, before: int | None = None) -> tuple[str, ...]:
    """A new user message drops what the session still waited for; the waiting task is canceled.

    Args:
        before: only calls of tasks created before this `seq`.

    Returns:
        The tasks that were canceled.
    """
    why = JsonrpcError(message="A newer message in the session replaced the tool calls this task waited for.")
    rows = connection.execute(_WAITING, {"session": session_id, "before": before or _NEVER}).all()
    for row in rows:
        end(connection, row, TaskStatus.CANCELED, error=why)
    return tuple(row.id for row in rows)
