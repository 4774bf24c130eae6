"""Who waits for a task hears of what another process does to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
from sqlalchemy import text

from agentlin_bridge import TaskStatus
from agentlin_bridge.delegation.changes import Changes
from agentlin_bridge.delegation.ledger import reading, writing
from agentlin_bridge.delegation.ledger.ledger import Ledger

from .sample import NEW, create, transaction

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def changing(ledger: Ledger, over: list[str]) -> AsyncIterator[Changes]:
    changes = Changes(ledger)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(changes.run, over.append)
            yield changes
            group.cancel_scope.cancel()


async def test_a_change_by_another_wakes_who_waits(where: str) -> None:
    over: list[str] = []
    async with Ledger(where) as one, Ledger(where) as two, changing(one, over) as changes:
        await create(one)
        with changes.watching(NEW.id):
            for number in range(3):
                changed = changes.next(NEW.id)
                await two.write(writing.annotate, NEW.id, {"n": number})
                await changed.wait()
            changed = changes.next(NEW.id)
            await two.write(writing.finish, NEW.id, TaskStatus.CANCELED, None)
            while not over:
                await changed.wait()
                changed = changes.next(NEW.id)
        assert set(over) == {NEW.id}


async def test_a_change_right_after_the_watch_began_is_not_missed(where: str) -> None:
    """Nobody has looked yet, so nobody could tell it from what was there before."""
    async with Ledger(where) as one, Ledger(where) as two:
        await create(one)
        changes = Changes(one)
        with changes.watching(NEW.id), anyio.fail_after(10):
            changed = changes.next(NEW.id)
            assert await one.read(reading.load, NEW.id) is not None
            await two.write(writing.annotate, NEW.id, {"n": 1})
            async with anyio.create_task_group() as group:
                group.start_soon(changes.run, lambda _: None)
                await changed.wait()
                group.cancel_scope.cancel()


async def test_a_ledger_that_fails_is_looked_at_again(where: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Ledger(where) as one, changing(one, []) as changes:
        await create(one)
        with transaction(where) as connection:
            connection.execute(text("ALTER TABLE tasks RENAME TO hidden"))
        with changes.watching(NEW.id):
            changed = changes.next(NEW.id)
            while "failed" not in caplog.text:
                await anyio.lowlevel.checkpoint()
            with transaction(where) as connection:
                connection.execute(text("ALTER TABLE hidden RENAME TO tasks"))
            changes._miss()
            await changed.wait()
