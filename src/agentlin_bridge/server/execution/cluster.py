"""Several server processes on one PostgreSQL.

Each holds a session advisory lock on its name. PostgreSQL lets go of it the moment the process is dead, so who
lives is never a matter of clocks. What the others change is heard through LISTEN.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import psycopg
from psycopg import AsyncConnection
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from agentlin_bridge.errors import LedgerError
from agentlin_bridge.server.execution.takeover import Heard
from agentlin_bridge.server.records.journal import CHANNEL

logger = logging.getLogger(__name__)

LOOK = 1.0
"""Seconds between two looks for dead processes."""
PATIENCE = 10.0
"""Seconds that a look may take while the server leaves."""
NAMES = 7346221
"""The first half of the advisory locks on names; the second is the number in the name."""
DECISION = 7346222
"""The advisory lock of whoever decides about what the dead have left."""

_NOTICE_DEATH = """
SELECT set_config('tcp_keepalives_idle', '5', false), set_config('tcp_keepalives_interval', '2', false),
       set_config('tcp_keepalives_count', '3', false)
"""
_LIVE = """
SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objsubid = 2 AND granted
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class Cluster:
    """The processes that share a PostgreSQL database."""

    alone = False

    def __init__(self, number: int, guard: AsyncConnection, decider: AsyncConnection) -> None:
        self.executor = _name(number)
        self._guard = guard
        self._decider = decider
        self._deciding = anyio.Lock()

    @asynccontextmanager
    async def deciding(self) -> AsyncIterator[frozenset[str]]:
        """Keep the others from deciding too; what is yielded are the executors that live."""
        async with self._deciding:
            await self._decider.execute("SELECT pg_advisory_lock(%s)", (DECISION,))
            try:
                found = await self._decider.execute(_LIVE, (NAMES,))
                yield frozenset(_name(number) for (number,) in await found.fetchall())
            finally:
                with anyio.CancelScope(shield=True):
                    await self._decider.execute("SELECT pg_advisory_unlock(%s)", (DECISION,))

    async def watch(self, heard: Heard, look: Callable[[], Awaitable[None]]) -> None:
        """Tell of tasks that others change, and when it is time to look for what the dead left.

        Raises:
            LedgerError: the connection that holds the name is lost.
        """
        async with anyio.create_task_group() as group:
            group.start_soon(self._listen, heard)
            while True:
                await anyio.sleep(LOOK)
                try:
                    # Cancelled in the middle, psycopg may close the connection, and leaving would look like a loss.
                    with anyio.move_on_after(PATIENCE, shield=True):
                        await look()
                except (SQLAlchemyError, psycopg.Error) as error:
                    if self._decider.broken or self._decider.closed:
                        raise _lost() from error
                    logger.warning("could not look for what others left: %s", type(error).__name__)

    async def _listen(self, heard: Heard) -> None:
        try:
            async for notify in self._guard.notifies():
                executor, to, task_id = notify.payload.split(" ", 2)
                if executor != self.executor:
                    try:
                        await heard(task_id, to == self.executor)
                    except SQLAlchemyError as error:
                        logger.warning("task %s: what was heard of it is lost: %s", task_id, type(error).__name__)
        except psycopg.Error as error:
            raise _lost() from error


def _lost() -> LedgerError:
    return LedgerError(
        "The connection to the database is lost, and with it the claim on the tasks that ran here; "
        "another server may have taken them over.",
        next_step="start this server again when the database is back",
    )


def _name(number: int) -> str:
    return f"server-{number}"


@asynccontextmanager
async def joined(url: URL) -> AsyncIterator[Cluster]:
    """Take the first name that is free, and keep it while the context lasts.

    Raises:
        LedgerError: the database cannot be reached.
    """
    async with AsyncExitStack() as stack:
        guard = await _connected(url, stack)
        decider = await _connected(url, stack)
        await guard.execute(_NOTICE_DEATH)
        # Whoever decides just now may take this name for a dead one's.
        await guard.execute("SELECT pg_advisory_lock(%s)", (DECISION,))
        for number in itertools.count():
            taken = await guard.execute("SELECT pg_try_advisory_lock(%s, %s)", (NAMES, number))
            if (await taken.fetchone()) == (True,):
                break
        await guard.execute("SELECT pg_advisory_unlock(%s)", (DECISION,))
        await guard.execute(f"LISTEN {CHANNEL}".encode())
        yield Cluster(number, guard, decider)


async def _connected(url: URL, stack: AsyncExitStack) -> AsyncConnection:
    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        connection = await AsyncConnection.connect(address, autocommit=True)
    except psycopg.Error as error:
        shown = url.set(drivername="postgresql").render_as_string(hide_password=True)
        raise LedgerError(
            f"The database {shown} cannot be reached: {str(error).splitlines()[0]}",
            next_step="check its address, and that it runs",
        ) from error
    # As a context manager it would roll back first, which a cancellation ends before it is closed.
    stack.push_async_callback(_closed, connection)
    return connection


async def _closed(connection: AsyncConnection) -> None:
    with anyio.CancelScope(shield=True):
        await connection.close()
