"""From rows to records. Functions on an open connection."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, or_, select

from agentlin_bridge.delegation.ledger.records import (
    ApprovalState,
    CallRecord,
    CallState,
    RoundKind,
    RoundRecord,
    RoundState,
    TaskRecord,
)
from agentlin_bridge.delegation.ledger.schema import calls, notes, rounds, tasks
from agentlin_bridge.remote.backend import ToolDefinition
from agentlin_bridge.task import JsonrpcError, TaskStatus, ToolResult

_TASK = select(tasks).where(tasks.c.id == bindparam("task_id"))
_LOCKED = _TASK.with_for_update()
_OF_REQUEST = (
    select(tasks)
    .where(tasks.c.principal == bindparam("principal"), tasks.c.request_id == bindparam("request_id"))
    .with_for_update()
)
_ROUNDS = select(rounds).where(rounds.c.task_id.in_(bindparam("task_ids", expanding=True))).order_by(rounds.c.seq)
_CALLS = (
    select(calls)
    .where(calls.c.task_id.in_(bindparam("task_ids", expanding=True)))
    .order_by(calls.c.seq, calls.c.position)
)


def load(connection: Connection, task_id: str, *, locked: bool = False) -> TaskRecord | None:
    """A task with its rounds and calls, whoever's it is.

    Args:
        connection: inside a transaction.
        task_id: our id of it.
        locked: whether nobody else may change it until the transaction ends. SQLite's writers are alone anyway.
    """
    row = connection.execute(_LOCKED if locked else _TASK, {"task_id": task_id}).first()
    return None if row is None else _records(connection, [row])[0]


def id_of_remote(connection: Connection, remote_id: str) -> str | None:
    """The task that a remote task is a round of."""
    found: str | None = connection.execute(select(rounds.c.task_id).where(rounds.c.remote_id == remote_id)).scalar()
    return found


def load_by_request(connection: Connection, principal: str, request_id: str) -> TaskRecord | None:
    """The task a request_id made, if it made one; nobody else may change it until the transaction ends."""
    row = connection.execute(_OF_REQUEST, {"principal": principal, "request_id": request_id}).first()
    return None if row is None else _records(connection, [row])[0]


def page(
    connection: Connection,
    principal: str,
    *,
    statuses: Collection[TaskStatus] | None,
    after: tuple[float, str] | None,
    size: int,
) -> list[TaskRecord]:
    """Tasks of a principal, newest first, strictly after a (created_at, id) cursor."""
    query = (
        select(tasks)
        .where(tasks.c.principal == principal, tasks.c.deleted_at.is_(None))
        .order_by(tasks.c.created_at.desc(), tasks.c.id.desc())
        .limit(size)
    )
    if statuses is not None:
        query = query.where(tasks.c.status.in_(list(statuses)))
    if after is not None:
        created_at, task_id = after
        older = or_(tasks.c.created_at < created_at, and_(tasks.c.created_at == created_at, tasks.c.id < task_id))
        query = query.where(older)
    return _records(connection, connection.execute(query).all())


def versions(connection: Connection, task_ids: Collection[str]) -> Mapping[str, tuple[int, TaskStatus]]:
    """The version and status of several tasks: what a watcher needs to notice another process's change."""
    query = select(tasks.c.id, tasks.c.version, tasks.c.status).where(tasks.c.id.in_(task_ids))
    return {row.id: (row.version, TaskStatus(row.status)) for row in connection.execute(query)}


def notes_of(connection: Connection, backend: str) -> dict[str, str]:
    """What a backend noted about its remotes."""
    query = select(notes.c.name, notes.c.value).where(notes.c.backend == backend)
    return {row.name: row.value for row in connection.execute(query)}


def _records(connection: Connection, rows: Sequence[Row[Any]]) -> list[TaskRecord]:
    if not rows:
        return []
    which = {"task_ids": [row.id for row in rows]}
    # In this order: what a locked task row tells is the newest, and so is what is read after it.
    calls_of: defaultdict[tuple[str, int], list[CallRecord]] = defaultdict(list)
    for row in connection.execute(_CALLS, which):
        calls_of[row.task_id, row.seq].append(_call(row))
    rounds_of: defaultdict[str, list[RoundRecord]] = defaultdict(list)
    for row in connection.execute(_ROUNDS, which):
        rounds_of[row.task_id].append(_round(row, calls_of[row.task_id, row.seq]))
    return [_task(row, rounds_of[row.id]) for row in rows]


def _call(row: Row[Any]) -> CallRecord:
    return CallRecord(
        call_id=row.call_id,
        name=row.name,
        arguments=row.arguments,
        state=CallState(row.state),
        approval=None if row.approval is None else ApprovalState(row.approval),
        edited=row.edited,
        owner=row.owner,
        attempt=row.attempt,
        result=None if row.result is None else ToolResult.model_validate(row.result),
    )


def _round(row: Row[Any], its_calls: list[CallRecord]) -> RoundRecord:
    return RoundRecord(
        seq=row.seq,
        kind=RoundKind(row.kind),
        remote_id=row.remote_id,
        session_id=row.session_id,
        owner=row.owner,
        fence=row.fence,
        attempt=row.attempt,
        state=RoundState(row.state),
        status=None if row.status is None else TaskStatus(row.status),
        output=row.output or [],
        usage=row.usage or {},
        claimed_at=row.claimed_at,
        calls=its_calls,
    )


def _task(row: Row[Any], its_rounds: list[RoundRecord]) -> TaskRecord:
    offered = row.client_tools
    return TaskRecord(
        id=row.id,
        principal=row.principal,
        request_id=row.request_id,
        fingerprint=row.fingerprint,
        backend=row.backend,
        place=row.place,
        previous_remote_id=row.previous_remote_id,
        content=row.content,
        client_tools=None if offered is None else [ToolDefinition(**tool) for tool in offered],
        options=row.options,
        output_schema=row.output_schema,
        metadata=row.metadata,
        session_id=row.session_id,
        user_id=row.user_id,
        stream=row.stream,
        status=TaskStatus(row.status),
        answer=row.answer,
        error=None if row.error is None else JsonrpcError.model_validate(row.error),
        usage=row.usage,
        remote_outcome=row.remote_outcome,
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
        deadline_at=row.deadline_at,
        is_deleted=row.deleted_at is not None,
        rounds=its_rounds,
    )


def as_json(error: JsonrpcError | None) -> dict[str, Any] | None:
    """An error as the ledger stores it."""
    return None if error is None else error.model_dump(mode="json", exclude_none=True)
