"""The embedded server's address: found in its state file, or started on demand.

The server is a process of its own that outlives us. It writes its address and a random key into a file
beside its database that only the user can read; every local bridge shares it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
from filelock import FileLock, Timeout
from pydantic import BaseModel, SecretStr, ValidationError

from agentlin_bridge.errors import RemoteUnavailable
from agentlin_bridge.remote.agentlin.endpoint import Address

START_TIMEOUT = 30.0
"""Seconds the server may take until it answers."""

IDLE_EXIT = 600.0
"""Seconds without a request and without a running task after which the server leaves."""

_LOG_TAIL = 300


class _State(BaseModel):
    pid: int
    base_url: str
    api_key: SecretStr


class EmbeddedEndpoint:
    """Finds the embedded server of a database, and starts it when there is none.

    Args:
        database: the server's SQLite file; its state, lock and log files stand beside it.
        idle_exit: seconds of idleness after which a server started here leaves.
        environment: added to this process's own for a server started here.
    """

    def __init__(
        self, database: Path, *, idle_exit: float = IDLE_EXIT, environment: Mapping[str, str] | None = None
    ) -> None:
        self._environment = dict(environment or {})
        self._database = database.absolute()
        self._state_file = Path(f"{self._database}.server.json")
        self._log_file = Path(f"{self._database}.log")
        self._idle_exit = idle_exit
        self._address: Address | None = None
        self._starting = anyio.Lock()

    is_local = True

    @property
    def place(self) -> str:
        return str(self._database)

    async def resolve(self) -> Address:
        async with self._starting:
            if self._address is None:
                self._address = await self._find_or_start()
            return self._address

    async def renew(self, failed: Address) -> Address | None:
        async with self._starting:
            if self._address == failed:
                self._address = await self._find_or_start()
            return self._address

    async def _find_or_start(self) -> Address:
        deadline = time.monotonic() + START_TIMEOUT
        if (address := await self._running()) is not None:
            return address
        lock = FileLock(f"{self._database}.starting.lock", thread_local=False)
        await anyio.to_thread.run_sync(self._acquire, lock)
        try:
            # Somebody else may have started it while we waited for the lock; or the last one is still leaving.
            while (address := await self._running()) is None and await anyio.to_thread.run_sync(self._is_owned):
                if time.monotonic() >= deadline:
                    raise self._unavailable("owns its database but does not answer")
                await anyio.sleep(0.1)
            if address is not None:
                return address
            process = await anyio.to_thread.run_sync(self._spawn)
            while time.monotonic() < deadline:
                if (address := await self._running()) is not None:
                    return address
                if process.poll() is not None:
                    raise self._unavailable(f"ended with exit status {process.returncode}")
                await anyio.sleep(0.05)
            process.terminate()
            raise self._unavailable(f"did not answer within {START_TIMEOUT:.0f} seconds")
        finally:
            lock.release()

    def _is_owned(self) -> bool:
        lock = FileLock(f"{self._database}.lock", thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return True
        lock.release()
        return False

    def _acquire(self, lock: FileLock) -> None:
        self._database.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            lock.acquire(timeout=START_TIMEOUT)
        except Timeout as error:
            raise self._unavailable("is being started by another process, which does not get on") from error

    async def _running(self) -> Address | None:
        try:
            state = _State.model_validate_json(await anyio.Path(self._state_file).read_bytes())
        except (OSError, ValidationError):
            return None
        address = Address(state.base_url, state.api_key)
        # The key decides whether it is our server that listens there now.
        headers = {"Authorization": f"Bearer {state.api_key.get_secret_value()}"}
        try:
            async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
                answer = await client.get(f"{state.base_url}/tasks", params={"limit": 1}, headers=headers)
        except httpx.HTTPError:
            return None
        return address if answer.is_success else None

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-P",  # nothing beside the database is importable
            "-m",
            "agentlin_bridge",
            "serve",
            "--database",
            str(self._database),
            "--on-demand",
            "--idle-exit",
            str(self._idle_exit),
        ]
        log = os.open(self._log_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            # A session of its own: a host that ends its process group must not end the server.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **self._environment},
                cwd=self._database.parent,
            )
        finally:
            os.close(log)
        # Should it end before us, somebody has to take its exit status, or it stays as a zombie.
        threading.Thread(target=process.wait, name="embedded-server", daemon=True).start()
        return process

    def _unavailable(self, what: str) -> RemoteUnavailable:
        try:
            tail = self._log_file.read_text(encoding="utf-8", errors="replace").strip()[-_LOG_TAIL:]
        except OSError:
            tail = ""
        cause = f": {tail.splitlines()[-1]}" if tail else ""
        return RemoteUnavailable(
            f"The embedded server {what}{cause}.",
            next_step=f"see {self._log_file}, or set AGENTLIN_BASE_URL to use a deployment",
        )
