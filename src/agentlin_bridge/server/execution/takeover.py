"""Taking up rounds that nobody runs: after a start, and when another process of the same database has died."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Protocol

import anyio
from sqlalchemy import Connection, Row, delete, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from agentlin_bridge.server.execution.engine import Engine, Standing
from agentlin_bridge.server.records.journal import UNDER_WAY, Start, is_busy, locked_row, release, start_of
from agentlin_bridge.server.records.schema import leaving, tasks
from agentlin_bridge.server.records.store import Store
from agentlin_bridge.task import TaskStatus

logger = logging.getLogger(__name__)

LOOK = 30.0
"""Seconds between two looks where nobody else can have left anything."""


class Heard(Protocol):
    """Told of what other processes do."""

    async def __call__(self, task_id: str, asked: bool) -> None:
        """Another process has changed a task; `asked` if this one has to do something about it."""
        ...


class Peers(Protocol):
    """The processes that share a database, this one included."""

    @property
    def executor(self) -> str:
        """The name under which this one runs rounds; the next process in its place has the same."""
        ...

    @property
    def alone(self) -> bool:
        """Whether there can be no other."""
        ...

    def deciding(self) -> AbstractAsyncContextManager[frozenset[str]]:
        """Keep the others from deciding too; what is yielded are the executors that live."""
        ...

    async def watch(self, heard: Heard, look: Callable[[], Awaitable[None]]) -> None:
        """Tell of tasks that others change, and when it is time to look for what the dead left."""
        ...


class Alone:
    """The only process of its database."""

    executor = "server"
    alone = True

    @asynccontextmanager
    async def deciding(self) -> AsyncIterator[frozenset[str]]:
        """Nobody to keep away."""
        yield frozenset({self.executor})

    async def watch(self, heard: Heard, look: Callable[[], Awaitable[None]]) -> None:
        """Nobody to watch; but now and then look for what a failing disk has kept from being started."""
        while True:
            await anyio.sleep(LOOK)
            try:
                await look()
            except SQLAlchemyError as error:
                logger.warning("could not look for what is to be started: %s", type(error).__name__)


async def adopt(store: Store, engine: Engine, executor: str, live: frozenset[str], *, own: bool = False) -> list[Start]:
    """Find out what has to be run again, and by whom.

    Args:
        executor: this process.
        live: the executors that live.
        own: also what is under this process's own name: it has just started.

    Returns:
        The rounds that this process has to start.
    """
    others = live - {executor} if own else live
    orphans, ghosts = await store.read(partial(_undone, live=others))
    if ghosts:
        await store.write(partial(_clear_ghosts, live=others))
    standing = await engine.standing([start_of(row).workflow_id for row in orphans])
    starts = []
    for row in orphans:
        known = standing.get(start_of(row).workflow_id)
        if known is None or known.has_ended or (known.is_foreign and known.executor not in others):
            work = partial(_claim, row=row, executor=executor, again=known is not None)
            if (start := await store.write(work)) is not None:
                starts.append(start)
        elif _is_left_by_the_dead(known, live):
            await engine.take_over(start_of(row).workflow_id)
            await store.write(partial(_disown, row=row))
    for session_id in await store.read(_waiting_sessions):
        work = partial(release, session_id=session_id, executor=executor)
        if (start := await store.write(work)) is not None:
            starts.append(start)
    return starts


def _is_left_by_the_dead(known: Standing, live: frozenset[str]) -> bool:
    return not known.is_waiting and known.executor not in live


def _undone(connection: Connection, live: frozenset[str]) -> tuple[list[Row[Any]], bool]:
    """Tasks that nobody has in hand, and whether there are rounds that only the dead have yet to leave."""
    nobody = or_(tasks.c.executor.is_(None), tasks.c.executor.not_in(live))
    orphans = select(tasks).where(tasks.c.status.in_(UNDER_WAY), nobody).order_by(tasks.c.seq)
    ghosts = select(leaving.c.task_id).where(leaving.c.executor.not_in(live)).limit(1)
    return list(connection.execute(orphans).all()), connection.execute(ghosts).first() is not None


def _clear_ghosts(connection: Connection, live: frozenset[str]) -> None:
    connection.execute(delete(leaving).where(leaving.c.executor.not_in(live)))


def _claim(connection: Connection, row: Row[Any], executor: str, again: bool) -> Start | None:
    now = locked_row(connection, row.id)
    if now is None or now.status not in UNDER_WAY or (now.attempt, now.executor) != (row.attempt, row.executor):
        return None
    attempt = now.attempt + again
    connection.execute(update(tasks).where(tasks.c.id == row.id).values(attempt=attempt, executor=executor))
    return Start(now.id, attempt, now.steps)


def retry(connection: Connection, start: Start, executor: str) -> Start | None:
    """Another attempt at a round that this process could not record, if it is still to be run."""
    row = locked_row(connection, start.task_id)
    if row is None or row.status not in UNDER_WAY or row.attempt != start.attempt:
        return None
    connection.execute(update(tasks).where(tasks.c.id == row.id).values(attempt=row.attempt + 1, executor=executor))
    return Start(row.id, row.attempt + 1, row.steps)


def _disown(connection: Connection, row: Row[Any]) -> None:
    """Until somebody begins with it, nobody has it."""
    taken_up = tasks.c.executor != row.executor if row.executor is not None else tasks.c.executor.is_not(None)
    connection.execute(update(tasks).where(tasks.c.id == row.id, ~taken_up).values(executor=None))


def _waiting_sessions(connection: Connection) -> list[str]:
    query = select(tasks.c.session_id).where(tasks.c.status == TaskStatus.QUEUED).distinct()
    return [session_id for session_id in connection.execute(query).scalars() if not is_busy(connection, session_id)]
