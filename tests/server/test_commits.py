"""Transactions that wait for the writer of a SQLite database share its next commit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import anyio
import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import OperationalError

from agentlin_bridge.server.records.store import Store

pytestmark = pytest.mark.anyio


class Counted:
    """A store of which the commits are counted, with a table of numbers."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.commits = 0
        event.listen(store.engine, "commit", self._count)

    def _count(self, _connection: Connection) -> None:
        self.commits += 1

    async def numbers(self) -> list[int]:
        def read(connection: Connection) -> list[int]:
            return list(connection.execute(text("SELECT number FROM numbers ORDER BY rowid")).scalars())

        return await self.store.read(read)


@pytest.fixture
async def counted(tmp_path: Path) -> AsyncIterator[Counted]:
    store = await Store.open(tmp_path / "server.sqlite")
    await store.write(lambda connection: connection.execute(text("CREATE TABLE numbers (number INTEGER)")) and None)
    try:
        yield Counted(store)
    finally:
        await store.close()


def put(connection: Connection, number: int) -> int:
    connection.execute(text("INSERT INTO numbers VALUES (:number)"), {"number": number})
    return number


def held(gate: threading.Event) -> Callable[[Connection], None]:
    """Work that keeps the writer until the gate opens."""

    def work(_connection: Connection) -> None:
        assert gate.wait(20)

    return work


async def test_what_waits_shares_a_commit(counted: Counted) -> None:
    gate, done = threading.Event(), list[int]()

    async def write(number: int) -> None:
        done.append(await counted.store.write(partial(put, number=number)))

    async with anyio.create_task_group() as group:
        group.start_soon(counted.store.write, held(gate))
        await anyio.wait_all_tasks_blocked()
        for number in range(150):
            group.start_soon(write, number)
        await anyio.wait_all_tasks_blocked()
        assert counted.commits == 0
        gate.set()
    assert sorted(done) == await counted.numbers() == list(range(150)), "in the order they came"
    assert counted.commits == 4, "the one that was held, and three for what had come: 64, 64, 22"


async def test_work_that_fails_undoes_itself_and_nothing_else(counted: Counted) -> None:
    gate = threading.Event()

    def half(connection: Connection) -> None:
        put(connection, -1)
        raise ValueError("half done")

    async def fail() -> None:
        with pytest.raises(ValueError, match="half done"):
            await counted.store.write(half)

    async with anyio.create_task_group() as group:
        group.start_soon(counted.store.write, held(gate))
        await anyio.wait_all_tasks_blocked()
        group.start_soon(counted.store.write, partial(put, number=1))
        group.start_soon(fail)
        group.start_soon(counted.store.write, partial(put, number=2))
        await anyio.wait_all_tasks_blocked()
        gate.set()
    await fail()
    assert await counted.numbers() == [1, 2]


async def test_nothing_counts_as_done_that_could_not_be_committed(counted: Counted) -> None:
    gate = threading.Event()
    refused: list[str] = []

    def lose(connection: Connection) -> None:
        connection.exec_driver_sql("ROLLBACK")  # as SQLite does by itself when the disk is full

    async def write(number: int) -> None:
        try:
            await counted.store.write(partial(put, number=number))
        except OperationalError:
            refused.append(str(number))

    async def lost() -> None:
        with pytest.raises(OperationalError):
            await counted.store.write(lose)

    async with anyio.create_task_group() as group:
        group.start_soon(counted.store.write, held(gate))
        await anyio.wait_all_tasks_blocked()
        group.start_soon(write, 1)
        group.start_soon(lost)
        await anyio.wait_all_tasks_blocked()
        gate.set()
    assert refused == ["1"]
    assert await counted.numbers() == []
    await write(2)
    assert await counted.numbers() == [2]


async def test_work_that_was_cancelled_while_it_waited_is_not_done(counted: Counted) -> None:
    gate, scope = threading.Event(), anyio.CancelScope()

    async def write(number: int) -> None:
        with scope:
            await counted.store.write(partial(put, number=number))

    async with anyio.create_task_group() as group:
        group.start_soon(counted.store.write, held(gate))
        await anyio.wait_all_tasks_blocked()
        group.start_soon(write, 1)
        group.start_soon(counted.store.write, partial(put, number=2))
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        gate.set()
    assert await counted.numbers() == [2]


async def test_work_that_has_begun_is_waited_for(counted: Counted) -> None:
    gate, begun, scope = threading.Event(), anyio.Event(), anyio.CancelScope()
    results: list[int] = []
    loop = asyncio.get_running_loop()

    def slow(connection: Connection) -> int:
        loop.call_soon_threadsafe(begun.set)
        assert gate.wait(20)
        return put(connection, 1)

    async def write() -> None:
        with scope:
            results.append(await counted.store.write(slow))

    async with anyio.create_task_group() as group:
        first = threading.Event()
        group.start_soon(counted.store.write, held(first))
        await anyio.wait_all_tasks_blocked()
        group.start_soon(counted.store.write, partial(put, number=0))
        group.start_soon(write)
        await anyio.wait_all_tasks_blocked()
        first.set()
        await begun.wait()
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        gate.set()
    assert results == [1]
    assert await counted.numbers() == [0, 1]


async def test_who_is_cancelled_by_force_holds_nobody_up(counted: Counted) -> None:
    """As a web server does with requests that outlast its grace: asyncio's own cancellation heeds no shield."""
    gate = threading.Event()
    forced = asyncio.create_task(counted.store.write(held(gate)))
    async with anyio.create_task_group() as group:
        await anyio.wait_all_tasks_blocked()
        group.start_soon(counted.store.write, partial(put, number=1))
        await anyio.wait_all_tasks_blocked()
        for _ in range(2):  # the first is taken as a wish to leave once it is done
            forced.cancel()
            await anyio.wait_all_tasks_blocked()
        assert forced.cancelled()
        assert counted.commits == 0
        gate.set()
    await counted.store.write(partial(put, number=2))
    assert await counted.numbers() == [1, 2]
