"""Pages of tasks, newest first. A cursor is a task id; pages exclude it, so that paging ends.

A page is bounded in bytes as well as in tasks: a task may be large, in what it was asked and in what it put out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection, Select, Text, cast, select

from agentlin_bridge.server.protocol.refusals import Refusal
from agentlin_bridge.server.protocol.request import ListQuery
from agentlin_bridge.server.records.schema import tasks

_FETCHED = {"yield_per": 5}
"""Rows that are read at a time: each may hold a whole request."""
_TASK = select(
    *(column for column in tasks.c if column is not tasks.c.request), cast(tasks.c.request, Text).label("asked")
)


def page_of(connection: Connection, query: ListQuery) -> tuple[Sequence[Any], bool]:
    """The rows of one page, and whether more tasks follow in the direction of paging.

    Raises:
        Refusal: the cursor is no task, or none its owner may see.
    """
    is_backward = query.ending_before is not None
    order = tasks.c.seq.asc() if is_backward else tasks.c.seq.desc()
    wanted = _filtered(connection, query).order_by(order).offset(query.offset).limit(query.limit + 1)
    page: list[Any] = []
    more = False
    size = 0
    with connection.execute(wanted, execution_options=_FETCHED) as rows:
        for row in rows:
            size += row.size + len(row.asked)
            more = len(page) == query.limit or (size > query.max_bytes and bool(page))
            if more:
                break
            page.append(SimpleNamespace(**row._mapping, request=json.loads(row.asked)))
    return (page[::-1] if is_backward else page), more


def _filtered(connection: Connection, query: ListQuery) -> Select[Any]:
    wanted = _TASK
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
    if query.ending_before is not None:
        wanted = wanted.where(tasks.c.seq > _position(connection, query, query.ending_before, "ending_before"))
    return wanted


def _position(connection: Connection, query: ListQuery, task_id: str, parameter: str) -> int:
    row = connection.execute(select(tasks.c.seq, tasks.c.user_id).where(tasks.c.id == task_id)).first()
    if row is None or query.owner not in {None, row.user_id}:
        raise Refusal(f"{parameter}: no task {task_id!r} to page from")
    seq: int = row.seq
    return seq
