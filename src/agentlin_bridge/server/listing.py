"""Pages of tasks, newest first. A cursor is a task id; pages exclude it, so that paging ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, select

from agentlin_bridge.server.refusals import Refusal
from agentlin_bridge.server.request import ListQuery
from agentlin_bridge.server.schema import tasks


def page_of(connection: Connection, query: ListQuery) -> tuple[Sequence[Row[Any]], bool]:
    """One page, and whether more tasks follow in the direction of paging.

    Raises:
        Refusal: the cursor is no task.
    """
    wanted = select(tasks)
    if query.session_id is not None:
        wanted = wanted.where(tasks.c.session_id == query.session_id)
    if query.user_id is not None:
        wanted = wanted.where(tasks.c.user_id == query.user_id)
    if query.statuses:
        wanted = wanted.where(tasks.c.status.in_(query.statuses))
    if query.starting_after is not None:
        wanted = wanted.where(tasks.c.seq < _position(connection, query.starting_after, "starting_after"))
    order = tasks.c.seq.desc()
    if query.ending_before is not None:
        wanted = wanted.where(tasks.c.seq > _position(connection, query.ending_before, "ending_before"))
        order = tasks.c.seq.asc()
    rows = list(connection.execute(wanted.order_by(order).limit(query.limit + 1)))
    more = len(rows) > query.limit
    page = rows[: query.limit]
    return (page[::-1] if query.ending_before is not None else page), more


def _position(connection: Connection, task_id: str, parameter: str) -> int:
    found: int | None = connection.execute(select(tasks.c.seq).where(tasks.c.id == task_id)).scalar()
    if found is None:
        raise Refusal(f"{parameter}: no task {task_id!r} to page from")
    return found
