"""Who is alive, for whom, and what happens when nobody can tell."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import psycopg
import pytest

from agentlin_bridge import LedgerError, TaskStatus
from agentlin_bridge.delegation.ledger import reading, session_presence, writing
from agentlin_bridge.delegation.ledger.ledger import Ledger
from agentlin_bridge.delegation.ledger.presence import FilePresence
from agentlin_bridge.delegation.ledger.schema import CHANNEL

from .sample import NEW, create

pytestmark = pytest.mark.anyio


async def test_presence(where: str) -> None:
    async with Ledger(where) as one:
        async with Ledger(where) as two:
            assert one.instance != two.instance
            for ledger in (one, two):
                assert await ledger.is_alive(one.instance)
                assert await ledger.is_alive(two.instance)
                assert not await ledger.is_alive("bridge_that_never_was")
        assert not await one.is_alive(two.instance)
        assert await one.is_alive(one.instance)


def names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


async def test_a_lock_file_goes_with_its_instance(tmp_path: Path) -> None:
    presence = FilePresence("bridge_1", tmp_path)
    await presence.join()
    assert names_in(tmp_path) == ["bridge_1.lock"]
    await presence.leave()
    assert names_in(tmp_path) == []


async def test_a_lock_file_of_a_process_that_died(tmp_path: Path) -> None:
    (tmp_path / "bridge_dead.lock").touch()
    assert not await FilePresence("bridge_1", tmp_path).is_alive("bridge_dead")
    assert names_in(tmp_path) == []


class Kept:
    """A ledger whose presence is kept, and what it was told."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.heard: list[tuple[str, TaskStatus]] = []
        self.told = anyio.Event()
        self.missed = anyio.Event()

    def hear(self, task_id: str, status: TaskStatus) -> None:
        self.heard.append((task_id, status))
        self.told.set()


@asynccontextmanager
async def kept(where: str) -> AsyncIterator[Kept]:
    with anyio.fail_after(30):
        async with Ledger(where) as ledger, anyio.create_task_group() as group:
            found = Kept(ledger)
            group.start_soon(ledger.keep_present, found.hear, found.missed.set)
            yield found
            group.cancel_scope.cancel()


def end_sessions(where: str, which: str) -> int:
    with psycopg.connect(where, autocommit=True) as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name LIKE %s AND datname = current_database()",
            (which,),
        )
        return len(ended.fetchall())


async def test_changes_by_others_are_told_on_postgresql(on_postgres: str) -> None:
    async with kept(on_postgres) as one, Ledger(on_postgres) as two:
        await create(one.ledger)
        await one.ledger.write(writing.annotate, NEW.id, {"by": "itself"})
        with psycopg.connect(on_postgres, autocommit=True) as connection:
            for garbage in ("", "x", "bridge_x task_1 nonsense"):
                connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, garbage))
        await two.write(writing.finish, NEW.id, TaskStatus.CANCELED, None)
        await one.told.wait()
    assert one.heard == [("task_1", TaskStatus.CANCELED)]


async def test_a_lost_session_is_made_again_under_the_same_name(on_postgres: str) -> None:
    async with kept(on_postgres) as one, Ledger(on_postgres) as two:
        await create(one.ledger)
        name = one.ledger.instance
        assert end_sessions(on_postgres, "bridge%") >= 2
        await one.missed.wait()
        assert one.ledger.instance == name
        assert await two.is_alive(name)
        await two.write(writing.annotate, NEW.id, {"still": "heard"})
        await one.told.wait()
        assert await one.ledger.read(reading.load, NEW.id) is not None


async def test_nothing_is_written_while_the_session_is_lost(on_postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others may take this instance for dead: what it writes down could be at odds with what they do."""
    monkeypatch.setattr(session_presence, "PATIENCE", 0.3)
    reachable = _cut_off(monkeypatch)
    async with kept(on_postgres) as one:
        await create(one.ledger)
        end_sessions(on_postgres, one.ledger.instance)
        await reachable.tried.wait()
        with pytest.raises(LedgerError, match=r"connection to the ledger .* is lost.*try again when it does"):
            await one.ledger.write(writing.annotate, NEW.id, {"a": 1})
        reachable.open = True
        await one.missed.wait()
        assert (await one.ledger.write(writing.annotate, NEW.id, {"b": 2})).metadata == {"b": 2}


async def test_what_comes_while_the_session_is_lost_waits_for_it(
    on_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reachable = _cut_off(monkeypatch)
    async with kept(on_postgres) as one:
        await create(one.ledger)
        end_sessions(on_postgres, one.ledger.instance)
        await reachable.tried.wait()
        async with anyio.create_task_group() as group:
            group.start_soon(one.ledger.write, writing.annotate, NEW.id, {"a": 1})
            await anyio.wait_all_tasks_blocked()
            assert not one.missed.is_set()
            reachable.open = True
        task = await one.ledger.read(reading.load, NEW.id)
    assert task is not None
    assert task.metadata == {"a": 1}


class _Door:
    def __init__(self) -> None:
        self.open = False
        self.tried = anyio.Event()


def _cut_off(monkeypatch: pytest.MonkeyPatch) -> _Door:
    """From the second session on, there is none until the door is open."""
    door = _Door()
    door.open = True
    joined = session_presence.SessionPresence._joined

    async def through_the_door(self: session_presence.SessionPresence) -> object:
        if not door.open:
            door.tried.set()
            raise psycopg.OperationalError("cut off")
        session = await joined(self)
        door.open = False
        return session

    monkeypatch.setattr(session_presence.SessionPresence, "_joined", through_the_door)
    monkeypatch.setattr(session_presence, "PAUSE", 0.05)
    return door


async def test_a_session_that_may_not_listen_is_closed_again(on_postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_presence, "CHANNEL", "no channel")
    with pytest.raises(LedgerError, match=r"cannot be joined: syntax error"):
        async with Ledger(on_postgres):
            pass
    monkeypatch.undo()
    async with Ledger(on_postgres) as ledger:
        await create(ledger)


async def test_a_ledger_that_cannot_be_joined_is_closed_again(
    on_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise psycopg.OperationalError("no connections left\nfor you")

    monkeypatch.setattr(psycopg.AsyncConnection, "connect", refuse)
    ledger = Ledger(on_postgres)
    with pytest.raises(LedgerError, match=r"cannot be joined: no connections left\. Next: "):
        async with ledger:
            pass
    monkeypatch.undo()
    assert end_sessions(on_postgres, "bridge%") == 0
    async with ledger:
        await create(ledger)
