"""The conversation an agent is given, put together from the stored tasks of its session."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from pydantic import BaseModel, TypeAdapter
from sqlalchemy import Connection, Row, select

from agentlin_bridge.server.agent import Conversation, OfferedTool, Round, Turn
from agentlin_bridge.server.request import read_content, read_tools
from agentlin_bridge.server.schema import ANSWERED, calls, tasks
from agentlin_bridge.task import OutputItem, TaskStatus, ToolResultItem

_items = TypeAdapter(list[OutputItem])


def conversation_of(connection: Connection, task: Row[Any]) -> Conversation:
    """What the agent sees when it takes this task's turn."""
    rows = connection.execute(
        select(tasks).where(tasks.c.session_id == task.session_id, tasks.c.seq <= task.seq).order_by(tasks.c.seq)
    ).all()
    turns = {key: list(group) for key, group in groupby(sorted(rows, key=_by_turn), key=_turn_of)}
    links = turns.pop(task.turn_id)
    earlier = [chain for chain in turns.values() if _is_complete(chain)]
    return Conversation(
        user_content=read_content(links[0].request),
        client_tools=_offered(links),
        rounds=_rounds(connection, links),
        earlier=tuple(
            Turn(
                user_content=read_content(chain[0].request),
                rounds=_rounds(connection, chain),
                output=tuple(_items.validate_python(chain[-1].output)),
            )
            for chain in sorted(earlier, key=lambda chain: int(chain[0].seq))
        ),
        request=task.request,
    )


def _turn_of(row: Row[Any]) -> str:
    return str(row.turn_id)


def _by_turn(row: Row[Any]) -> tuple[str, int]:
    return row.turn_id, row.seq


def _is_complete(chain: Sequence[Row[Any]]) -> bool:
    return bool(chain[-1].status == TaskStatus.COMPLETED and chain[0].id == chain[0].turn_id)


def _offered(links: Sequence[Row[Any]]) -> tuple[OfferedTool, ...]:
    """A continuation that names no tools is offered those of the request before it."""
    for row in reversed(links):
        tools = read_tools(row.request)
        if tools is not None:
            return tuple(OfferedTool(tool.name, tool.description or "", tool.parameters) for tool in tools)
    return ()


def _rounds(connection: Connection, links: Sequence[Row[Any]]) -> tuple[Round, ...]:
    """The steps before the last link. Links that only took in partial results asked nothing of their own."""
    answered = connection.execute(
        select(calls.c.asked_by, calls.c.answered_by, calls.c.result)
        .where(calls.c.turn_id == links[0].turn_id, calls.c.state == ANSWERED)
        .order_by(calls.c.seq)
    ).all()
    by_id = {row.id: row for row in links}
    rounds = []
    for row in links[:-1]:
        own = [call for call in answered if call.asked_by == row.id]
        if own:
            answering = dict.fromkeys(call.answered_by for call in own if call.answered_by in by_id)
            notes: list[BaseModel] = [item for task_id in answering for item in read_content(by_id[task_id].request)]
            rounds.append(
                Round(
                    items=tuple(_items.validate_python(row.output)),
                    results=tuple(ToolResultItem.model_validate(call.result) for call in own),
                    note=tuple(notes),
                )
            )
    return tuple(rounds)
