"""A task that expires: who waits for it is told what became of the remote run."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from agentlin_bridge import Task, TaskBridge, TaskStatus
from agentlin_bridge.remote.agentlin.backend import AgentlinBackend
from agentlin_bridge.remote.agentlin.dialect import Dialect
from agentlin_bridge.remote.agentlin.endpoint import Address, FixedEndpoint
from agentlin_bridge.task import RemoteOutcome
from tests.support.remote import ScriptedRemote, Turn

pytestmark = pytest.mark.anyio


class Slow(AgentlinBackend):
    """Takes its time to cancel."""

    def __init__(self, base_url: str) -> None:
        super().__init__(FixedEndpoint(Address(base_url)), dialect=Dialect.DOCUMENTED)
        self.gate = anyio.Event()

    async def cancel(self, remote_id: str, *, stream_closed: bool = False) -> RemoteOutcome:
        await self.gate.wait()
        return await super().cancel(remote_id, stream_closed=stream_closed)


async def test_a_wait_ends_when_the_remote_has_been_told(tmp_path: Path) -> None:
    waited: list[Task] = []
    with anyio.fail_after(20):
        async with ScriptedRemote(lambda body: Turn(gate=anyio.Event())).serve() as remote:
            backend = Slow(remote.base_url)
            async with (
                TaskBridge(backend, ledger=tmp_path / "ledger.sqlite3") as bridge,
                anyio.create_task_group() as group,
            ):
                task = await bridge.create("slow", deadline=0.3)

                async def wait() -> None:
                    waited.append(await bridge.wait(task.id))

                group.start_soon(wait)
                while (seen := await bridge.retrieve(task.id)).status is not TaskStatus.EXPIRED:
                    await anyio.lowlevel.checkpoint()
                # Whoever only looks sees at once that it is over.
                assert (seen.remote, waited) == (None, [])
                backend.gate.set()
    (task,) = waited
    assert (task.status, task.remote) == (TaskStatus.EXPIRED, "stopped")


async def test_a_wait_for_a_task_that_expired_there_does_not_last(tmp_path: Path) -> None:
    with anyio.fail_after(20):
        async with ScriptedRemote(lambda body: Turn(status="expired")).serve() as remote:
            backend = AgentlinBackend(FixedEndpoint(Address(remote.base_url)))
            async with TaskBridge(backend, ledger=tmp_path / "ledger.sqlite3") as bridge:
                task = await bridge.run("x")
                assert (task.status, task.remote) == (TaskStatus.EXPIRED, None)
                assert (await bridge.wait(task.id)).status is TaskStatus.EXPIRED
