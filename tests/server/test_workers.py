"""Workers: they serve together, or the command ends and says why."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

import anyio
import pytest

from agentlin_bridge.errors import BridgeError, ConfigurationError, LedgerError
from agentlin_bridge.server import workers
from agentlin_bridge.server.agent import Agents, OneAgent
from agentlin_bridge.server.process import ServeOptions, serve
from tests.support.postgres import Postgres
from tests.support.processes import subprocess_environment

from .agents import Scripted, eventually, weather
from .conftest import Serving


class Noted(Scripted):
    """Writes down the processes it has been opened in."""

    def __init__(self, here: Path) -> None:
        super().__init__(weather)
        self._here = here

    async def __aenter__(self) -> Self:
        (self._here / str(os.getpid())).touch()
        return self


def noted(here: Path) -> Agents:
    return OneAgent(Noted(here))


def noted_unless_broken(here: Path) -> Agents:
    if (here / "broken").exists():
        raise ConfigurationError("There are no agents.", next_step="bring some")
    return noted(here)


def failing(exit_status: int) -> Agents:
    if exit_status:
        os._exit(exit_status)
    raise ValueError("nobody expects this")


def pids(here: Path) -> set[int]:
    return {int(path.name) for path in here.iterdir() if path.name.isdigit()}


def refusal(options: ServeOptions) -> BridgeError:
    async def run() -> None:
        with anyio.fail_after(60):
            await serve(options)

    with pytest.raises(BridgeError) as caught:
        anyio.run(run)
    return caught.value


def test_a_database_that_cannot_be_used_ends_the_command() -> None:
    database = "postgresql://user:secret@127.0.0.1:1/name"
    error = refusal(ServeOptions(database=database, workers=2))
    assert isinstance(error, LedgerError)
    command = [sys.executable, "-m", "agentlin_bridge", "serve", "--workers=2", f"--database={database}"]
    ended = subprocess.run(
        command, env=subprocess_environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert error.message in ended.stderr
    assert "secret" not in ended.stderr


def test_workers_that_cannot_serve_end_the_command(postgres: Postgres, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    agents = functools.partial(noted_unless_broken, tmp_path)
    error = refusal(ServeOptions(database=postgres.new_database(), agents=agents, workers=2))
    assert isinstance(error, ConfigurationError)
    assert (error.message, error.next_step) == ("There are no agents.", "bring some")


@pytest.mark.parametrize("status", [0, 3])
def test_workers_that_die_before_they_serve_end_the_command(postgres: Postgres, status: int) -> None:
    agents = functools.partial(failing, status)
    error = refusal(ServeOptions(database=postgres.new_database(), agents=agents, workers=2))
    assert f"status {status or 1} before it served" in error.message


def test_it_has_started_when_all_workers_serve(serving: Serving, postgres: Postgres, tmp_path: Path) -> None:
    agents = functools.partial(noted, tmp_path)
    server = serving(database=postgres.new_database(), agents=agents, workers=3)
    assert len(pids(tmp_path)) == 3
    assert server.make("Paris")["status"] == "input-required"


def test_a_worker_that_served_is_started_until_it_does_again(
    serving: Serving,
    postgres: Postgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(workers, "FAST", 0.1)
    agents = functools.partial(noted_unless_broken, tmp_path)
    server = serving(database=postgres.new_database(), agents=agents, workers=2)
    first = pids(tmp_path)
    (tmp_path / "broken").touch()
    os.kill(first.pop(), signal.SIGKILL)
    eventually(lambda: "cannot serve: There are no agents." in caplog.text, 30)
    (tmp_path / "broken").unlink()
    eventually(lambda: len(pids(tmp_path)) == 3, 30)
    assert server.make("Paris")["status"] == "input-required"
