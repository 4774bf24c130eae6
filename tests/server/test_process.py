"""The process: its lock, its state file, its signals, and what survives its death."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from anyio import to_thread
from pydantic import SecretStr

from agentlin_bridge.errors import BridgeError, ConfigurationError, LedgerError
from agentlin_bridge.server.activity import Activity
from agentlin_bridge.server.process import ServeOptions, serve
from agentlin_bridge.server.state_file import remove_state, write_state

from .agents import Gated, eventually
from .conftest import Serving

PROGRAM = """
import logging, sys
from pathlib import Path
import anyio
from pydantic import SecretStr
from agentlin_bridge.server.agent import Step, answer
from agentlin_bridge.server.process import ServeOptions, serve

logging.basicConfig(level="INFO")
here = Path(sys.argv[1])

class Waiting:
    name = "waiting agent"
    description = "stays in its turn until there is a file named gate"
    max_steps = 5

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass

    def owns(self, name):
        return False

    async def step(self, conversation, voice):
        with (here / "entered").open("a") as file:
            file.write("x")
        while not (here / "gate").exists():
            await anyio.sleep(0.01)
        return Step((answer("done"),))

anyio.run(serve, ServeOptions(
    database=here / "server.sqlite",
    api_key=SecretStr("very secret"),
    state_file=here / "state.json",
    idle_exit=float(sys.argv[2]) if sys.argv[2:] else None,
    agent=Waiting(),
))
"""


class Process:
    """A server in a process of its own."""

    def __init__(self, here: Path, *arguments: str) -> None:
        self.here = here
        command = [sys.executable, "-c", PROGRAM, str(here), *arguments]
        self.popen = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, encoding="utf-8"
        )

    @property
    def state_path(self) -> Path:
        return self.here / "state.json"

    def client(self) -> httpx.Client:
        """A client, once the server listens."""
        eventually(lambda: self._pid_in_state() == self.popen.pid, seconds=30)
        state = json.loads(self.state_path.read_text())
        return httpx.Client(
            base_url=state["base_url"], headers={"Authorization": f"Bearer {state['api_key']}"}, timeout=20
        )

    def _pid_in_state(self) -> int | None:
        assert self.popen.poll() is None, self.popen.communicate()
        return json.loads(self.state_path.read_text())["pid"] if self.state_path.exists() else None

    def ended(self) -> tuple[int, str, str]:
        """Exit status, stdout and stderr, once it has ended."""
        out, err = self.popen.communicate(timeout=30)
        return self.popen.returncode, out, err


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    with ExitStack() as stack:

        def start(*arguments: str) -> Process:
            process = Process(tmp_path, *arguments)
            stack.enter_context(process.popen)
            stack.callback(process.popen.kill)
            return process

        yield start


def creating(client: httpx.Client, pool: ThreadPoolExecutor, **body: Any) -> Any:
    return pool.submit(client.post, "tasks", json={"user_message_content": "go", **body})


def test_a_killed_servers_run_is_finished_by_the_next(launch: Callable[..., Process], tmp_path: Path) -> None:
    first = launch()
    with ThreadPoolExecutor() as pool, first.client() as client:
        lost = [creating(client, pool, task_id=f"task_{n}", session_id="s") for n in range(2)]
        eventually((tmp_path / "entered").exists)
        eventually(lambda: len(client.get("tasks").json()["result"]) == 2)
        first.popen.send_signal(signal.SIGKILL)
        assert all(isinstance(made.exception(20), httpx.TransportError) for made in lost)
    first.ended()
    (tmp_path / "gate").touch()
    second = launch()
    with second.client() as client:
        for number in range(2):
            again = client.post(
                "tasks", json={"user_message_content": "go", "task_id": f"task_{number}", "session_id": "s"}
            )
            assert again.json()["result"]["status"] == "completed"
        assert len(client.get("tasks").json()["result"]) == 2
    assert (tmp_path / "entered").read_text() == "xxx", "one run was cut off and run again, the other ran once"


def test_sigterm_leaves_in_good_order_and_keeps_the_run(launch: Callable[..., Process], tmp_path: Path) -> None:
    process = launch()
    with ThreadPoolExecutor() as pool, process.client() as client:
        assert stat.S_IMODE(process.state_path.stat().st_mode) == 0o600
        made = creating(client, pool, task_id="task_1")
        eventually((tmp_path / "entered").exists)
        process.popen.send_signal(signal.SIGTERM)
        answer = made.result(20)
        assert answer.status_code == 503
        assert "goes on when it starts again" in answer.json()["error"]["message"]
    code, out, err = process.ended()
    assert (code, out) == (0, "")
    assert "serving waiting agent at http://127.0.0.1:" in err
    assert "very secret" not in err
    assert "Traceback" not in err
    assert not process.state_path.exists()
    (tmp_path / "gate").touch()
    with launch().client() as client:
        eventually(lambda: client.get("tasks/task_1").json()["result"]["status"] == "completed")


def test_it_leaves_by_itself_when_nobody_needs_it(launch: Callable[..., Process], tmp_path: Path) -> None:
    process = launch("1")
    with ThreadPoolExecutor() as pool, process.client() as client:
        made = creating(client, pool)
        eventually((tmp_path / "entered").exists)
        with pytest.raises(subprocess.TimeoutExpired):
            process.popen.wait(1.5)  # a running task keeps it
        (tmp_path / "gate").touch()
        assert made.result(20).json()["result"]["status"] == "completed"
    code, out, err = process.ended()
    assert (code, out) == (0, "")
    assert "idle" in err
    assert not process.state_path.exists()


def test_a_database_has_one_owner(launch: Callable[..., Process]) -> None:
    first = launch()
    with first.client() as client:
        second = launch()
        code, out, err = second.ended()
        assert (code, out) == (1, "")
        assert "Another agentlin-bridge server owns" in err
        assert client.get("tasks").status_code == 200
        assert json.loads(first.state_path.read_text())["pid"] == first.popen.pid


def refusal(options: ServeOptions) -> BridgeError:
    with pytest.raises(BridgeError) as caught:
        anyio.run(serve, options)
    return caught.value


def test_the_lock_holds_within_one_process_too(serving: Serving, tmp_path: Path) -> None:
    serving(database=tmp_path / "db")
    error = refusal(ServeOptions(database=tmp_path / "db"))
    assert isinstance(error, ConfigurationError)
    assert error.next_step


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::"])
def test_without_a_key_it_listens_on_loopback_only(tmp_path: Path, host: str) -> None:
    error = refusal(ServeOptions(database=tmp_path / "db", host=host))
    assert "Without a key" in error.message
    assert not (tmp_path / "db").exists()


def test_with_a_key_it_listens_everywhere(serving: Serving) -> None:
    server = serving(api_key="k", host="0.0.0.0")
    assert server.url.startswith("http://127.0.0.1:")
    assert server.get("tasks").status_code == 200


def test_ipv6(serving: Serving) -> None:
    server = serving(host="::1")
    assert server.url.startswith("http://[::1]:")
    assert server.get("tasks").status_code == 200


def test_unusable_settings_are_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no database, but long enough to be taken for a broken one" * 100)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}" in refusal(ServeOptions(database=tmp_path / "db", port=port)).message
    assert "key is empty" in refusal(ServeOptions(database=tmp_path / "db", api_key=SecretStr(""))).message
    assert "'mysql'" in refusal(ServeOptions(database="mysql://host/name")).message
    unreachable = refusal(ServeOptions(database="postgresql://user:secret@127.0.0.1:1/name"))
    assert isinstance(unreachable, LedgerError)
    assert "cannot be reached" in unreachable.message
    assert "secret" not in unreachable.message
    assert "workers" in refusal(ServeOptions(database=tmp_path / "db", workers=2)).message
    assert "cannot be used" in refusal(ServeOptions(database=file / "db")).message
    assert isinstance(refusal(ServeOptions(database=file)), LedgerError)
    state = refusal(ServeOptions(database=tmp_path / "db", state_file=file / "state.json"))
    assert "state file" in state.message


def test_the_state_file_of_another_server_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state.json"
    write_state(path, base_url="http://127.0.0.1:1/v1", api_key=None, version="1")
    assert json.loads(path.read_text()) == {
        "pid": os.getpid(),
        "base_url": "http://127.0.0.1:1/v1",
        "api_key": None,
        "version": "1",
    }
    mine = path.read_text()
    for other in (mine.replace(str(os.getpid()), "1"), "[]", "{"):
        path.write_text(other)
        remove_state(path)
        assert path.read_text() == other
    path.write_text(mine)
    remove_state(path)
    remove_state(path)
    assert list(path.parent.iterdir()) == []


def test_a_state_file_that_cannot_be_put_in_place_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "state.json").mkdir()
    with pytest.raises(OSError, match=r"state\.json"):
        write_state(tmp_path / "state.json", base_url="", api_key=None, version="1")
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_a_restart_keeps_everything(serving: Serving, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def once(make: bool) -> list[Any]:
        async with anyio.create_task_group() as group, httpx.AsyncClient(timeout=10) as client:
            url = await group.start(serve, ServeOptions(database=tmp_path / "kept", api_key=SecretStr("hidden")))
            client.headers["Authorization"] = "Bearer hidden"
            if make:
                await client.post(f"{url}/tasks", json={"user_message_content": "hello", "task_id": "task_1"})
            tasks: list[Any] = (await client.get(f"{url}/tasks")).json()["result"]
            group.cancel_scope.cancel()
        return tasks

    first = anyio.run(once, True)
    assert [task["id"] for task in first] == ["task_1"]
    assert anyio.run(once, False) == first
    assert "serving demo agent" in caplog.text
    assert "hidden" not in caplog.text


@pytest.mark.anyio
async def test_a_run_that_was_left_is_taken_up_with_the_whole_conversation(tmp_path: Path) -> None:
    agent = Gated()
    body = {"user_message_content": "a", "task_id": "task_1", "session_id": "s"}
    async with httpx.AsyncClient(timeout=10) as client:
        async with anyio.create_task_group() as group:
            url = await group.start(serve, ServeOptions(database=tmp_path / "db", agent=agent))
            group.start_soon(partial(client.post, f"{url}/tasks", json=body))
            await to_thread.run_sync(agent.entered.wait, 10)
            group.cancel_scope.cancel()
        agent.gate.set()
        async with anyio.create_task_group() as group:
            url = await group.start(serve, ServeOptions(database=tmp_path / "db", agent=agent))
            again = await client.post(f"{url}/tasks", json=body)
            assert again.json()["result"]["output"][0]["content"] == "done: a"
            group.cancel_scope.cancel()
    assert agent.seen == ["a", "a"]


@pytest.mark.anyio
async def test_idleness_counts_from_the_last_activity() -> None:
    activity = Activity()
    left = anyio.Event()

    async def leave() -> None:
        await activity.idle(0.1)
        left.set()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            with activity.going_on():
                group.start_soon(leave)
                with anyio.move_on_after(0.3), activity.going_on():
                    await left.wait()
                assert not left.is_set()
            started = anyio.current_time()
            await left.wait()
            assert anyio.current_time() - started >= 0.1
