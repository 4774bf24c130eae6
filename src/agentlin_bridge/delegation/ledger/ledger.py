"""The ledger: opens the database and runs each reading or writing function in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import anyio
import anyio.to_thread
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from agentlin_bridge.database import database_url, open_database
from agentlin_bridge.delegation.ledger.presence import Presence
from agentlin_bridge.delegation.ledger.schema import HEAD
from agentlin_bridge.errors import LedgerError

MIGRATIONS = Path(__file__).parent / "migrations"

P = ParamSpec("P")
T = TypeVar("T")


class Ledger:
    """A ledger file and this process's presence on it. Use it as an async context manager.

    Args:
        where: a path, or a `sqlite:///` URL.

    Raises:
        LedgerError: on entry, if it cannot be opened or a newer version has written it.
    """

    def __init__(self, where: str | Path) -> None:
        self._where = where
        self._engine: Engine | None = None
        self._presence: Presence | None = None
        # SQLite makes writers of one process poll each other; a lock makes them queue.
        self._writing = anyio.Lock()

    @property
    def instance(self) -> str:
        """This bridge instance's name in the ledger."""
        return self._opened(self._presence).instance

    async def __aenter__(self) -> Ledger:
        await anyio.to_thread.run_sync(self._open)
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._close)

    async def read(
        self, function: Callable[Concatenate[Connection, P], T], /, *arguments: P.args, **keywords: P.kwargs
    ) -> T:
        """Run a function of `reading`."""
        return await anyio.to_thread.run_sync(lambda: self._transact(True, function, *arguments, **keywords))

    async def write(
        self, function: Callable[Concatenate[Connection, P], T], /, *arguments: P.args, **keywords: P.kwargs
    ) -> T:
        """Run a function of `writing` in one transaction; it is committed when this returns."""
        async with self._writing:
            return await anyio.to_thread.run_sync(lambda: self._transact(False, function, *arguments, **keywords))

    async def is_alive(self, instance: str) -> bool:
        """Whether the bridge instance of that name still runs."""
        return await anyio.to_thread.run_sync(self._opened(self._presence).is_alive, instance)

    def _transact(
        self,
        reading: bool,
        function: Callable[Concatenate[Connection, P], T],
        /,
        *arguments: P.args,
        **keywords: P.kwargs,
    ) -> T:
        engine = self._opened(self._engine).execution_options(reading=reading)
        try:
            with engine.begin() as connection:
                return function(connection, *arguments, **keywords)
        except SQLAlchemyError as error:
            cause = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise LedgerError(
                f"The ledger {self._where} failed: {cause}.", next_step="check the disk and the file's permissions"
            ) from error

    def _open(self) -> None:
        url = database_url(self._where)
        if url.get_backend_name() != "sqlite" or not url.database:
            raise LedgerError(
                f"The ledger {url.render_as_string(hide_password=True)} is no SQLite file.",
                next_step="set AGENTLIN_BRIDGE_LEDGER to a path",
            )
        self._engine = open_database(self._where, migrations=MIGRATIONS, head=HEAD)
        presence = Presence(Path(f"{url.database}.instances"))
        presence.announce()
        self._presence = presence

    def _close(self) -> None:
        if self._presence is not None:
            self._presence.withdraw()
        if self._engine is not None:
            self._engine.dispose()

    def _opened(self, part: T | None) -> T:
        if part is None:
            raise LedgerError("The ledger is not open.", next_step="use it inside `async with`")
        return part
