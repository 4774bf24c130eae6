"""The tests of the ledger run on SQLite and, where there is one, on PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.postgres import Postgres
from tests.support.postgres import postgres as postgres  # noqa: PLC0414 - a fixture


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new ledger can be."""
    if request.param == "sqlite":
        return str(tmp_path / "ledger.sqlite3")
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def on_postgres(postgres: Postgres) -> str:
    """Where a new ledger on PostgreSQL can be."""
    return postgres.new_database()
