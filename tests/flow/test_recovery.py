"""Kill -9: the task is there afterwards, and ends; nothing runs or arrives twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from agentlin_bridge import Task, TaskStatus
from tests.support.processes import subprocess_environment
from tests.support.remote import Json, ScriptedRemote, Turn, call, message, results_of

pytestmark = pytest.mark.anyio


def acting(body: Json) -> Turn:
    results = results_of(body)
    return Turn([message(results["c"])] if results else [call("c", "act", {"what": "it"})])


@pytest.fixture
async def remote() -> AsyncIterator[ScriptedRemote]:
    with anyio.fail_after(60):
        async with ScriptedRemote(acting).serve() as listening:
            yield listening


class Delegate:
    """A delegating process."""

    def __init__(self, process: Process) -> None:
        assert process.stdout is not None
        self.process = process
        self._out = BufferedByteReceiveStream(process.stdout)

    @classmethod
    async def start(cls, remote: ScriptedRemote, ledger: Path, task: str, *arguments: str) -> Delegate:
        command = [sys.executable, "-m", "tests.support.delegate", remote.base_url, str(ledger), task, *arguments]
        process = await anyio.open_process(
            command, stderr=None, stdin=subprocess.DEVNULL, env=subprocess_environment(), cwd=Path(__file__).parents[2]
        )
        return cls(process)

    async def line(self) -> str:
        return (await self._out.receive_until(b"\n", 2**20)).decode()

    async def result(self) -> Task:
        await self.line()
        task = Task.model_validate_json(await self.line())
        assert await self.process.wait() == 0
        await self.process.aclose()
        return task

    async def killed(self, *, by_us: bool = True) -> str:
        task_id = await self.line()
        if by_us:
            self.process.kill()
        assert await self.process.wait() == -signal.SIGKILL
        await self.process.aclose()
        return task_id


def acts(ledger: Path) -> list[str]:
    file = Path(f"{ledger}.acts")
    return file.read_text(encoding="utf-8").split() if file.exists() else []


async def test_killed_while_the_first_round_runs(remote: ScriptedRemote, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite3"
    gate = anyio.Event()

    async def slow(body: Json) -> Turn:
        turn = acting(body)
        turn.gate = gate
        return turn

    remote.agent = slow
    first = await Delegate.start(remote, ledger, "new", "answer")
    await remote.posted.wait()
    task_id = await first.killed()
    gate.set()
    task = await (await Delegate.start(remote, ledger, task_id, "answer")).result()
    assert task.id == task_id
    assert task.answer == "did it"
    assert acts(ledger) == ["it"]
    assert len(remote.posts) == 2


async def test_killed_inside_a_handler(remote: ScriptedRemote, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite3"
    task_id = await (await Delegate.start(remote, ledger, "new", "die")).killed(by_us=False)
    task = await (await Delegate.start(remote, ledger, task_id, "answer")).result()
    assert task.status is TaskStatus.INPUT_REQUIRED
    assert [(c.call_id, c.name, c.outcome_unknown) for c in task.pending] == [("c", "act", True)]
    assert acts(ledger) == ["it"], "a handler that may have run was run again"


async def test_an_idempotent_handler_runs_again(remote: ScriptedRemote, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite3"
    task_id = await (await Delegate.start(remote, ledger, "new", "die", "--idempotent")).killed(by_us=False)
    task = await (await Delegate.start(remote, ledger, task_id, "answer", "--idempotent")).result()
    assert task.answer == "did it"
    assert acts(ledger) == ["it", "it"]
    assert len(remote.posts) == 2


async def test_killed_while_the_result_is_delivered(remote: ScriptedRemote, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite3"
    gate = anyio.Event()
    arrived = anyio.Event()

    async def slow(body: Json) -> Turn:
        turn = acting(body)
        if results_of(body):
            arrived.set()
            turn.gate = gate
        return turn

    remote.agent = slow
    first = await Delegate.start(remote, ledger, "new", "answer")
    await arrived.wait()
    task_id = await first.killed()
    gate.set()
    task = await (await Delegate.start(remote, ledger, task_id, "answer")).result()
    assert task.answer == "did it"
    assert acts(ledger) == ["it"]
    assert len(remote.posts) == 2


async def test_killed_before_the_result_is_delivered(remote: ScriptedRemote, tmp_path: Path) -> None:
    """The continuation is claimed, but the remote never got it: it is sent once more, under the same id."""
    ledger = tmp_path / "ledger.sqlite3"
    dropped: list[Json] = []
    arrived = anyio.Event()

    async def deaf(body: Json) -> Turn:
        if results_of(body) and not dropped:
            dropped.append(body)
            arrived.set()
            await anyio.sleep_forever()
        return acting(body)

    remote.agent = deaf
    first = await Delegate.start(remote, ledger, "new", "answer")
    await arrived.wait()
    task_id = await first.killed()
    task = await (await Delegate.start(remote, ledger, task_id, "answer")).result()
    assert task.answer == "did it"
    assert acts(ledger) == ["it"]
    assert [post["task_id"] for post in remote.posts[1:]] == [dropped[0]["task_id"]] * 2


async def test_two_processes_share_a_task(remote: ScriptedRemote, tmp_path: Path) -> None:
    """One created it and has no handler; the other, at the same time, executes and both see the end."""
    ledger = tmp_path / "ledger.sqlite3"
    gate = anyio.Event()

    async def slow(body: Json) -> Turn:
        turn = acting(body)
        if results_of(body):
            turn.gate = gate
        return turn

    remote.agent = slow
    first = await Delegate.start(remote, ledger, "new", "none")
    task_id = json.loads(json.dumps((await first.line()).strip()))
    waiting = Task.model_validate_json(await first.line())
    assert [c.call_id for c in waiting.pending] == ["c"]
    second = await Delegate.start(remote, ledger, task_id, "answer")
    third = await Delegate.start(remote, ledger, task_id, "answer")
    gate.set()
    assert (await second.result()).answer == "did it"
    assert (await third.result()).answer == "did it"
    await first.process.wait()
    await first.process.aclose()
    assert acts(ledger) == ["it"]
    assert len(remote.posts) == 2
