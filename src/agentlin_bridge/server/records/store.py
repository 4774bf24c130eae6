"""The server's database: transactions on worker threads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import anyio
from anyio import CapacityLimiter, to_thread
from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import IntegrityError

from agentlin_bridge.database import open_database, reader_of
from agentlin_bridge.server.protocol.request import ListQuery
from agentlin_bridge.server.records.commits import GroupCommit
from agentlin_bridge.server.records.listing import page_of
from agentlin_bridge.server.records.schema import HEAD, MIGRATIONS, tasks
from agentlin_bridge.server.records.snapshot import row_of, task_objects
from agentlin_bridge.task import TaskObject

T = TypeVar("T")

SCHEMA = "agentlin_server"
"""Where the tables are on PostgreSQL."""
CONNECTIONS = 8
"""Transactions at once, on PostgreSQL."""


class Store:
    """The server's tasks. Methods may be called from any number of tasks at once."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._reader = reader_of(engine)
        self._commits = GroupCommit(engine) if engine.dialect.name == "sqlite" else None
        self._writing = anyio.CapacityLimiter(CONNECTIONS)
        self._reading = anyio.CapacityLimiter(CONNECTIONS)

    @classmethod
    async def open(cls, where: str | Path, *, executor: str = "") -> Store:
        """Open the database at a path or URL, bringing its schema up to date.

        Args:
            executor: by what name other processes hear of what is written here.

        Raises:
            LedgerError: it cannot be opened, or a newer version has written it.
        """

        def opened() -> Engine:
            engine = open_database(where, migrations=MIGRATIONS, head=HEAD, schema=SCHEMA)
            return engine.execution_options(executor=executor)

        return cls(await to_thread.run_sync(opened))

    async def close(self) -> None:
        """Close the database. The store cannot be used afterwards."""
        if self._commits is not None:
            await to_thread.run_sync(self._commits.close)
        await to_thread.run_sync(self.engine.dispose)

    async def ping(self) -> None:
        """Find out whether the database answers.

        Raises:
            SQLAlchemyError: it does not.
        """

        def run() -> None:
            with self._reader.connect() as connection:
                connection.execute(select(1))

        # A database that hangs would keep the thread, and with it whoever asks; the readers may hang already.
        await to_thread.run_sync(run, abandon_on_cancel=True, limiter=CapacityLimiter(1))

    async def retrieve(self, task_id: str, user: str | None = None) -> TaskObject | None:
        """The task as it is now, if a user may see it; None as user may see all."""

        def read(connection: Connection) -> TaskObject | None:
            row = row_of(connection, task_id)
            if row is None or user not in {None, row.user_id}:
                return None
            return task_objects(connection, [row])[0]

        return await self.read(read)

    async def page(self, query: ListQuery) -> tuple[list[TaskObject], bool]:
        """One page of tasks, and whether there are more in its direction.

        Raises:
            Refusal: the cursor is unknown.
        """

        def read(connection: Connection) -> tuple[list[TaskObject], bool]:
            rows, more = page_of(connection, query)
            return task_objects(connection, rows), more

        return await self.read(read)

    async def counts(self) -> dict[str, int]:
        """How many tasks have each status."""

        def read(connection: Connection) -> dict[str, int]:
            rows = connection.execute(select(tasks.c.status, func.count()).group_by(tasks.c.status))
            return {row[0]: row[1] for row in rows}

        return await self.read(read)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Do something in a transaction that only reads."""

        def run() -> T:
            with self._reader.connect() as connection:
                return work(connection)

        return await to_thread.run_sync(run, limiter=self._reading)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Do something in a transaction that is undone if it raises."""
        if self._commits is not None:
            return await self._commits.write(work)

        def run() -> T:
            with self.engine.begin() as connection:
                return work(connection)

        try:
            return await to_thread.run_sync(run, limiter=self._writing)
        except IntegrityError:
            # Another process was first with the same id: now that it is there, it is found.
            return await to_thread.run_sync(run, limiter=self._writing)
