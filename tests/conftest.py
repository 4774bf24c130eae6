"""Fixtures for all tests: an isolated environment, one event loop library, an embedded server that ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import end_embedded_server


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test sees the developer's settings, or writes into their data directory."""
    for name in list(os.environ):
        if name.startswith(("AGENTLIN_", "CLIENT_BASE_URL", "NLA_ENGINE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.getbasetemp() / "data-home"))


@pytest.fixture(scope="session")
def embedded_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The database of one embedded server shared by all tests that do not care which; ended at the end."""
    database = tmp_path_factory.mktemp("embedded") / "embedded.sqlite3"
    yield database
    end_embedded_server(database)


@pytest.fixture
def embedded(embedded_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a process that uses the shared embedded server and a ledger of its own."""
    settings = {
        "AGENTLIN_BRIDGE_LEDGER": str(tmp_path / "ledger.sqlite3"),
        "AGENTLIN_BRIDGE_DATABASE": str(embedded_database),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return settings
