"""Pages of large tasks: few tasks on each, and no more of them read than are shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pytest

from agentlin_bridge.server import process
from agentlin_bridge.server.agent import Conversation, Item, answer
from agentlin_bridge.server.records import snapshot, store
from agentlin_bridge.server.web.app import create_app
from agentlin_bridge.task import text_of
from tests.support.postgres import Postgres

from .agents import Scripted
from .conftest import Server, Serving

PAGE = 8000

Bounded = Callable[..., Server]


def echo(conversation: Conversation) -> Sequence[Item]:
    """Says as many letters as it is told."""
    return [answer("x" * int(text_of(conversation.user_content)))]


@pytest.fixture(params=["sqlite", "postgresql"])
def bounded(request: pytest.FixtureRequest, serving: Serving, monkeypatch: pytest.MonkeyPatch) -> Bounded:
    """Starts a server whose pages hold so many bytes."""

    def start(size: int) -> Server:
        monkeypatch.setattr(process, "create_app", partial(create_app, max_page=size))
        if request.param == "sqlite":
            return serving(Scripted(echo))
        postgres: Postgres = request.getfixturevalue("postgres")
        return serving(Scripted(echo), database=postgres.new_database())

    return start


def listed(server: Server, **params: str) -> tuple[list[str], bool]:
    page = server.get("tasks", params=params).json()
    return [task["id"] for task in page["result"]], page["has_more"]


def test_a_page_is_bounded_in_bytes(bounded: Bounded) -> None:
    server = bounded(PAGE)
    made = [server.make("1000", task_id=f"task_{number}")["id"] for number in range(9)][::-1]
    ids, more = listed(server)
    assert 1 < len(ids) < 8
    assert len(server.get("tasks").content) < 2 * PAGE
    seen = list(ids)
    while more:
        ids, more = listed(server, starting_after=seen[-1])
        seen += ids
    assert seen == made
    back, more = listed(server, ending_before=made[-1])
    assert back == made[-1 - len(back) : -1]
    assert 1 < len(back) < 8
    assert more


def test_one_task_is_on_a_page_however_large(bounded: Bounded) -> None:
    server = bounded(1)
    made = [server.make("1", task_id=f"task_{number}")["id"] for number in range(2)]
    assert listed(server) == (made[1:], True)
    assert listed(server, starting_after=made[1]) == (made[:1], False)


def test_what_was_asked_counts_as_well(bounded: Bounded) -> None:
    server = bounded(PAGE)
    for number in range(4):
        server.make("1", task_id=f"task_{number}", metadata={"note": "\u0000" + "y" * 3000})
    assert listed(server) == (["task_3", "task_2"], True)
    assert [task["metadata"]["note"][:2] for task in server.get("tasks").json()["result"]] == ["\u0000y"] * 2


def test_no_more_is_read_than_is_shown(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "create_app", partial(create_app, max_page=PAGE))
    server = serving(Scripted(echo))
    for number in range(9):
        server.make("1000", task_id=f"task_{number}")
    read: list[int] = []
    real = snapshot.task_objects

    def counted(connection: object, rows: Sequence[object]) -> object:
        read.append(len(rows))
        return real(connection, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "task_objects", counted)
    ids, _ = listed(server)
    assert read == [len(ids)]
