"""What an agent is told of its session: the same at every step, and earlier turns are read but once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import Connection

from agentlin_bridge.server.agent import Conversation, Item, answer, tool_call
from agentlin_bridge.server.protocol.dialogue import told_in
from agentlin_bridge.server.records import history, turns
from agentlin_bridge.server.records.history import conversation_of
from agentlin_bridge.server.records.snapshot import row_of
from agentlin_bridge.server.records.store import Store
from agentlin_bridge.task import text_of

from .agents import Scripted, result
from .conftest import Server, Serving

TURNS = 5


def asking(conversation: Conversation) -> Sequence[Item]:
    """Asks two questions in a row, then answers with the replies."""
    if len(conversation.rounds) < 2:
        return [tool_call("ask", "{}")]
    return [answer(" ".join(one.results[0].text for one in conversation.rounds))]


def turn(server: Server, number: int, session: str = "s") -> str:
    """Take a whole turn; returns the id of its last task."""
    task = server.make(f"q{number}", session_id=session)
    for reply in ("a", "b"):
        (call_id,) = task["input_required_call_ids"]
        task = server.make(["and"], session_id=session, tool_results=[result(call_id, f"{reply}{number}")])
    assert task["output"][-1]["content"] == f"a{number} b{number}"
    last: str = task["id"]
    return last


def seen_by(agent: Scripted) -> list[Any]:
    """Everything the agent was told of earlier turns at its last step."""
    return [
        (
            text_of(turn.user_content),
            [([item.type for item in one.items], one.results[0].text, text_of(one.note)) for one in turn.rounds],  # type: ignore[attr-defined]
            [item.text for item in turn.output],  # type: ignore[attr-defined]
        )
        for turn in agent.seen[-1].earlier
    ]


def told(number: int) -> Any:
    rounds = [(["tool_call"], f"{reply}{number}", "and") for reply in ("a", "b")]
    return (f"q{number}", rounds, [f"a{number} b{number}"])


class Reading:
    """How many requests were read for their meaning."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._real = told_in
        monkeypatch.setattr(history, "told_in", self._told_in)

    def _told_in(self, body: Any) -> Any:
        self.count += 1
        return self._real(body)

    def since(self) -> int:
        """The count since the last time."""
        count, self.count = self.count, 0
        return count


@pytest.fixture
def agent() -> Scripted:
    return Scripted(asking)


@pytest.fixture
def server(serving: Serving, agent: Scripted, tmp_path: Path) -> Server:
    return serving(agent, database=tmp_path / "db")


def test_an_earlier_turn_is_read_once(server: Server, agent: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = Reading(monkeypatch)
    for number in range(TURNS):
        turn(server, number)
        assert seen_by(agent) == [told(earlier) for earlier in range(number)]
        # Its own request at each of its three steps, and the turn before it.
        assert reading.since() == 3 + (number > 0)


@pytest.mark.parametrize(("kept", "together"), [(0, 250), (1000, 2), (10**9, 2)])
def test_it_is_told_the_same_however_much_is_kept(
    server: Server, agent: Scripted, monkeypatch: pytest.MonkeyPatch, kept: int, together: int
) -> None:
    monkeypatch.setattr(turns, "MOST", kept)
    monkeypatch.setattr(history, "TOGETHER", together)
    for number in range(TURNS):
        turn(server, number)
        turn(server, 10 + number, session="another")
        assert seen_by(agent) == [told(10 + earlier) for earlier in range(number)]


@pytest.mark.parametrize(("link", "left"), [(0, []), (1, [("q1", [], ["a1 b1"])]), (2, [])])
def test_what_is_deleted_is_told_no_more(server: Server, agent: Scripted, link: int, left: list[Any]) -> None:
    ends = [turn(server, number) for number in range(3)]
    chain = [ends[1]]
    while (previous := server.task(chain[0]).get("previous_task_id")) is not None:
        chain.insert(0, previous)
    assert len(chain) == 3
    assert server.delete(f"tasks/{chain[link]}").status_code == 200
    turn(server, 3)
    assert seen_by(agent) == [told(0), *left, told(2)]


def test_what_is_not_committed_is_not_kept(
    server: Server, agent: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        last = turn(server, number)
    reading = Reading(monkeypatch)

    def look(connection: Connection) -> int:
        row = row_of(connection, last)
        assert row is not None
        assert len(conversation_of(connection, row).earlier) == 2
        return reading.since()

    async def run() -> list[int]:
        store = await Store.open(tmp_path / "db")
        try:
            written = [await store.write(look) for _ in range(2)]
            return written + [await store.read(look) for _ in range(2)] + [await store.write(look)]
        finally:
            await store.close()

    assert anyio.run(run) == [3, 3, 3, 1, 1]
