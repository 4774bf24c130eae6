"""Presence on PostgreSQL: a session of the instance's own holds an advisory lock on its name, and listens.

PostgreSQL lets go of the lock the moment the session ends, with the process or the connection. A session that is lost
while the process lives is made again, under the same name: what others took over meanwhile is theirs, which the
ledger's owners and fences say, and all else is still this instance's.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import anyio.to_thread
import psycopg
from psycopg import AsyncConnection
from sqlalchemy import Connection, text
from sqlalchemy.engine import URL

from agentlin_bridge.database import NOTICE_DEATH, cause_of, shown
from agentlin_bridge.delegation.ledger.presence import Heard
from agentlin_bridge.delegation.ledger.schema import CHANNEL
from agentlin_bridge.errors import LedgerError
from agentlin_bridge.task import TaskStatus

logger = logging.getLogger(__name__)

PATIENCE = 15.0
"""Seconds for which what needs the ledger waits while the session is lost."""
PAUSE = 0.5
"""Seconds between two tries to make it again."""
LOCKS = 7346225
"""What the names' advisory locks are told by from those of others in the database."""

# The server's side of `NOTICE_DEATH`: it has to notice when this machine is gone. Not every version knows all of them.
_SETTINGS = """
SELECT set_config(name, wanted, false) FROM pg_settings JOIN (VALUES
    ('tcp_keepalives_idle', '5'), ('tcp_keepalives_interval', '2'), ('tcp_keepalives_count', '3'),
    ('tcp_user_timeout', '11000'), ('idle_session_timeout', '0')
) AS given (name, wanted) USING (name)
"""
_TAKE = "SELECT pg_advisory_lock(hashtextextended(%s, %s))"
_IS_FREE = text("SELECT pg_try_advisory_xact_lock_shared(hashtextextended(:name, :locks))")


class SessionPresence:
    """Presence by a session on the ledger's PostgreSQL.

    Args:
        url: the ledger's.
        instance: this instance's name.
        read: runs a function in a transaction of the ledger.
        reset: closes the ledger's other connections.
    """

    look_interval = 15.0

    def __init__(
        self,
        url: URL,
        instance: str,
        *,
        read: Callable[[Callable[[Connection], bool]], Awaitable[bool]],
        reset: Callable[[], None],
    ) -> None:
        self.instance = instance
        self._url = url
        self._read = read
        self._reset = reset
        self._session: AsyncConnection | None = None
        self._is_present = anyio.Event()

    async def join(self) -> None:
        """Take this instance's lock, and listen.

        Raises:
            LedgerError: the database cannot be reached.
        """
        try:
            self._session = await self._joined()
        except psycopg.Error as error:
            raise LedgerError(
                f"The ledger {shown(self._url)} cannot be joined: {cause_of(error)}.",
                next_step="check that PostgreSQL runs and has connections left",
            ) from error
        self._is_present.set()

    async def leave(self) -> None:
        """End the session."""
        session, self._session = self._session, None
        if session is None:
            return
        with anyio.CancelScope(shield=True):
            # PostgreSQL may see the end of a session only after a moment.
            with suppress(psycopg.Error), anyio.move_on_after(2):
                await session.execute("SELECT pg_advisory_unlock_all()")
            await session.close()

    async def is_alive(self, instance: str) -> bool:
        """Whether an instance's session is there."""

        def is_locked(connection: Connection) -> bool:
            return not connection.execute(_IS_FREE, {"name": instance, "locks": LOCKS}).scalar_one()

        return instance == self.instance or await self._read(is_locked)

    async def secured(self) -> None:
        """Wait, if the session is lost, until it is there again.

        Raises:
            LedgerError: it is not for a long time.
        """
        with anyio.move_on_after(PATIENCE):
            await self._is_present.wait()
            return
        raise LedgerError(
            f"The connection to the ledger {shown(self._url)} is lost, and could not be made again for "
            f"{PATIENCE:.0f} seconds.",
            next_step="check that PostgreSQL runs, and try again when it does",
        )

    async def keep(self, heard: Heard, missed: Callable[[], None]) -> None:
        """Tell of what is heard; make the session again whenever it is lost."""
        while True:
            try:
                await self._listen(heard)
            except psycopg.Error as error:
                logger.warning("the ledger's connection is lost: %s", cause_of(error))
            self._is_present = anyio.Event()
            await self.leave()
            # What else is connected is lost as well, most likely, and would fail at its next use.
            await anyio.to_thread.run_sync(self._reset)
            self._session = await self._joined_again()
            logger.warning("the ledger's connection is there again")
            self._is_present.set()
            missed()

    async def _listen(self, heard: Heard) -> None:
        if self._session is None:
            return
        async for notify in self._session.notifies():
            try:
                instance, task_id, status = notify.payload.rsplit(" ", 2)
                changed = TaskStatus(status)
            except ValueError:
                logger.warning("a notice on the ledger's channel was not understood")
                continue
            if instance != self.instance:
                heard(task_id, changed)

    async def _joined_again(self) -> AsyncConnection:
        while True:
            try:
                return await self._joined()
            except psycopg.Error as error:
                logger.info("joining the ledger again: %s", cause_of(error))
            await anyio.sleep(PAUSE)

    async def _joined(self) -> AsyncConnection:
        address = self._url.set(drivername="postgresql").render_as_string(hide_password=False)
        given: dict[str, Any] = {key: value for key, value in NOTICE_DEATH.items() if key not in self._url.query}
        session = await AsyncConnection.connect(address, autocommit=True, **given, application_name=self.instance)
        try:
            await session.execute(_SETTINGS)
            # It waits for a session before this one that is not over yet, for PostgreSQL.
            await session.execute(_TAKE, (self.instance, LOCKS))
            await session.execute(f"LISTEN {CHANNEL}".encode())
        except BaseException:
            with anyio.CancelScope(shield=True):
                await session.close()
            raise
        return session
