"""The conversation an agent is given, put together from the stored tasks of its session."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Text, bindparam, cast, select

from agentlin_bridge.server.agent import Conversation, Item, OfferedTool, Round, Turn
from agentlin_bridge.server.protocol.dialogue import said_in, told_in
from agentlin_bridge.server.protocol.request import read_tools
from agentlin_bridge.server.records.items import loaded
from agentlin_bridge.server.records.schema import ANSWERED, calls, tasks
from agentlin_bridge.server.records.snapshot import items_of
from agentlin_bridge.server.records.turns import Chain, known_turns
from agentlin_bridge.task import TaskStatus, ToolCallItem, ToolResultItem

TOGETHER = 250
"""Turns whose tasks are read at a time: databases take only so many parameters."""

_SESSION = (
    select(tasks.c.seq, tasks.c.id, tasks.c.turn_id, tasks.c.status, tasks.c.steps)
    .where(tasks.c.session_id == bindparam("session"), tasks.c.seq <= bindparam("last"))
    .order_by(tasks.c.seq)
)
_TURN = (
    select(tasks.c.request)
    .where(tasks.c.turn_id == bindparam("turn"), tasks.c.seq <= bindparam("last"))
    .order_by(tasks.c.seq)
)
_REQUESTS = select(tasks.c.id, tasks.c.size, cast(tasks.c.request, Text).label("request")).where(
    tasks.c.id.in_(bindparam("task_ids", expanding=True))
)
_ANSWERED = select(calls.c.asked_by, calls.c.call_id, calls.c.answered_by, calls.c.result).where(
    calls.c.asked_by.in_(bindparam("task_ids", expanding=True)), calls.c.state == ANSWERED
)


@dataclass(frozen=True)
class _Said:
    """What was said in some tasks, by their ids.

    Attributes:
        sizes: bytes of a task's request and output.
        answered: by the task that asked, and by call id.
    """

    requests: Mapping[str, Mapping[str, Any]]
    sizes: Mapping[str, int]
    items: Mapping[str, Sequence[tuple[int, dict[str, Any]]]]
    answered: Mapping[tuple[str, str], Any]


def conversation_of(connection: Connection, task: Row[Any]) -> Conversation:
    """What the agent sees when it takes this task's next step."""
    rows = connection.execute(_SESSION, {"session": task.session_id, "last": task.seq}).all()
    turns: dict[str, list[Any]] = {}
    for row in rows:
        turns.setdefault(row.turn_id, []).append(row)
    links = turns.pop(task.turn_id)
    earlier = known_turns(connection, [chain for chain in turns.values() if _is_complete(chain)], _turns)
    said = _said(connection, [links])
    requests = [said.requests[row.id] for row in links]
    told = told_in(requests[0])
    return Conversation(
        user_content=told.user_content,
        client_tools=_offered(requests),
        rounds=(*told.rounds, *_rounds(links, said)),
        earlier=(*earlier, *told.earlier),
        request=_overlaid(requests),
    )


def request_of_turn(connection: Connection, task: Row[Any]) -> Mapping[str, Any]:
    """What the requests of a turn up to this task's say together."""
    return _overlaid(connection.execute(_TURN, {"turn": task.turn_id, "last": task.seq}).scalars())


def _overlaid(requests: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """A client that continues a turn need not say again what it said at first."""
    said: dict[str, Any] = {}
    for request in requests:
        said |= {name: value for name, value in request.items() if value is not None}
    return said


def _is_complete(chain: Chain) -> bool:
    return bool(chain[-1].status == TaskStatus.COMPLETED and chain[0].id == chain[0].turn_id)


def _turns(connection: Connection, chains: Sequence[Chain]) -> Iterable[tuple[tuple[Turn, ...], int]]:
    """What each chain tells: the turns its first request tells of, and its own; and how large that is."""
    for first in range(0, len(chains), TOGETHER):
        batch = chains[first : first + TOGETHER]
        said = _said(connection, batch)
        for chain in batch:
            told = told_in(said.requests[chain[0].id])
            tip = chain[-1]
            output = loaded([item for step, item in said.items[tip.id] if step == tip.steps])
            turn = Turn(told.user_content, (*told.rounds, *_rounds(chain, said)), tuple(output))
            yield (*told.earlier, turn), sum(said.sizes[row.id] for row in chain)


def _said(connection: Connection, chains: Sequence[Chain]) -> _Said:
    task_ids = [row.id for chain in chains for row in chain]
    rows = connection.execute(_REQUESTS, {"task_ids": task_ids}).all()
    items = items_of(connection, task_ids)
    asking = [task_id for task_id, own in items.items() if any(item["type"] == "tool_call" for _, item in own)]
    answers = connection.execute(_ANSWERED, {"task_ids": asking}) if asking else ()
    return _Said(
        requests={row.id: json.loads(row.request) for row in rows},
        sizes={row.id: row.size + len(row.request) for row in rows},
        items=items,
        answered={(row.asked_by, row.call_id): row for row in answers},
    )


def _offered(requests: Sequence[Mapping[str, Any]]) -> tuple[OfferedTool, ...]:
    """A continuation that names no tools is offered those of the request before it."""
    for request in reversed(requests):
        tools = read_tools(request)
        if tools is not None:
            return tuple(OfferedTool(tool.name, tool.description or "", tool.parameters) for tool in tools)
    return ()


def _rounds(links: Chain, said: _Said) -> tuple[Round, ...]:
    """The steps that asked for something. What a link only repeats of the one before it has step 0."""
    among = {row.id for row in links}
    rounds = []
    for row in links:
        by_step: dict[int, list[dict[str, Any]]] = {}
        for step, item in said.items[row.id]:
            by_step.setdefault(step, []).append(item)
        for step in range(1, row.steps + 1):
            found = by_step.get(step, [])
            if not any(item["type"] == "tool_call" for item in found):
                continue
            own = loaded(found)
            answers = _answers(row.id, own, said)
            results = {item.call_id: item for item in own if isinstance(item, ToolResultItem)}
            results |= {str(answer.call_id): ToolResultItem.model_validate(answer.result) for answer in answers}
            if results:
                sources = dict.fromkeys(answer.answered_by for answer in answers if answer.answered_by in among)
                note = tuple(part for source in sources for part in said_in(said.requests[source]))
                rounds.append(_round(own, results, note))
    return tuple(rounds)


def _answers(task_id: str, items: Sequence[Item], said: _Said) -> list[Any]:
    keys = [(task_id, item.call_id) for item in items if isinstance(item, ToolCallItem)]
    return [said.answered[key] for key in keys if key in said.answered]


def _round(items: Sequence[Item], results: Mapping[str, ToolResultItem], note: tuple[Any, ...]) -> Round:
    calling = tuple(item for item in items if not isinstance(item, ToolResultItem))
    asked = [item.call_id for item in calling if isinstance(item, ToolCallItem)]
    return Round(calling, tuple(results[call_id] for call_id in asked if call_id in results), note)
