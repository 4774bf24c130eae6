"""What the end of a round makes of the task, and how a record looks to a host."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from agentlin_bridge.delegation.ledger.records import ApprovalState, CallRecord, CallState, RoundRecord, TaskRecord
from agentlin_bridge.errors import SERVER_ERROR, BridgeError
from agentlin_bridge.json_schema import misfit
from agentlin_bridge.task import JsonrpcError, MessageItem, PendingCall, Task, TaskObject, TaskStatus


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a round's end makes of the task."""

    status: TaskStatus
    answer: str | None
    error: JsonrpcError | None
    usage: Mapping[str, Any]


def outcome_of(task: TaskRecord, remote: TaskObject) -> Outcome:
    """Judge a remote task that has ended its round."""
    usage = _sum([round_.usage for round_ in task.rounds] + [remote.usage or {}])
    status = remote.status or TaskStatus.FAILED
    answer = _answer(remote) if status is TaskStatus.COMPLETED else None
    error = remote.error
    if status is TaskStatus.INPUT_REQUIRED and not remote.open_calls:
        status = TaskStatus.FAILED
        error = _error("The remote asks for input but names no tool call that could give it.")
    elif status is TaskStatus.COMPLETED and task.output_schema is not None:
        if problem := _misfit(answer, task.output_schema):
            status = TaskStatus.FAILED
            error = _error(f"The answer does not satisfy the output_schema: {problem}.")
    elif status in (TaskStatus.FAILED, TaskStatus.EXPIRED) and error is None:
        error = _error(f"The remote task is {status.value} and gives no reason.")
    return Outcome(status, answer, error if status is not TaskStatus.COMPLETED else None, usage)


def error_of(error: BridgeError) -> JsonrpcError:
    """One of our errors as a task's error: cause and next step in one message."""
    return JsonrpcError(code=error.code, message=str(error))


def _error(message: str) -> JsonrpcError:
    return JsonrpcError(code=SERVER_ERROR, message=message)


def _answer(remote: TaskObject) -> str | None:
    texts = [item.text for item in remote.output if isinstance(item, MessageItem) and item.role == "assistant"]
    return next((text for text in reversed(texts) if text), None)


def _misfit(answer: str | None, schema: Mapping[str, Any]) -> str:
    try:
        value = json.loads(answer or "")
    except ValueError:
        return "it is not JSON"
    return misfit(schema, value)


def _sum(usages: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up what can be added, at any depth; of anything else the newest stands."""
    total: dict[str, Any] = {}
    for usage in usages:
        for key, value in usage.items():
            before = total.get(key)
            if isinstance(value, dict) and isinstance(before, dict):
                total[key] = _sum([before, value])
            elif isinstance(value, int | float) and isinstance(before, int | float):
                total[key] = before + value
            else:
                total[key] = value
    return total


def as_task(task: TaskRecord, *, handled: Collection[str] = (), abandoned: Collection[str] = ()) -> Task:
    """A record as a host sees it.

    Args:
        task: the record.
        handled: names of client tools this process executes; their calls are not pending.
        abandoned: ids of started calls that nobody works on any more; they are pending, outcome unknown.
    """
    pending = [] if task.status.is_terminal or task.is_deleted else _pending(task.current, handled, abandoned)
    status = task.status
    if status is TaskStatus.INPUT_REQUIRED and not pending:
        # Somebody on our side works on every call: the host has nothing to do but wait.
        status = TaskStatus.WORKING
    return Task.model_validate(
        {
            "id": task.id,
            "status": status,
            "answer": task.answer,
            "output": [item for round_ in task.rounds for item in _items(round_)],
            "pending": pending,
            "error": task.error,
            "usage": task.usage,
            "session_id": task.session_id,
            "created_at": task.created_at,
            "updated_at": task.updated_at,
            "metadata": task.metadata,
            "remote": task.remote_outcome,
        }
    )


def _items(round_: RoundRecord) -> list[dict[str, Any]]:
    given = [call.result.to_item(call.call_id).model_dump() for call in round_.calls if call.result is not None]
    return [*round_.output, *given]


def _is_the_hosts(call: CallRecord, handled: Collection[str]) -> bool:
    return call.name not in handled or call.approval is ApprovalState.REQUIRED


def _pending(round_: RoundRecord, handled: Collection[str], abandoned: Collection[str]) -> list[PendingCall]:
    return [
        PendingCall(
            call_id=call.call_id,
            name=call.name,
            arguments=call.arguments,
            outcome_unknown=call.state is CallState.STARTED,
            approval_required=call.approval is ApprovalState.REQUIRED,
        )
        for call in round_.calls
        if (call.state is CallState.REQUESTED and _is_the_hosts(call, handled))
        or (call.state is CallState.STARTED and call.call_id in abandoned)
    ]
