"""Opening a SQL database: one code path for SQLite and PostgreSQL, with versioned schemas.

Used by the ledger and by the embedded server, which keep separate databases.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.schema import CreateSchema

from agentlin_bridge.errors import LedgerError
from agentlin_bridge.extras import require_extra

BUSY_TIMEOUT_MS = 30_000
"""How long a transaction waits for another one before it fails."""

NOTICE_DEATH: dict[str, int] = {
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 11_000,
}
"""libpq parameters: within seconds, a PostgreSQL that can no longer be reached is an error."""


def database_url(where: str | Path) -> URL:
    """A database URL from a URL or from the path of a SQLite file.

    Raises:
        LedgerError: it is no URL. The message does not show it: it may hold a password.
    """
    if isinstance(where, str) and "://" in where:
        try:
            url = make_url(where)
        except (ArgumentError, ValueError):
            raise LedgerError(
                "The URL of the database cannot be read.",
                next_step="write it like postgresql://user:password@host:5432/name, with @ / : in a password as "
                "%40 %2F %3A; or give the path of a SQLite file",
            ) from None
        return url.set(drivername="postgresql+psycopg") if url.drivername in {"postgresql", "postgres"} else url
    return URL.create("sqlite", database=str(Path(where).expanduser().absolute()))


def shown(url: URL) -> str:
    """A database URL without what must not be shown."""
    return url.set(query={}, drivername=url.get_backend_name()).render_as_string(hide_password=True)


def cause_of(error: Exception) -> str:
    """The first line of what a database driver said."""
    lines = str(getattr(error, "orig", None) or error).splitlines()
    return lines[0] if lines else type(error).__name__


def is_lost(error: Exception) -> bool:
    """Whether an error means that the connection is gone, or could not be made."""
    if not isinstance(error, DBAPIError):
        return False
    # SQLite's errors have no such state; the driver of PostgreSQL gives none where it could not connect.
    state = getattr(error.orig, "sqlstate", "")
    unreachable = isinstance(error, OperationalError) and (state is None or state.startswith(("08", "57P")))
    return error.connection_invalidated or unreachable


def reader_of(engine: Engine) -> Engine:
    """The same database for transactions that only read, each of them one snapshot."""
    if engine.dialect.name == "postgresql":
        return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return engine.execution_options(reading=True)


def open_database(
    where: str | Path, *, migrations: Path, head: str, schema: str | None = None, name: str | None = None
) -> Engine:
    """Open a database and bring its schema to `head`.

    A new SQLite file is readable by its owner only; it uses the write-ahead log and is synced at every
    commit. On PostgreSQL a transaction is READ COMMITTED, unless it comes from `reader_of`.

    Args:
        where: a database URL or the path of a SQLite file.
        migrations: the Alembic script directory.
        head: the newest revision this version of the package knows.
        schema: on PostgreSQL, the schema that holds the tables; None is the user's own.
        name: under which the connections are known to PostgreSQL (`application_name`).

    Raises:
        LedgerError: the database cannot be opened, or a newer version has written it.
        MissingExtraError: the driver is not installed.
    """
    url = database_url(where)
    if url.get_backend_name() == "postgresql":
        require_extra("postgres")
    try:
        if url.get_backend_name() == "sqlite" and url.database:
            _private_file(Path(url.database))
        engine = _engine(url, schema, name)
    except (OSError, SQLAlchemyError, ImportError) as error:
        raise _unusable(url, error) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_immediate)
    try:
        if schema is not None and engine.dialect.name == "postgresql":
            with engine.begin() as connection:
                connection.execute(text("SELECT pg_advisory_xact_lock(7346224)"))
                # Who may not create one may still use it: `IF NOT EXISTS` would ask for the right first.
                if not inspect(connection).has_schema(schema):
                    connection.execute(CreateSchema(schema))
        _bring_to(engine, migrations, head)
    except SQLAlchemyError as error:
        engine.dispose()
        raise _unusable(url, error) from error
    except LedgerError:
        engine.dispose()
        raise
    return engine


def _engine(url: URL, schema: str | None, name: str | None) -> Engine:
    if url.get_backend_name() != "postgresql":
        # An error that is logged shall not hold what a task says.
        return create_engine(url, hide_parameters=True)
    parameters: dict[str, Any] = {key: value for key, value in NOTICE_DEATH.items() if key not in url.query}
    if name is not None:
        parameters["application_name"] = name
    options = [url.query.get("options", ""), f"-c lock_timeout={BUSY_TIMEOUT_MS}"]
    options.append(f"-c idle_in_transaction_session_timeout={BUSY_TIMEOUT_MS}")
    if schema is not None:
        options.append(f"-c search_path={schema}")
    parameters["options"] = " ".join(str(option) for option in options)
    return create_engine(
        url, pool_size=10, isolation_level="READ COMMITTED", connect_args=parameters, hide_parameters=True
    )


def _unusable(url: URL, error: Exception) -> LedgerError:
    step = "check that the path exists, is writable and is a database of this program"
    if isinstance(error, ImportError):
        step = "install its driver; PostgreSQL's comes with: pip install 'agentlin-bridge[postgres]'"
    elif url.get_backend_name() == "postgresql":
        step = "check the address, that PostgreSQL runs there, and that the user may create a schema in the database"
    return LedgerError(f"The database {shown(url)} cannot be opened: {cause_of(error)}", next_step=step)


def _private_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # sqlite3 would open transactions by itself, too late and as readers that cannot upgrade.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _bring_to(engine: Engine, migrations: Path, head: str) -> None:
    if _version(engine) == head:
        return
    # Alembic costs as much to import as the rest of the ledger: only a changed schema pays for it.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    with engine.begin() as connection:
        if engine.dialect.name != "sqlite":
            connection.execute(text("SELECT pg_advisory_xact_lock(7346223)"))
        found = _version_on(connection)
        if found == head:
            return
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if found is not None and found not in known:
            raise LedgerError(
                f"The database {shown(engine.url)} was written by a newer version "
                f"of agentlin-bridge (schema {found}; this version knows up to {head}).",
                next_step="upgrade agentlin-bridge, or point it at another database",
            )
        config.attributes["connection"] = connection
        command.upgrade(config, head)


def _version(engine: Engine) -> str | None:
    with engine.connect().execution_options(reading=True) as connection:
        return _version_on(connection)


def _version_on(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found
