"""A task that was written down and never sent: whoever finds it sends it at once, and once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import SecretStr

from agentlin_bridge import Limits, TaskBridge, TaskStatus
from agentlin_bridge.delegation.ledger import reading, writing
from agentlin_bridge.delegation.ledger.ledger import Ledger
from agentlin_bridge.remote.agentlin.backend import AgentlinBackend
from agentlin_bridge.remote.agentlin.dialect import Dialect
from agentlin_bridge.remote.agentlin.endpoint import Address, FixedEndpoint
from agentlin_bridge.remote.backend import TaskBackend
from agentlin_bridge.remote.nla_engine.backend import NlaEngineBackend
from tests.support.nla_engine import NlaEngine
from tests.support.processes import subprocess_environment
from tests.support.remote import ScriptedRemote, Turn, message

pytestmark = pytest.mark.anyio

PATIENT = Limits(settle=600)
"""Whoever looks a task up has not given up looking when the test does."""


class StuckLedger(Ledger):
    """Of a bridge that never gets to send anything."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.stuck = anyio.Event()

    async def write(self, function: Any, /, *arguments: Any, **keywords: Any) -> Any:
        if function is writing.mark_sending:
            self.stuck.set()
            await anyio.sleep_forever()
        return await super().write(function, *arguments, **keywords)


class BusyLedger(Ledger):
    """Of a bridge whose predecessor is about to send, and dies, at the very moment its task is taken over."""

    async def write(self, function: Any, /, *arguments: Any, **keywords: Any) -> Any:
        if function is writing.take_over:
            task = await self.read(reading.load, arguments[0])
            assert task is not None
            fence, owner = task.current.fence, task.current.owner
            await super().write(writing.mark_sending, task.id, 1, fence=fence, owner=owner)
        return await super().write(function, *arguments, **keywords)


def agentlin(base_url: str) -> TaskBackend:
    return AgentlinBackend(FixedEndpoint(Address(base_url)), dialect=Dialect.DOCUMENTED)


def nla(base_url: str) -> TaskBackend:
    return NlaEngineBackend(base_url, SecretStr("engine-key"), agent_id="writer")


async def left_unsent(backend: TaskBackend, ledger: Path) -> str:
    """A task whose bridge has left before it could send it."""
    stuck = StuckLedger(ledger)
    async with TaskBridge(backend, ledger=stuck) as bridge:
        task = await bridge.create("x")
        assert task.status is TaskStatus.CREATED
        await stuck.stuck.wait()
    return task.id


@pytest.mark.parametrize(
    ("remote", "backend", "starts"),
    [
        (ScriptedRemote(lambda body: Turn([message("done")])), agentlin, lambda remote: remote.posts),
        # It cannot be looked up there: it would be unknown whether it runs.
        (NlaEngine(), nla, lambda remote: remote.starts),
    ],
)
async def test_it_is_sent_without_being_looked_up(
    tmp_path: Path, remote: Any, backend: Callable[[str], TaskBackend], starts: Callable[[Any], list[Any]]
) -> None:
    ledger = tmp_path / "ledger.sqlite3"
    with anyio.fail_after(20):
        async with remote.serve():
            task_id = await left_unsent(backend(remote.base_url), ledger)
            assert remote.requests == []
            async with TaskBridge(backend(remote.base_url), ledger=ledger, limits=PATIENT) as bridge:
                task = await bridge.wait(task_id)
    assert task.status is TaskStatus.COMPLETED
    assert len(starts(remote)) == 1


async def test_its_process_was_killed(tmp_path: Path) -> None:
    """Before the request was marked as being sent it is sent, after that it is looked up first."""
    remote = ScriptedRemote(lambda body: Turn([message("done")]))
    ledger = tmp_path / "ledger.sqlite3"
    with anyio.fail_after(60):
        async with remote.serve():
            for when, settle, first in (("before", 600, "POST /tasks"), ("after", 0.2, "GET /tasks/{}")):
                await killed(remote.base_url, ledger, when)
                remote.requests.clear()
                async with TaskBridge(agentlin(remote.base_url), ledger=ledger, limits=Limits(settle=settle)) as bridge:
                    (left,) = [task async for task in bridge.list(limit=1)]
                    assert left.status is (TaskStatus.CREATED if when == "before" else TaskStatus.WORKING)
                    assert (await bridge.wait(left.id)).answer == "done"
                assert remote.requests[0] == first.format(left.id)
                assert remote.requests.count("POST /tasks") == 1


async def killed(base_url: str, ledger: Path, when: str) -> None:
    """Create a task in a process that kills itself before or after it marks the task as being sent."""
    options = {
        "url": base_url,
        "ledger": str(ledger),
        "acts": f"{ledger}.acts",
        "handler": "none",
        "die_at": ["mark_sending", when],
    }
    process = await anyio.open_process(
        [sys.executable, "-m", "tests.flow.bridge_process", json.dumps(options)],
        stdout=subprocess.DEVNULL,
        stderr=None,
        env=subprocess_environment(),
        cwd=Path(__file__).parents[2],
    )
    async with process:
        assert process.stdin is not None
        await process.stdin.send(b'[1, "run", ["x"], {}]\n')
        assert await process.wait() == -signal.SIGKILL


async def test_who_was_about_to_send_it_may_have_done_so(tmp_path: Path) -> None:
    """Then it is looked up, whatever the ledger said when it was read."""
    remote = ScriptedRemote(lambda body: Turn([message("done")]))
    path = tmp_path / "ledger.sqlite3"
    with anyio.fail_after(20):
        async with remote.serve():
            task_id = await left_unsent(agentlin(remote.base_url), path)
            busy = TaskBridge(agentlin(remote.base_url), ledger=BusyLedger(path), limits=Limits(settle=0.2))
            async with busy as bridge:
                assert (await bridge.wait(task_id)).answer == "done"
    assert remote.requests[0] == f"GET /tasks/{task_id}"
    assert len(remote.posts) == 1


async def test_a_living_process_sends_it_itself(tmp_path: Path) -> None:
    remote = ScriptedRemote(lambda body: Turn([message("done")]))
    path = tmp_path / "ledger.sqlite3"
    stuck = StuckLedger(path)
    with anyio.fail_after(20):
        async with (
            remote.serve(),
            TaskBridge(agentlin(remote.base_url), ledger=stuck) as first,
            TaskBridge(agentlin(remote.base_url), ledger=path, limits=Limits(settle=0.1)) as second,
        ):
            task = await first.create("x")
            await stuck.stuck.wait()
            waited = await second.wait(task.id, timeout=0.5)
            assert waited.status is TaskStatus.CREATED
    assert remote.posts == []
