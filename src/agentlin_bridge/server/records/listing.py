"""Pages of tasks, newest first. A cursor is a task id; pages exclude it, so that paging ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, select

from agentlin_bridge.server.protocol.refusals import Refusal
from agentlin_bridge.server.protocol.request import ListQuery
from agentlin_bridge.server.records.schema import tasks


def page_of(connection: Connection, query: ListQuery) -> tuple[Sequence[Row[Any]], bool]:
    """One page, and whether more tasks follow in the direction of paging.

    Raises:
        Refusal: the cursor is no task, or none its owner may see.
    """
    wanted = select(tasks)
    if query.owner is not None:
        wanted = wanted.where(tasks.c.user_id == query.owner)
    if query.session_id is not None:
        wanted = wanted.where(tasks.c.session_id == query.session_id)
    if query.user_id is not None:
        wanted = wanted.where(tasks.c.user_id == query.user_id)
    if query.statuses:
        wanted = wanted.where(tasks.c.status.in_(query.statuses))
    if query.starting_after is not None:
        wanted = wanted.where(tasks.c.seq < _position(connection, query, query.starting_after, "starting_after"))
    order = tasks.c.seq.desc()
    if query.ending_before is not None:
        wanted = wanted.where(tasks.c.seq > _position(connection, query, query.ending_before, "ending_before"))
        order = tasks.c.seq.asc()
    rows = list(connection.execute(wanted.order_by(order).offset(query.offset).limit(query.limit + 1)))
    more = len(rows) > query.limit
    page = rows[: query.limit]
    return (page[::-1] if query.ending_before is not None else page), more


def _position(connection: Connection, query: ListQuery, task_id: str, parameter: str) -> int:
    row = connection.execute(select(tasks.c.seq, tasks.c.user_id).where(tasks.c.id == task_id)).first()
    if row is None or query.owner not in {None, row.user_id}:
        raise Refusal(f"{parameter}: no task {task_id!r} to page from")
    seq: int = row.seq
    return seq
