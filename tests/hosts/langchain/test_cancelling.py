"""Cancelling a call cancels its task, also remotely, whatever becomes of the caller's loop."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from langchain_core.tools import tool

from agentlin_bridge import TaskBridge, TaskStatus
from agentlin_bridge.hosts.langchain import AgentlinTaskTool

from .conftest import MakeTool
from .remote import Remote

TAKE_LONG = {"instructions": "Take long"}


async def cancelled_once_it_hangs(delegate: AgentlinTaskTool, remote: Remote) -> None:
    call = asyncio.ensure_future(delegate.ainvoke(TAKE_LONG))
    assert await anyio.to_thread.run_sync(remote.hanging.wait, 20)
    call.cancel()
    # Once more while the first is on its way.
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def statuses() -> list[TaskStatus]:
    async with TaskBridge.from_env() as bridge:
        return [task.status async for task in bridge.list()]


@pytest.mark.anyio
async def test_the_remote_is_told(task_tool: MakeTool, remote: Remote) -> None:
    remote.hangs = True
    with anyio.fail_after(30):
        await cancelled_once_it_hangs(task_tool(), remote)
        assert await anyio.to_thread.run_sync(remote.told_to_cancel.wait, 10)
        assert await statuses() == [TaskStatus.CANCELED]


def test_the_remote_is_told_though_the_loop_is_closed(task_tool: MakeTool, remote: Remote) -> None:
    remote.hangs = True
    asyncio.run(cancelled_once_it_hangs(task_tool(), remote))
    assert remote.told_to_cancel.wait(10)


def test_the_remote_is_told_though_the_tool_is_closed(task_tool: MakeTool, remote: Remote) -> None:
    remote.hangs = True
    delegate = task_tool()
    asyncio.run(cancelled_once_it_hangs(delegate, remote))
    delegate.close()
    assert remote.told_to_cancel.is_set()


@pytest.mark.anyio
async def test_a_batch_that_is_cancelled(task_tool: MakeTool, remote: Remote) -> None:
    remote.hangs = True
    delegate = task_tool()
    with anyio.fail_after(30):
        batch = asyncio.ensure_future(delegate.abatch([TAKE_LONG] * 3))
        while len(remote.posts) < 3:
            await anyio.lowlevel.checkpoint()
        batch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await batch
        await anyio.to_thread.run_sync(delegate.close)
    assert len([request for request in remote.requests if request.endswith("/cancel")]) == 3


@pytest.mark.anyio
async def test_a_host_tool_that_runs_is_cancelled_too(task_tool: MakeTool, remote: Remote) -> None:
    running = asyncio.Event()
    ended: list[str] = []

    @tool
    async def lasts() -> str:
        """Last."""
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return "never"

    remote.calls = [("lasts", "{}")]
    delegate = task_tool(lasts)
    with anyio.fail_after(30):
        call = asyncio.ensure_future(delegate.ainvoke(TAKE_LONG))
        await running.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await anyio.to_thread.run_sync(delegate.close)
        assert await statuses() == [TaskStatus.CANCELED]
    assert ended == ["cancelled"]


def test_an_interrupted_sync_call(task_tool: MakeTool, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while sync code waits."""
    from concurrent.futures import Future

    def interrupted(future: Future[Any], timeout: float | None = None) -> Any:
        assert remote.hanging.wait(20)
        raise KeyboardInterrupt

    remote.hangs = True
    delegate = task_tool()
    with monkeypatch.context() as patched:
        patched.setattr(Future, "result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            delegate.invoke(TAKE_LONG)
    assert remote.told_to_cancel.wait(10)


def test_a_sync_call_on_a_thread_is_not_hurt_by_others(task_tool: MakeTool, remote: Remote) -> None:
    remote.hangs = True
    delegate = task_tool()
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(delegate.invoke({"instructions": "Go on"})))
    thread.start()
    asyncio.run(cancelled_once_it_hangs(delegate, remote))
    thread.join(20)
    assert len(answers) == 1
