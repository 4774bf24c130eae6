"""What goes out: task objects and envelopes, readable for the published SDK in all its versions."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from sqlalchemy import Row

from agentlin_bridge.server.agent import Item
from agentlin_bridge.task import MessageItem, TaskObject, TaskStatus, ToolCallItem


def numbered(task_id: str, items: Sequence[Item]) -> list[Item]:
    """An agent's output items with the ids and repetitions clients expect.

    Ids come from the task and the position, so that a turn run again after a crash asks the same calls.
    """
    done: list[Item] = []
    seen: set[str] = set()
    for index, item in enumerate(items):
        number = sha256(f"{task_id}:{index}".encode()).hexdigest()[:32]
        changes: dict[str, Any] = {"status": getattr(item, "status", None) or "completed"}
        if isinstance(item, ToolCallItem) and (not item.call_id or item.call_id in seen):
            changes["call_id"] = f"call_{number}"
        elif isinstance(item, MessageItem):
            changes |= {"id": item.id or f"msg_{number}", "content": item.text}
        copy = type(item).model_validate({**item.model_dump(), **changes})
        if isinstance(copy, ToolCallItem):
            seen.add(copy.call_id)
        done.append(copy)
    return done


def task_object(row: Row[Any]) -> TaskObject:
    """A row of the table of tasks as clients see it."""
    task = TaskObject(
        id=row.id,
        session_id=row.session_id,
        user_id=row.user_id,
        status=TaskStatus(row.status),
        created_at=row.created_at,
        output=row.output,
        error=row.error,
        previous_task_id=row.previous_task_id,
        metadata=_metadata(row),
    )
    asked = [item for item in task.output if isinstance(item, ToolCallItem)]
    task.usage = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0, "tool_calls": row.tool_calls}
    if task.status is TaskStatus.INPUT_REQUIRED:
        task.input_required = asked[0]
        task.input_required_call_ids = [call.call_id for call in asked]
    return task


def _metadata(row: Row[Any]) -> dict[str, Any] | None:
    given = row.request.get("metadata")
    metadata = dict(given) if isinstance(given, dict) else {}
    if row.continued_by is not None:
        metadata["continued_by"] = row.continued_by
    return metadata or None


def task_json(task: TaskObject) -> dict[str, Any]:
    """A task object in JSON, without empty fields."""
    fields = task.model_dump(mode="json", exclude_none=True)
    fields["created_at"] = int(task.created_at)
    return fields


def envelope(request_id: str, result: Any) -> dict[str, Any]:
    """An answer."""
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def error_envelope(request_id: str, code: int, message: str) -> dict[str, Any]:
    """An answer that says no. Its error stands at the top level too, where some readers look."""
    error = {"code": code, "message": message}
    return {"jsonrpc": "2.0", "id": request_id, "error": error, **error}


def control_envelope(request_id: str, task: TaskObject) -> dict[str, Any]:
    """A cancel's answer, for readers of an envelope and for readers of a bare task object alike.

    The top-level id is the task's: a bare reader needs it, and envelope readers do not look at it.
    """
    fields = task_json(task)
    return {**fields, "jsonrpc": "2.0", "request_id": request_id, "result": fields}
