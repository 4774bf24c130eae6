"""Stored tasks as clients see them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select

from agentlin_bridge.server.records.schema import events, tasks
from agentlin_bridge.task import TaskObject, TaskStatus, ToolCallItem, ToolResultItem

RUNNABLE = (TaskStatus.CREATED, TaskStatus.QUEUED, TaskStatus.WORKING)
"""A task with one of these has a run, or gets one."""

RESTING = frozenset(TaskStatus) - frozenset(RUNNABLE)
"""A task with one of these goes on only when somebody does something, if at all."""

# Statements are put together once: that costs several times what running them does.
_TASK = select(tasks).where(tasks.c.id == bindparam("task_id"))
_ITEMS = (
    select(events.c.task_id, events.c.step, events.c.item)
    .where(events.c.task_id.in_(bindparam("task_ids", expanding=True)), events.c.item.is_not(None))
    .order_by(events.c.task_id, events.c.number)
)


def row_of(connection: Connection, task_id: str) -> Row[Any] | None:
    """The row of one task."""
    return connection.execute(_TASK, {"task_id": task_id}).first()


def items_of(connection: Connection, task_ids: Iterable[str]) -> dict[str, list[tuple[int, dict[str, Any]]]]:
    """The output items of tasks in order, each with the step it belongs to."""
    found: dict[str, list[tuple[int, dict[str, Any]]]] = {task_id: [] for task_id in task_ids}
    for row in connection.execute(_ITEMS, {"task_ids": list(found)}):
        found[row.task_id].append((row.step, row.item))
    return found


def task_objects(connection: Connection, rows: Sequence[Row[Any]]) -> list[TaskObject]:
    """Tasks as they are now."""
    items = items_of(connection, [row.id for row in rows])
    return [task_object(row, [item for _, item in items[row.id]]) for row in rows]


def task_object(row: Any, output: Sequence[dict[str, Any]]) -> TaskObject:
    """One task, given its output."""
    task = TaskObject(
        id=row.id,
        session_id=row.session_id,
        user_id=row.user_id,
        status=TaskStatus(row.status),
        created_at=row.created_at,
        output=list(output),
        error=row.error,
        previous_task_id=row.previous_task_id,
        metadata=_metadata(row),
    )
    tokens = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    task.usage = {**tokens, **(row.usage or {}), "tool_calls": row.tool_calls}
    if task.status is TaskStatus.INPUT_REQUIRED:
        answered = {item.call_id for item in task.output if isinstance(item, ToolResultItem)}
        calls = [item for item in task.output if isinstance(item, ToolCallItem) and item.call_id not in answered]
        task.input_required = calls[0] if calls else None
        task.input_required_call_ids = [call.call_id for call in calls]
    return task


def _metadata(row: Any) -> dict[str, Any] | None:
    given = row.request.get("metadata")
    metadata = dict(given) if isinstance(given, dict) else {}
    if row.continued_by is not None:
        metadata["continued_by"] = row.continued_by
    return metadata or None
