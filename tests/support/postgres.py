"""A PostgreSQL of the tests' own, on a free loopback port, gone with them."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

INSTALL = "apt-get install --yes postgresql"
_SERVANTS = ("postgres", "nobody")


class Postgres:
    """A running server. Every database it makes is empty."""

    def __init__(self, port: int) -> None:
        self._port = port

    @property
    def address(self) -> str:
        """The URL of its maintenance database."""
        return self._url("postgres")

    def new_database(self) -> str:
        """The URL of a database nobody else uses."""
        name = f"test_{uuid4().hex}"
        with psycopg.connect(self.address, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self._url(name)

    def _url(self, name: str) -> str:
        return f"postgresql://tester@127.0.0.1:{self._port}/{name}"


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Start a server; it ends with the context.

    Skips the test that asks for it where there is no PostgreSQL, with the command that installs one.
    """
    binaries = _binaries()
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="postgres-") as directory:
        data = Path(directory) / "data"
        prefix = _as_servant(Path(directory))
        run = [*prefix, str(binaries / "initdb"), "--no-sync", "--auth=trust", "--username=tester", "-E", "UTF8"]
        _do([*run, "--pgdata", str(data)], directory)
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {directory} -c max_connections=200"
        control = [*prefix, str(binaries / "pg_ctl"), "--pgdata", str(data), "--wait", "--log", f"{directory}/log"]
        _do([*control, "-o", options, "start"], directory)
        try:
            yield Postgres(port)
        finally:
            _do([*control, "--mode=immediate", "stop"], directory)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL of the test session's own; import it to where it is used."""
    with running_postgres() as server:
        yield server


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    for directory in found:
        if (directory / "initdb").exists():
            return directory
    initdb = shutil.which("initdb")
    if initdb is None:
        pytest.skip(f"there is no PostgreSQL to test with; install one: {INSTALL}")
    return Path(initdb).resolve().parent


def _as_servant(directory: Path) -> list[str]:
    """PostgreSQL refuses to be run by root: somebody else has to, who then owns the directory."""
    if os.geteuid() != 0:
        return []
    for name in _SERVANTS:
        try:
            servant = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(directory, servant.pw_uid, servant.pw_gid)
        return ["setpriv", f"--reuid={servant.pw_uid}", f"--regid={servant.pw_gid}", "--clear-groups"]
    pytest.fail("root cannot run PostgreSQL, and there is neither a user postgres nor nobody")


def _do(command: list[str], directory: str) -> None:
    # The server inherits what pg_ctl was given: a pipe would stay open as long as it runs.
    with open(f"{directory}/output", "w+b") as output:
        done = subprocess.run(
            command,
            check=False,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=60,
        )
        output.seek(0)
        assert done.returncode == 0, output.read().decode(errors="replace")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port
