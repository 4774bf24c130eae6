"""Waiting: progress for those who asked, and its end is never the end of the task."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from mcp import Client
from mcp_types import CallToolResult

from agentlin_bridge import TaskBridge
from agentlin_bridge.hosts.mcp import waiting
from agentlin_bridge.hosts.mcp.server import build_server
from tests.hosts.mcp.conftest import Host, Hosting
from tests.support.remote import ScriptedRemote, Turn
from tests.support.remote import message as said

pytestmark = pytest.mark.anyio


class Gated(ScriptedRemote):
    """Answers once it is let."""

    def __init__(self) -> None:
        super().__init__(lambda _: Turn([said("done")], gate=self.gate))
        self.gate = anyio.Event()


@pytest.fixture
async def remote() -> AsyncIterator[Gated]:
    with anyio.fail_after(60):
        async with Gated().serve() as listening:
            yield listening


@pytest.fixture
def settings(remote: Gated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    given = {"AGENTLIN_BASE_URL": remote.base_url, "AGENTLIN_BRIDGE_LEDGER": str(tmp_path / "ledger")}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return given


async def test_progress_tells_each_change_of_status(hosting: Hosting, settings: dict[str, str], remote: Gated) -> None:
    reports: list[tuple[float, str]] = []

    async def report(progress: float, total: float | None, message: str | None) -> None:
        reports.append((progress, (message or "").rpartition(" ")[2]))
        await remote.posted.wait()
        if len(reports) == 2:
            remote.gate.set()

    async with hosting(settings) as host:
        result = await host.client.call_tool(
            "agentlin_create_task", {"instructions": "Take your time."}, progress_callback=report
        )

    assert isinstance(result, CallToolResult)
    assert result.structured_content is not None
    assert result.structured_content["answer"] == "done"
    assert reports == [(1, "created"), (2, "working"), (3, "completed")]


async def test_progress_goes_on_while_nothing_changes(
    settings: dict[str, str], remote: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "SLICE", 0.01)
    reports: list[str] = []

    async def report(progress: float, total: float | None, message: str | None) -> None:
        reports.append((message or "").rpartition(" ")[2])
        if reports.count("working") == 3:
            remote.gate.set()

    async with Client(build_server(TaskBridge.from_env), mode="legacy") as client:
        await client.call_tool("agentlin_create_task", {"instructions": "Take long."}, progress_callback=report)

    assert reports.count("working") >= 3


async def test_progress_ends_with_the_hosts_patience(settings: dict[str, str], remote: Gated) -> None:
    async def report(progress: float, total: float | None, message: str | None) -> None: ...

    async with Client(build_server(TaskBridge.from_env), mode="legacy") as client:
        arguments = {"instructions": "Take longer.", "wait_seconds": 0.1}
        result = await client.call_tool("agentlin_create_task", arguments, progress_callback=report)
        assert isinstance(result, CallToolResult)
        assert result.structured_content is not None
        assert result.structured_content["status"] == "working"
        remote.gate.set()


async def finished(host: Host, remote: Gated) -> None:
    """The one task there is can still be had."""
    (task,) = (await host.ask("list_tasks"))["tasks"]
    remote.gate.set()
    assert (await host.ask("retrieve_task", task_id=task["task_id"], wait_seconds=20))["answer"] == "done"


async def test_a_client_that_gives_up_leaves_the_task_running(
    hosting: Hosting, settings: dict[str, str], remote: Gated
) -> None:
    async with hosting(settings) as host:
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: host.call("create_task", instructions="Take your time."))
            await remote.posted.wait()
            group.cancel_scope.cancel()
        await finished(host, remote)

    assert not any("cancel" in request for request in remote.requests)


async def test_a_host_that_leaves_leaves_the_task_running(
    hosting: Hosting, settings: dict[str, str], remote: Gated
) -> None:
    async with hosting(settings) as host, anyio.create_task_group() as group:
        group.start_soon(lambda: host.call("create_task", instructions="Take your time."))
        await remote.posted.wait()
        group.cancel_scope.cancel()
    async with hosting(settings) as host:
        await finished(host, remote)

    assert not any("cancel" in request for request in remote.requests)
