"""What a round writes as it goes. Inside a write transaction; repeating any of it changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from agentlin_bridge.errors import SERVER_ERROR
from agentlin_bridge.server.agent import Conversation, Step
from agentlin_bridge.server.execution.intake import drop_open_calls
from agentlin_bridge.server.records.history import conversation_of
from agentlin_bridge.server.records.items import dumped, item_id, named
from agentlin_bridge.server.records.journal import Change, become, end, locked_row
from agentlin_bridge.server.records.schema import HELD, OPEN, calls, tasks
from agentlin_bridge.server.records.snapshot import items_of, row_of, task_object
from agentlin_bridge.task import JsonrpcError, TaskObject, TaskStatus, ToolCallItem, ToolResultItem

_TAKEN = select(func.sum(tasks.c.steps)).where(tasks.c.turn_id == bindparam("turn"))
_ASK = insert(calls)
_USED = select(calls.c.call_id).where(
    calls.c.session_id == bindparam("session"), calls.c.call_id.in_(bindparam("call_ids", expanding=True))
)
_TOLD_AT_FIRST = 2
"""Events of a task of which nothing is known but that it was created and began."""


@dataclass(frozen=True)
class Place:
    """Where a round is: the model call `step` of a task, counted from 1, in one attempt at it."""

    task_id: str
    attempt: int
    step: int


@dataclass(frozen=True)
class Entered:
    """A step that may be taken.

    Attributes:
        taken_steps: model calls of the turn before this one.
    """

    conversation: Conversation
    taken_steps: int


@dataclass(frozen=True)
class Outcome:
    """Where a round stands.

    Attributes:
        over: it is not to go on now: it has ended, or waits for somebody.
        gone: it was ended from outside.
        own: tool calls the server has to run before it goes on.
        task: the task, if it has just become like that.
    """

    over: bool = False
    gone: bool = False
    own: tuple[ToolCallItem, ...] = ()
    task: TaskObject | None = None


OVER = Outcome(over=True)
GONE = Outcome(over=True, gone=True)
AGAIN = Outcome()


def enter_step(connection: Connection, at: Place, executor: str) -> Entered | Outcome:
    """Begin a model call, unless it was made already or is not to be made any more."""
    row = locked_row(connection, at.task_id)
    if row is None or not _is_live(row, at):
        return _left_off(connection, row, at)
    if row.steps >= at.step:
        return _left(connection, row, at.step)
    if row.status == TaskStatus.CREATED:
        if row.turn_id == row.id:
            drop_open_calls(connection, row.session_id, before=row.seq)
        become(connection, row, TaskStatus.WORKING, executor=executor)
    else:
        _take(connection, row, executor)
    return _entered(connection, row)


def look_step(connection: Connection, at: Place, executor: str) -> Entered | None:
    """What `enter_step` would return, where that would change nothing; else None. It only reads."""
    row = row_of(connection, at.task_id)
    if row is None or row.attempt != at.attempt or row.steps >= at.step:
        return None
    if row.status != TaskStatus.WORKING or row.executor != executor:
        return None
    return _entered(connection, row)


def _entered(connection: Connection, row: Row[Any]) -> Entered:
    steps = connection.execute(_TAKEN, {"turn": row.turn_id}).scalar_one() if row.turn_id != row.id else row.steps
    return Entered(conversation_of(connection, row), steps)


def record_step(
    connection: Connection,
    at: Place,
    made: Step,
    *,
    is_own: Callable[[Mapping[str, Any]], bool],
    limit: int,
    seen: Set[str] = frozenset(),
) -> Outcome:
    """Record what a model call produced, and whether the round is over with it.

    Args:
        is_own: whether the server answers a tool call.
        limit: bytes that the output of a task may have.
        seen: the call ids in the turn so far, wherever they come from.
    """
    row = locked_row(connection, at.task_id)
    if row is None or not _is_live(row, at, or_paused=True):
        return _left_off(connection, row, at)
    if row.steps >= at.step:
        return _left(connection, row, at.step)
    earlier = _items(connection, row) if row.told > _TOLD_AT_FIRST else []
    taken = seen | {item["call_id"] for _, item in earlier if item["type"] == "tool_call"}
    # A late result must not be taken for that of another call: in a session an id is used once.
    if chosen := [item.call_id for item in made.items if isinstance(item, ToolCallItem) and item.call_id]:
        taken |= set(connection.execute(_USED, {"session": row.session_id, "call_ids": chosen}).scalars())
    items = dumped(named(at.task_id, at.step, made.items, taken))
    size = row.size + _size(items)
    if size > limit:
        return _too_much(connection, row, limit)
    asked = [item for item in items if item["type"] == "tool_call"]
    clients = [item for item in asked if not is_own(item)]
    own = [item for item in asked if is_own(item)]
    change = Change(row)
    change.set(steps=at.step, size=size, tool_calls=row.tool_calls + len(asked), usage=_added(row.usage, made.usage))
    change.put_out(items, at.step)
    if row.status == TaskStatus.PAUSED:
        change.set(executor=None)
    elif not own:
        change.become(TaskStatus.INPUT_REQUIRED if clients else TaskStatus.COMPLETED)
    change.write(connection)
    if clients:
        state = OPEN if change.status == TaskStatus.INPUT_REQUIRED else HELD
        common = {"session_id": row.session_id, "turn_id": row.turn_id, "asked_by": at.task_id, "state": state}
        connection.execute(_ASK, [{**common, "call_id": item["call_id"], "call": item} for item in clients])
    if change.status == TaskStatus.WORKING:
        return Outcome(own=_as_calls(own))
    return Outcome(over=True, task=task_object(change.after, [item for _, item in earlier] + items))


def record_result(connection: Connection, at: Place, result: ToolResultItem, limit: int) -> None:
    """Record what a server-side tool returned."""
    row = locked_row(connection, at.task_id)
    if row is None or not _is_live(row, at, or_paused=True):
        return
    if result.call_id not in {call.call_id for call in _left(connection, row, at.step).own}:
        return
    items = dumped([result.model_copy(update={"id": item_id("res", f"{at.task_id}:{result.call_id}", at.step)})])
    size = row.size + _size(items)
    if size > limit:
        _too_much(connection, row, limit)
        return
    change = Change(row)
    change.set(size=size)
    change.put_out(items, at.step)
    change.write(connection)


def settle(connection: Connection, at: Place, executor: str) -> Outcome:
    """Where a round stands after a recorded step; its end is recorded if it has come."""
    row = locked_row(connection, at.task_id)
    if row is None or not _is_live(row, at):
        return _left_off(connection, row, at)
    _take(connection, row, executor)
    left = _left(connection, row, at.step)
    if row.steps > at.step or left.own:
        return left
    held = calls.c.asked_by == row.id, calls.c.state == HELD
    if connection.execute(update(calls).where(*held).values(state=OPEN)).rowcount:
        become(connection, row, TaskStatus.INPUT_REQUIRED)
        return OVER
    if not _asked(connection, row, at.step):
        become(connection, row, TaskStatus.COMPLETED)
        return OVER
    return AGAIN


def fail(connection: Connection, at: Place, message: str, code: int = SERVER_ERROR) -> Outcome:
    """A round ends without an answer."""
    row = locked_row(connection, at.task_id)
    if row is None or not _is_live(row, at, or_paused=True):
        return GONE
    end(connection, row, TaskStatus.FAILED, error=JsonrpcError(code=code, message=message))
    return OVER


def _is_live(row: Row[Any], at: Place, *, or_paused: bool = False) -> bool:
    live = {TaskStatus.CREATED, TaskStatus.WORKING, *([TaskStatus.PAUSED] if or_paused else [])}
    return bool(row.attempt == at.attempt and row.status in live)


def _take(connection: Connection, row: Row[Any], executor: str) -> None:
    if row.executor != executor:
        connection.execute(update(tasks).where(tasks.c.id == row.id).values(executor=executor))


def _left_off(connection: Connection, row: Row[Any] | None, at: Place) -> Outcome:
    """A round notices that it is not to go on. From then on a paused task is in nobody's hands."""
    if row is None or row.attempt != at.attempt or row.status != TaskStatus.PAUSED:
        return GONE
    connection.execute(update(tasks).where(tasks.c.id == row.id).values(executor=None))
    return OVER


