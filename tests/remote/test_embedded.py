"""The embedded server on demand: started once, shared, found again, started anew when it died."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from filelock import FileLock

from agentlin_bridge.errors import RemoteUnavailable
from agentlin_bridge.remote import embedded
from agentlin_bridge.remote.agentlin.backend import AgentlinBackend
from agentlin_bridge.remote.backend import StartRequest
from agentlin_bridge.remote.embedded import EmbeddedEndpoint
from agentlin_bridge.task import TaskStatus, TextContentItem
from tests.support.processes import embedded_server_pid, end_embedded_server, subprocess_environment, wait_until_gone

pytestmark = pytest.mark.anyio


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, value in subprocess_environment().items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "data" / "embedded.sqlite3"
    yield path
    end_embedded_server(path)


def request(task_id: str) -> StartRequest:
    return StartRequest(task_id, "sess_1", "user_1", [TextContentItem(text="hello")])


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


async def test_many_callers_start_one_server(database: Path) -> None:
    endpoints = [EmbeddedEndpoint(database) for _ in range(4)]
    addresses = []

    async def resolve(endpoint: EmbeddedEndpoint) -> None:
        addresses.append(await endpoint.resolve())
        addresses.append(await endpoint.resolve())

    with anyio.fail_after(40):
        async with anyio.create_task_group() as group:
            for endpoint in endpoints:
                group.start_soon(resolve, endpoint)
    assert len(addresses) == 8
    assert len({address.base_url for address in addresses}) == 1
    assert addresses[0].base_url.startswith("http://127.0.0.1:")
    key = addresses[0].api_key
    assert key is not None
    assert len(key.get_secret_value()) >= 32
    assert key.get_secret_value() not in repr(addresses[0])
    assert mode_of(Path(f"{database}.server.json")) == 0o600
    assert mode_of(database) == 0o600
    pid = embedded_server_pid(database)
    assert pid is not None
    assert os.getsid(pid) == pid, "the server must outlive the process group of its host"


async def test_a_killed_server_is_started_anew_with_its_tasks(database: Path) -> None:
    with anyio.fail_after(40):
        async with AgentlinBackend(EmbeddedEndpoint(database)) as backend:
            first = await backend.start(request("task_1"))
            pid = embedded_server_pid(database)
            assert pid is not None
            end_embedded_server(database, signal.SIGKILL)
            again = await backend.retrieve("task_1")
            assert embedded_server_pid(database) not in (None, pid)
            assert again.output == first.output
            assert (await backend.start(request("task_1"))).id == "task_1"


async def test_a_stale_state_file_leads_nowhere(database: Path) -> None:
    write(Path(f"{database}.server.json"), '{"pid": 1, "base_url": "http://127.0.0.1:1/v1", "api_key": "old"}')
    with anyio.fail_after(40):
        address = await EmbeddedEndpoint(database).resolve()
        assert address.base_url != "http://127.0.0.1:1/v1"


async def test_an_idle_server_leaves(database: Path) -> None:
    with anyio.fail_after(40):
        async with AgentlinBackend(EmbeddedEndpoint(database, idle_exit=0.2)) as backend:
            assert (await backend.start(request("task_1"))).status is not TaskStatus.FAILED
            pid = embedded_server_pid(database)
            if pid is not None:
                await anyio.to_thread.run_sync(wait_until_gone, pid)
            assert embedded_server_pid(database) is None
            assert (await backend.retrieve("task_1")).id == "task_1"


async def test_a_server_that_is_still_leaving_is_waited_for(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database.parent.mkdir()
    leaving = FileLock(f"{database}.lock", thread_local=False)
    leaving.acquire()
    starting = anyio.Path(f"{database}.starting.lock")
    with anyio.fail_after(40):
        async with anyio.create_task_group() as group:
            group.start_soon(EmbeddedEndpoint(database).resolve)
            while not await starting.exists():
                await anyio.lowlevel.checkpoint()
            assert embedded_server_pid(database) is None
            leaving.release()
        assert embedded_server_pid(database) is not None
    end_embedded_server(database)
    leaving.acquire()
    monkeypatch.setattr(embedded, "START_TIMEOUT", 0.2)
    with pytest.raises(RemoteUnavailable, match="owns its database but does not answer"):
        await EmbeddedEndpoint(database).resolve()
    leaving.release()


async def test_a_server_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = tmp_path / "embedded.sqlite3"
    write(database, "this is no database, but a text of more than a hundred characters " * 3)
    with anyio.fail_after(40):
        with pytest.raises(RemoteUnavailable, match=r"ended with exit status 2: .*cannot be opened.* Next: see "):
            await EmbeddedEndpoint(database).resolve()
        monkeypatch.setattr(embedded, "START_TIMEOUT", 0.0)
        with pytest.raises(RemoteUnavailable, match="did not answer within 0 seconds"):
            await EmbeddedEndpoint(tmp_path / "other.sqlite3").resolve()
