"""Opening a SQL database: one code path for SQLite and PostgreSQL, with versioned schemas.

Used by the ledger and by the embedded server, which keep separate databases.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateSchema

from agentlin_bridge.errors import LedgerError

BUSY_TIMEOUT_MS = 30_000


def database_url(where: str | Path) -> URL:
    """A database URL from a URL or from the path of a SQLite file."""
    if isinstance(where, str) and "://" in where:
        url = make_url(where)
        return url.set(drivername="postgresql+psycopg") if url.drivername in {"postgresql", "postgres"} else url
    return URL.create("sqlite", database=str(Path(where).expanduser().absolute()))


def open_database(where: str | Path, *, migrations: Path, head: str, schema: str | None = None) -> Engine:
    """Open a database and bring its schema to `head`.

    A new SQLite file is readable by its owner only; it uses the write-ahead log and is synced at every
    commit.

    Args:
        where: a database URL or the path of a SQLite file.
        migrations: the Alembic script directory.
        head: the newest revision this version of the package knows.
        schema: on PostgreSQL, the schema that holds the tables; None is the user's own.

    Raises:
        LedgerError: the database cannot be opened, or a newer version has written it.
    """
    url = database_url(where)
    try:
        if url.get_backend_name() == "sqlite" and url.database:
            _private_file(Path(url.database))
        engine = _engine(url, schema)
    except (OSError, SQLAlchemyError, ImportError) as error:
        raise _unusable(url, error) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_immediate)
    try:
        if schema is not None and engine.dialect.name == "postgresql":
            with engine.begin() as connection:
                connection.execute(text("SELECT pg_advisory_xact_lock(7346224)"))
                connection.execute(CreateSchema(schema, if_not_exists=True))
        _bring_to(engine, migrations, head)
    except SQLAlchemyError as error:
        engine.dispose()
        raise _unusable(url, error) from error
    except LedgerError:
        engine.dispose()
        raise
    return engine


def _engine(url: URL, schema: str | None) -> Engine:
    if url.get_backend_name() != "postgresql":
        return create_engine(url)
    options = {} if schema is None else {"connect_args": {"options": f"-c search_path={schema}"}}
    return create_engine(url, pool_size=10, **options)


def _unusable(url: URL, error: Exception) -> LedgerError:
    shown = url.render_as_string(hide_password=True)
    cause = str(getattr(error, "orig", None) or error).splitlines()[0]
    return LedgerError(
        f"The database {shown} cannot be opened: {cause}",
        next_step="check that the path exists, is writable and is a database of this program",
    )


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
                f"The database {engine.url.render_as_string(hide_password=True)} was written by a newer version "
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