def _left(connection: Connection, row: Row[Any], step: int) -> Outcome:
    """What of a recorded step is left to do for the server."""
    asked = _asked(connection, row, step)
    if not asked:
        return AGAIN
    done = set(connection.execute(select(calls.c.call_id).where(calls.c.asked_by == row.id)).scalars())
    done |= {item["call_id"] for at, item in _items(connection, row) if at == step and item["type"] == "tool_result"}
    return Outcome(own=_as_calls([item for item in asked if item["call_id"] not in done]))


def _asked(connection: Connection, row: Row[Any], step: int) -> list[dict[str, Any]]:
    return [item for at, item in _items(connection, row) if at == step and item["type"] == "tool_call"]


def _items(connection: Connection, row: Row[Any]) -> list[tuple[int, dict[str, Any]]]:
    return items_of(connection, [row.id])[row.id]


def _as_calls(items: Sequence[Mapping[str, Any]]) -> tuple[ToolCallItem, ...]:
    return tuple(ToolCallItem.model_validate(item) for item in items)


def _size(items: Sequence[Mapping[str, Any]]) -> int:
    return sum(len(json.dumps(item)) for item in items)


def _too_much(connection: Connection, row: Row[Any], limit: int) -> Outcome:
    why = f"The output is larger than the {limit} bytes a task may have. Ask for less, or in several tasks."
    end(connection, row, TaskStatus.FAILED, error=JsonrpcError(code=SERVER_ERROR, message=why))
    return OVER


def _added(before: Mapping[str, int] | None, more: Mapping[str, int]) -> dict[str, int] | None:
    known = dict(before or {})
    for name, count in more.items():
        known[name] = known.get(name, 0) + count
    return known or None
