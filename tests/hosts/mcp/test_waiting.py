"""Waiting: progress for those who asked, and its end is never the end of the task."""

from __future__ import annotations

import signal
from itertools import groupby
from pathlib import Path

import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult

from agentlin_bridge import TaskBridge
from agentlin_bridge.hosts.mcp import waiting
from agentlin_bridge.hosts.mcp.server import build_server
from tests.hosts.mcp.conftest import Gated, Host, Hosting
from tests.hosts.mcp.wire import wire
from tests.support.remote import call
from tests.support.remote import message as said

pytestmark = pytest.mark.anyio


async def test_progress_tells_each_change_of_status(
    hosting: Hosting, gated_settings: dict[str, str], gated: Gated
) -> None:
    reports: list[tuple[float, str]] = []

    async def report(progress: float, total: float | None, message: str | None) -> None:
        reports.append((progress, (message or "").partition(" ")[0]))
        if reports[-1][1] == "working":
            gated.gate.set()

    async with hosting(gated_settings) as host:
        result = await host.client.call_tool(
            "agentlin_create_task", {"instructions": "Take your time."}, progress_callback=report
        )

    assert isinstance(result, CallToolResult)
    assert result.structured_content is not None
    assert result.structured_content["answer"] == "done"
    assert [number for number, _ in reports] == list(range(1, len(reports) + 1))
    # A task may be working before the first message can say that it was created.
    statuses = [status for status, _ in groupby(status for _, status in reports)]
    assert statuses in (["created", "working", "completed"], ["working", "completed"])


async def test_progress_goes_on_while_nothing_changes(
    gated_settings: dict[str, str], gated: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "KEEPALIVE", 0.01)
    monkeypatch.setattr(waiting, "GAP", 0.01)
    reports: list[str] = []

    async def report(progress: float, total: float | None, message: str | None) -> None:
        reports.append((message or "").rpartition(" ")[2])
        if reports.count("working") == 3:
            gated.gate.set()

    async with Client(build_server(TaskBridge.from_env), mode="legacy") as client:
        await client.call_tool("agentlin_create_task", {"instructions": "Take long."}, progress_callback=report)

    assert reports.count("working") >= 3


async def test_progress_ends_with_the_hosts_patience(gated_settings: dict[str, str], gated: Gated) -> None:
    async def report(progress: float, total: float | None, message: str | None) -> None: ...

    async with Client(build_server(TaskBridge.from_env), mode="legacy") as client:
        arguments = {"instructions": "Take longer.", "wait_seconds": 0.1}
        result = await client.call_tool("agentlin_create_task", arguments, progress_callback=report)
        assert isinstance(result, CallToolResult)
        assert result.structured_content is not None
        assert result.structured_content["status"] == "working"
        gated.gate.set()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_progress_tells_step_tool_and_text(
    hosting: Hosting, gated_settings: dict[str, str], gated: Gated, mode: str
) -> None:
    seen: list[str] = []

    async def report(progress: float, total: float | None, message: str | None) -> None:
        seen.append(message or "")
        for task in gated.tasks.values():
            task["output"] = [said("Looking around.\n\x1b[31mNow I search"), call("s1", "search", {})]
        if "search" in seen[-1]:
            gated.gate.set()

    async with hosting(gated_settings, mode=mode) as host:
        await host.client.call_tool("agentlin_create_task", {"instructions": "Search."}, progress_callback=report)

    assert "working · step 1 · tool search · \N{SYMBOL FOR ESCAPE}[31mNow I search" in seen
    assert seen[-1].startswith("completed")


async def finished(host: Host, gated: Gated) -> None:
    """The one task there is can still be had."""
    (task,) = (await host.ask("list_tasks"))["tasks"]
    gated.gate.set()
    assert (await host.ask("retrieve_task", task_id=task["task_id"], wait_seconds=20))["answer"] == "done"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_whose_time_is_up_finds_its_task_further_along(
    hosting: Hosting, gated_settings: dict[str, str], gated: Gated, mode: str
) -> None:
    async with hosting(gated_settings, mode=mode) as host:
        await host.ask("list_tasks")
        with pytest.raises(MCPError, match="timed out"):
            await host.client.call_tool("agentlin_create_task", {"instructions": "Take long."}, read_timeout_seconds=2)
        await finished(host, gated)

    assert not gated.was_canceled


@pytest.mark.parametrize("how", ["EOF", "SIGTERM", "SIGKILL"])
async def test_a_host_that_leaves_leaves_the_task_running(
    hosting: Hosting, gated_settings: dict[str, str], gated: Gated, tmp_path: Path, how: str
) -> None:
    async with wire(gated_settings, tmp_path) as server:
        await server.greet()
        await server.send("tools/call", {"name": "agentlin_create_task", "arguments": {"instructions": "Take long."}})
        await gated.posted.wait()
        if how == "EOF":
            await server.stdin.aclose()
        else:
            server.process.send_signal(signal.Signals[how])
        await server.ended(within=2)
    async with hosting(gated_settings) as host:
        await finished(host, gated)

    assert not gated.was_canceled
