"""The conversation an agent is given, put together from the stored tasks of its session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select

from agentlin_bridge.server.agent import Conversation, OfferedTool, Round, Turn
from agentlin_bridge.server.protocol.dialogue import said_in, told_in
from agentlin_bridge.server.protocol.request import read_tools
from agentlin_bridge.server.records.items import loaded
from agentlin_bridge.server.records.schema import ANSWERED, calls, tasks
from agentlin_bridge.server.records.snapshot import items_of
from agentlin_bridge.task import TaskStatus, ToolCallItem, ToolResultItem

_SESSION = (
    select(tasks)
    .where(tasks.c.session_id == bindparam("session"), tasks.c.seq <= bindparam("last"))
    .order_by(tasks.c.seq)
)
_TURN = (
    select(tasks.c.request)
    .where(tasks.c.turn_id == bindparam("turn"), tasks.c.seq <= bindparam("last"))
    .order_by(tasks.c.seq)
)
_ANSWERED = select(calls).where(calls.c.turn_id == bindparam("turn"), calls.c.state == ANSWERED)


def conversation_of(connection: Connection, task: Row[Any]) -> Conversation:
    """What the agent sees when it takes this task's next step."""
    rows = connection.execute(_SESSION, {"session": task.session_id, "last": task.seq}).all()
    turns: dict[str, list[Row[Any]]] = {}
    for row in rows:
        turns.setdefault(row.turn_id, []).append(row)
    links = turns.pop(task.turn_id)
    earlier = [chain for chain in turns.values() if _is_complete(chain)]
    items = items_of(connection, [row.id for chain in (links, *earlier) for row in chain])
    before: list[Turn] = []
    for chain in earlier:
        told = told_in(chain[0].request)
        output = loaded([item for step, item in items[chain[-1].id] if step == chain[-1].steps])
        rounds = (*told.rounds, *_rounds(connection, chain, items))
        before += (*told.earlier, Turn(user_content=told.user_content, rounds=rounds, output=tuple(output)))
    told = told_in(links[0].request)
    return Conversation(
        user_content=told.user_content,
        client_tools=_offered(links),
        rounds=(*told.rounds, *_rounds(connection, links, items)),
        earlier=(*before, *told.earlier),
        request=_overlaid(links),
    )


def request_of_turn(connection: Connection, task: Row[Any]) -> Mapping[str, Any]:
    """What the requests of a turn up to this task's say together."""
    return _overlaid(connection.execute(_TURN, {"turn": task.turn_id, "last": task.seq}).all())


def _overlaid(links: Sequence[Row[Any]]) -> Mapping[str, Any]:
    """A client that continues a turn need not say again what it said at first."""
    said: dict[str, Any] = {}
    for row in links:
        said |= {name: value for name, value in row.request.items() if value is not None}
    return said


def _is_complete(chain: Sequence[Row[Any]]) -> bool:
    return bool(chain[-1].status == TaskStatus.COMPLETED and chain[0].id == chain[0].turn_id)


def _offered(links: Sequence[Row[Any]]) -> tuple[OfferedTool, ...]:
    """A continuation that names no tools is offered those of the request before it."""
    for row in reversed(links):
        tools = read_tools(row.request)
        if tools is not None:
            return tuple(OfferedTool(tool.name, tool.description or "", tool.parameters) for tool in tools)
    return ()


def _rounds(
    connection: Connection, links: Sequence[Row[Any]], items: Mapping[str, Sequence[tuple[int, dict[str, Any]]]]
) -> tuple[Round, ...]:
    """The steps that asked for something. What a link only repeats of the one before it has step 0."""
    asked = any(item["type"] == "tool_call" for row in links for _, item in items[row.id])
    rows = connection.execute(_ANSWERED, {"turn": links[0].turn_id}) if asked else ()
    answered = {(row.asked_by, row.call_id): row for row in rows}
    requests = {row.id: row.request for row in links}
    rounds = []
    for row in links:
        for step in range(1, row.steps + 1):
            own = loaded([item for at, item in items[row.id] if at == step])
            results = {item.call_id: item for item in own if isinstance(item, ToolResultItem)}
            asked_ids = [(row.id, item.call_id) for item in own if isinstance(item, ToolCallItem)]
            answers = [answered[key] for key in asked_ids if key in answered]
            results |= {str(answer.call_id): ToolResultItem.model_validate(answer.result) for answer in answers}
            if results:
                calling = [item for item in own if not isinstance(item, ToolResultItem)]
                sources = dict.fromkeys(answer.answered_by for answer in answers if answer.answered_by in requests)
                rounds.append(
                    Round(
                        items=tuple(calling),
                        results=tuple(
                            results[item.call_id]
                            for item in calling
                            if isinstance(item, ToolCallItem) and item.call_id in results
                        ),
                        note=tuple(part for source in sources for part in said_in(requests[source])),
                    )
                )
    return tuple(rounds)
