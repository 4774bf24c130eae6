"""Opening a ledger: its schema, what it may be, and what cannot be used."""

from __future__ import annotations

import importlib
import logging
import stat
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from agentlin_bridge import InvalidRequestError, LedgerError, MissingExtraError, extras
from agentlin_bridge.delegation.ledger import reading, writing
from agentlin_bridge.delegation.ledger.ledger import Ledger
from agentlin_bridge.delegation.ledger.schema import SCHEMA, metadata

from .sample import NEW, create, opened, transaction

anyio_test = pytest.mark.anyio


def test_the_migrations_make_the_declared_schema(where: str) -> None:
    with transaction(where) as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert {index["name"] for index in inspect(connection).get_indexes("tasks")} >= {
            "ix_tasks_listing",
            "ix_tasks_session",
        }


@anyio_test
async def test_a_ledger_of_the_first_version_is_migrated(where: str) -> None:
    with transaction(where, head="0001") as connection:
        writing.create_task(connection, NEW, owner="me")
    async with Ledger(where) as ledger:
        task = await ledger.read(reading.load, NEW.id)
    assert task is not None
    assert task.current.owner == "me"


def test_on_postgresql_it_has_a_schema_of_its_own(on_postgres: str) -> None:
    with transaction(on_postgres) as connection:
        assert inspect(connection).get_table_names("public") == []
        assert "tasks" in inspect(connection).get_table_names(SCHEMA)


def test_who_may_not_create_a_schema_may_use_one(on_postgres: str) -> None:
    opened(on_postgres).dispose()
    with psycopg.connect(on_postgres, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS modest")
        connection.execute("CREATE ROLE modest LOGIN")
        connection.execute(f"GRANT USAGE ON SCHEMA {SCHEMA} TO modest".encode())
        connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA {SCHEMA} TO modest".encode())
    with transaction(on_postgres.replace("tester", "modest")) as connection:
        writing.create_task(connection, NEW, owner="me")


def test_who_may_do_neither_is_told_so(on_postgres: str) -> None:
    with psycopg.connect(on_postgres, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS powerless")
        connection.execute("CREATE ROLE powerless LOGIN")
    with pytest.raises(LedgerError, match=r"cannot be opened: permission denied .* may create a schema"):
        opened(on_postgres.replace("tester", "powerless"))


def test_the_file_is_private_and_durable(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ledger.sqlite3"
    with transaction(path) as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_newer_ledger_is_refused(where: str) -> None:
    with transaction(where) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(LedgerError, match=r"written by a newer version .*schema 9999.* Next: upgrade agentlin-bridge"):
        opened(where)


@pytest.mark.parametrize("content", ["no database, but long enough to be told from an empty file" * 20, None])
def test_an_unusable_file_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ledger.sqlite3"
    if content is None:
        path.mkdir()
    else:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(LedgerError, match=r"ledger\.sqlite3 cannot be opened: .* Next: check"):
        opened(path)


@pytest.mark.parametrize(
    "url",
    [
        "nonsense://user:secret@127.0.0.1/x",
        "postgresql://user:secret@127.0.0.1:no-port/x",
        "postgresql://user:secret@127.0.0.1:1/x?connect_timeout=2",
        "postgresql://user@127.0.0.1:1/x?password=secret&connect_timeout=2",
        "postgresql://user:secret@127.0.0.1/x?sslmode=nonsense",
        "mysql://user:secret@127.0.0.1/x",
        "sqlite://",
    ],
)
@anyio_test
async def test_passwords_in_urls_are_not_shown(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ledger = Ledger(url)
    with pytest.raises(LedgerError, match="Next: ") as raised:
        async with ledger:
            pass
    assert "secret" not in f"{raised.value}{raised.value!r}{ledger!r}{caplog.text}"


@anyio_test
async def test_a_missing_driver_is_named(on_postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(extras, "version", missing)
    monkeypatch.setattr(extras, "requires", lambda _: ['psycopg[binary]>=3.2,<4; extra == "postgres"'])
    with pytest.raises(MissingExtraError, match=r"psycopg is not installed.*pip install .*\[postgres\]"):
        async with Ledger(on_postgres):
            pass


def test_a_driver_that_cannot_be_imported_is_named() -> None:
    with pytest.raises(LedgerError, match=r"cannot be opened: No module named .* pip install .*\[postgres\]"):
        opened("postgresql+pg8000://user@127.0.0.1/x")


@anyio_test
async def test_a_ledger_must_be_open(where: str) -> None:
    ledger = Ledger(where)
    with pytest.raises(LedgerError, match="not open"):
        await ledger.read(reading.load, "task_1")
    async with ledger:
        assert await ledger.read(reading.load, "task_1") is None
    with pytest.raises(LedgerError, match="not open"):
        await ledger.write(writing.create_task, NEW, owner="me")


@anyio_test
async def test_database_errors_are_ours_and_leave_nothing_half_done(where: str) -> None:
    async with Ledger(where) as ledger:
        with transaction(where) as connection:
            connection.exec_driver_sql("DROP TABLE rounds")
        with pytest.raises(LedgerError, match=r"failed: .*rounds.* Next: check"):
            await ledger.write(writing.create_task, NEW, owner="me")
        with transaction(where) as connection:
            assert connection.execute(text("SELECT count(*) FROM tasks")).scalar() == 0, "half a transaction was kept"


@pytest.mark.parametrize("request_id", ["nul \0", "".join(chr(0x4E00 + n * n % 20_000) for n in range(20_000))])
@anyio_test
async def test_what_postgresql_cannot_hold_is_refused(on_postgres: str, request_id: str) -> None:
    async with Ledger(on_postgres) as ledger:
        with pytest.raises(InvalidRequestError, match=r"cannot hold a value: .*Nothing was stored"):
            await ledger.write(writing.create_task, replace(NEW, request_id=request_id), owner="me")
        await create(ledger)


def test_the_driver_is_imported_only_for_postgresql() -> None:
    module = importlib.import_module("agentlin_bridge.delegation.ledger.ledger")
    assert not {"psycopg", "SessionPresence"} & set(vars(module))
