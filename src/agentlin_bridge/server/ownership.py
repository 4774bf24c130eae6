"""Who may run the tasks of a database: on SQLite one process, on PostgreSQL every one in its own name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from agentlin_bridge.database import database_url
from agentlin_bridge.errors import ConfigurationError
from agentlin_bridge.server.execution.takeover import Alone, Peers


@asynccontextmanager
async def owning(database: str | Path) -> AsyncIterator[Peers]:
    """Own a database, or a share of it, while the context lasts.

    Raises:
        ConfigurationError: another server owns it, or it is of a kind that cannot be used.
        LedgerError: it cannot be reached.
    """
    url = database_url(database)
    if url.get_backend_name() == "postgresql":
        # psycopg is an extra, and costs a tenth of a second that only its users should pay.
        from agentlin_bridge.server.execution.cluster import joined  # noqa: PLC0415

        async with joined(url) as peers:
            yield peers
    elif url.get_backend_name() == "sqlite" and url.database:
        with _locked(Path(url.database)):
            yield Alone()
    else:
        raise ConfigurationError(
            f"The embedded server cannot keep its tasks in {url.get_backend_name()!r}.",
            next_step="give it the path of a SQLite file, or a postgresql:// URL",
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = FileLock(f"{path}.lock", mode=0o600)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock.acquire(blocking=False)
    except Timeout:
        raise ConfigurationError(
            f"Another agentlin-bridge server owns {path}.",
            next_step="use that server, stop it, or give this one another database",
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"The directory of {path} cannot be used: {error.strerror}.",
            next_step="check that it exists and is writable",
        ) from error
    try:
        yield
    finally:
        lock.release()
