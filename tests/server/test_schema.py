"""The migrations lead to the tables the code uses, and refuse what a newer version wrote."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from agentlin_bridge.database import open_database
from agentlin_bridge.errors import LedgerError
from agentlin_bridge.server.schema import HEAD, MIGRATIONS, metadata


def test_the_migrated_schema_is_the_one_in_the_code(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "db", migrations=MIGRATIONS, head=HEAD)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_the_migration_is_committed(tmp_path: Path) -> None:
    open_database(tmp_path / "db", migrations=MIGRATIONS, head=HEAD).dispose()
    with sqlite3.connect(tmp_path / "db") as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]
        assert connection.execute("SELECT count(*) FROM tasks").fetchall() == [(0,)]
    connection.close()
    open_database(tmp_path / "db", migrations=MIGRATIONS, head=HEAD).dispose()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    open_database(tmp_path / "db", migrations=MIGRATIONS, head=HEAD).dispose()
    with sqlite3.connect(tmp_path / "db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(LedgerError, match="newer version"):
        open_database(tmp_path / "db", migrations=MIGRATIONS, head=HEAD)
