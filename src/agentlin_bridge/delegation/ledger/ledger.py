"""The ledger: opens the database and runs each reading or writing function in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Concatenate, Generic, ParamSpec, TypeVar

import anyio
import anyio.to_thread
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DataError, SQLAlchemyError

from agentlin_bridge.database import cause_of, database_url, is_lost, open_database, reader_of, shown
from agentlin_bridge.delegation.ledger.presence import FilePresence, Heard, Presence, new_instance
from agentlin_bridge.delegation.ledger.schema import HEAD, SCHEMA
from agentlin_bridge.errors import InvalidRequestError, LedgerError

MIGRATIONS = Path(__file__).parent / "migrations"

CONNECTIONS = 8
"""Transactions at once that read, and as many that write; on SQLite one writes at a time."""

TRIES = 4
"""How often a transaction is tried that others were in the way of, or whose connection was lost."""

_IN_THE_WAY = ("23505", "40001", "40P01")
"""SQLSTATEs of what has no cause any more when it is tried again: a key was taken meanwhile, a deadlock."""

_TOO_LARGE = ("54000",)
"""The SQLSTATE of a value that does not fit, into an index for one."""

P = ParamSpec("P")
T = TypeVar("T")


class Ledger:
    """A ledger and this process's presence on it. Use it as an async context manager.

    Args:
        where: the path of a SQLite file, or a `sqlite:///` or `postgresql://` URL.

    Raises:
        LedgerError: on entry, if it cannot be opened or a newer version has written it.
        MissingExtraError: on entry, if the database's driver is not installed.
    """

    def __init__(self, where: str | Path) -> None:
        self._where = where
        self._engine: Engine | None = None
        self._reader: Engine | None = None
        self._presence: Presence | None = None
        self._shown = ""
        self._readers = anyio.CapacityLimiter(CONNECTIONS)
        # SQLite makes writers of one process poll each other: it gets them one by one.
        self._writers = anyio.CapacityLimiter(1)

    @property
    def instance(self) -> str:
        """This bridge instance's name in the ledger."""
        return self._opened(self._presence).instance

    @property
    def look_interval(self) -> float:
        """Seconds after which changes by other instances have to be looked for, in case they were not told."""
        return self._opened(self._presence).look_interval

    async def __aenter__(self) -> Ledger:
        async with AsyncExitStack() as stack:
            presence = await anyio.to_thread.run_sync(self._open)
            stack.push_async_callback(self._close)
            await presence.join()
            self._presence = presence
            stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True):
            await self._opened(self._presence).leave()
            await self._close()

    async def read(
        self, function: Callable[Concatenate[Connection, P], T], /, *arguments: P.args, **keywords: P.kwargs
    ) -> T:
        """Run a function of `reading`, on one snapshot.

        Raises:
            LedgerError: the database cannot be read.
        """
        return await self._transact(
            self._reader, lambda on: function(on, *arguments, **keywords), self._readers, reading=True
        )

    async def write(
        self, function: Callable[Concatenate[Connection, P], T], /, *arguments: P.args, **keywords: P.kwargs
    ) -> T:
        """Run a function of `writing` in one transaction; it is committed when this returns.

        Raises:
            LedgerError: it was not, or nobody knows.
            InvalidRequestError: the database cannot hold one of the values.
        """
        return await self._transact(
            self._engine, lambda on: function(on, *arguments, **keywords), self._writers, reading=False
        )

    async def is_alive(self, instance: str) -> bool:
        """Whether the bridge instance of that name still runs."""
        return await self._opened(self._presence).is_alive(instance)

    async def keep_present(self, heard: Heard, missed: Callable[[], None]) -> None:
        """Stay alive for the other instances; return if that takes nothing to do.

        Args:
            heard: told the id and the status of tasks that others change, where they tell.
            missed: called when some of that may have been missed.
        """
        await self._opened(self._presence).keep(heard, missed)

    async def _transact(
        self, engine: Engine | None, work: Callable[[Connection], T], limiter: anyio.CapacityLimiter, *, reading: bool
    ) -> T:
        tries = 0
        while True:
            await self._opened(self._presence).secured()
            attempt = _Attempt(work)
            try:
                return await anyio.to_thread.run_sync(attempt.run, self._opened(engine), limiter=limiter)
            except SQLAlchemyError as error:
                tries += 1
                unknown = is_lost(error) and attempt.is_done and not reading
                if unknown or tries == TRIES or not (is_lost(error) or _has_state(error, _IN_THE_WAY)):
                    raise self._fault(error, unknown=unknown) from error
                if is_lost(error):
                    # The presence notices it, too, and will wait for the database.
                    await anyio.sleep(0.2)

    def _fault(self, error: SQLAlchemyError, *, unknown: bool) -> LedgerError | InvalidRequestError:
        cause = cause_of(error).rstrip(".")
        if unknown:
            return LedgerError(
                f"The ledger {self._shown} was lost while it stored a change ({cause}); whether it did, nobody knows.",
                next_step="do the same again: what was done is not done twice",
            )
        if isinstance(error, DataError) or _has_state(error, _TOO_LARGE):
            return InvalidRequestError(
                f"The ledger {self._shown} cannot hold a value: {cause}. Nothing was stored.",
                next_step="leave out what it cannot hold",
            )
        return LedgerError(f"The ledger {self._shown} failed: {cause}.", next_step=self._next_step)

    @property
    def _next_step(self) -> str:
        if self._opened(self._engine).dialect.name == "sqlite":
            return "check the disk and the file's permissions"
        return "check that PostgreSQL runs and can be reached, and try again"

    def _open(self) -> Presence:
        url = database_url(self._where)
        kind = url.get_backend_name()
        self._shown = str(url.database) if kind == "sqlite" else shown(url)
        if kind not in {"sqlite", "postgresql"} or not url.database:
            raise LedgerError(
                f"The ledger {self._shown} is neither a SQLite file nor a PostgreSQL database.",
                next_step="set AGENTLIN_BRIDGE_LEDGER to a path, or to a URL like postgresql://user@host/name",
            )
        instance = new_instance()
        engine = open_database(self._where, migrations=MIGRATIONS, head=HEAD, schema=SCHEMA, name=instance)
        self._engine, self._reader = engine, reader_of(engine)
        if kind == "sqlite":
            return FilePresence(instance, Path(f"{url.database}.instances"))
        from agentlin_bridge.delegation.ledger.session_presence import SessionPresence  # noqa: PLC0415 - an extra

        self._writers = anyio.CapacityLimiter(CONNECTIONS)
        return SessionPresence(url, instance, read=self.read, reset=engine.dispose)

    async def _close(self) -> None:
        engine, self._engine, self._reader = self._engine, None, None
        if engine is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(engine.dispose)

    def _opened(self, part: T | None) -> T:
        if part is None:
            raise LedgerError("The ledger is not open.", next_step="use it inside `async with`")
        return part


class _Attempt(Generic[T]):
    """One try at a transaction.

    Attributes:
        is_done: whether all but the commit has succeeded.
    """

    def __init__(self, work: Callable[[Connection], T]) -> None:
        self._work = work
        self.is_done = False

    def run(self, engine: Engine) -> T:
        with engine.begin() as connection:
            result = self._work(connection)
            self.is_done = True
        return result


def _has_state(error: SQLAlchemyError, states: tuple[str, ...]) -> bool:
    return getattr(getattr(error, "orig", None), "sqlstate", None) in states
