"""A host that cancels its call cancels the task; one that only stops waiting does not."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from agentlin_bridge.hosts.mcp.cancelling import says_timeout
from tests.hosts.mcp.conftest import Gated, Host, Hosting
from tests.hosts.mcp.wire import Wire, wire
from tests.support.remote import ScriptedRemote, Turn, call, message, results_of
from tests.tool_servers.setting import Project

pytestmark = pytest.mark.anyio


async def interrupt(server: Wire, request_id: int, reason: str | None) -> None:
    said = {"requestId": request_id} | ({"reason": reason} if reason is not None else {})
    await server.send("notifications/cancelled", said, request=False)


async def the_task(server: Wire, *, wait_seconds: float = 0) -> dict[str, str]:
    (task,) = (await server.call("list_tasks"))["tasks"]
    return await server.call("retrieve_task", task_id=task["task_id"], wait_seconds=wait_seconds)


async def leave(server: Wire) -> None:
    await server.stdin.aclose()
    await server.ended(within=2)


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("reason", [None, "the user pressed stop"])
async def test_a_real_cancellation_reaches_the_remote(
    gated_settings: dict[str, str], gated: Gated, tmp_path: Path, modern: bool, reason: str | None
) -> None:
    async with wire(gated_settings, tmp_path, modern=modern) as server:
        await server.greet()
        await server.start("create_task", instructions="Take long.")
        await gated.posted.wait()
        await interrupt(server, server.last_id, reason)

        assert (await the_task(server, wait_seconds=20))["status"] == "canceled"
        # A cancellation of what is over, or never was, is nothing.
        await interrupt(server, server.last_id, None)
        await interrupt(server, 999, None)
        assert (await the_task(server))["status"] == "canceled"
        await leave(server)
    assert gated.was_canceled


@pytest.mark.parametrize("modern", [True, False])
async def test_a_timeout_ends_the_waiting_only(
    gated_settings: dict[str, str], gated: Gated, tmp_path: Path, modern: bool
) -> None:
    async with wire(gated_settings, tmp_path, modern=modern) as server:
        await server.greet()
        await server.start("create_task", instructions="Take long.")
        await gated.posted.wait()
        await interrupt(server, server.last_id, "McpError: MCP error -32001: Request timed out")
        task = await the_task(server)
        assert task["status"] in ("created", "working")

        # Nor does a cancelled look at it end it.
        await server.start("retrieve_task", task_id=task["task_id"], wait_seconds=60)
        await interrupt(server, server.last_id, None)
        assert (await the_task(server))["status"] in ("created", "working")
        gated.gate.set()
        assert (await server.call("retrieve_task", task_id=task["task_id"], wait_seconds=20))["answer"] == "done"
    assert not gated.was_canceled


async def test_a_cancelled_submit_cancels_its_task(tmp_path: Path) -> None:
    gate, answered = anyio.Event(), anyio.Event()

    def agent(body: dict[str, object]) -> Turn:
        if not results_of(body):
            return Turn([call("c", "ask_host", {"request": "what?"})])
        answered.set()
        return Turn([message("late")], gate=gate)

    async with ScriptedRemote(agent).serve() as remote:
        settings = {"AGENTLIN_BASE_URL": remote.base_url, "AGENTLIN_BRIDGE_LEDGER": str(tmp_path / "ledger")}
        async with wire(settings, tmp_path) as server:
            await server.greet()
            task_id = (await server.call("create_task", instructions="Ask."))["task_id"]
            await server.start("submit_tool_results", task_id=task_id, results=[{"call_id": "c", "content": "this"}])
            await answered.wait()
            await interrupt(server, server.last_id, None)
            assert (await the_task(server, wait_seconds=20))["status"] == "canceled"
        gate.set()


@pytest.mark.parametrize("modern", [True, False])
async def test_a_call_cancelled_while_a_tool_server_starts_creates_nothing(
    gated_settings: dict[str, str], gated: Gated, tmp_path: Path, modern: bool
) -> None:
    project = Project(tmp_path)
    silent = "import sys; open(sys.argv[1], 'a').write('up\\n'); sys.stdin.read()"
    started = {"command": sys.executable, "args": ["-c", silent, str(project.notes)], "start_timeout": 3}
    project.write(servers={"slow": started})
    async with wire({**gated_settings, **project.settings(gated.base_url)}, tmp_path, modern=modern) as server:
        await server.greet()
        await server.start("create_task", instructions="Not this.")
        await anyio.to_thread.run_sync(project.wait_until_noted, "up")
        await interrupt(server, server.last_id, None)
        # It waits for the server as long as the first would have.
        second = await server.call("create_task", instructions="This.", wait_seconds=0)
        (task,) = (await server.call("list_tasks"))["tasks"]
        assert task["task_id"] == second["task_id"]
        await gated.posted.wait()
    assert len(gated.posts) == 1


async def test_a_host_that_cancels_and_leaves_meant_it(
    hosting: Hosting, gated_settings: dict[str, str], gated: Gated, tmp_path: Path
) -> None:
    async with wire(gated_settings, tmp_path) as server:
        await server.greet()
        await server.start("create_task", instructions="Take long.")
        await gated.posted.wait()
        await interrupt(server, server.last_id, None)
        await leave(server)
    async with hosting(gated_settings) as host:
        assert [task["status"] for task in (await host.ask("list_tasks"))["tasks"]] == ["canceled"]
    assert gated.was_canceled


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_python_client_cancels_by_leaving_its_call(
    hosting: Hosting, gated_settings: dict[str, str], gated: Gated, mode: str
) -> None:
    async with hosting(gated_settings, mode=mode) as host:
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: host.call("create_task", instructions="Take long."))
            await gated.posted.wait()
            group.cancel_scope.cancel()
        (task,) = (await host.ask("list_tasks"))["tasks"]
        assert (await host.ask("retrieve_task", task_id=task["task_id"], wait_seconds=20))["status"] == "canceled"


async def test_the_cancel_tool_reaches_a_waiting_call(
    hosting: Hosting, gated_settings: dict[str, str], gated: Gated
) -> None:
    async def wait(host: Host) -> None:
        ended.append((await host.ask("create_task", instructions="Take long."))["status"])

    ended: list[str] = []
    async with hosting(gated_settings) as host:
        async with anyio.create_task_group() as group:
            group.start_soon(wait, host)
            await gated.posted.wait()
            (task,) = (await host.ask("list_tasks"))["tasks"]
            canceled = await host.ask("cancel_task", task_id=task["task_id"])
        assert (canceled["status"], canceled["remote"]) == ("canceled", "stopped")
    assert ended == ["canceled"]


@pytest.mark.parametrize(
    ("reason", "timeout"),
    [
        ("timed out after 30.0s", True),
        ("Request timeout", True),
        ("TIME-OUT", True),
        ("caller cancelled", False),
        ("", False),
        (None, False),
        (5, False),
    ],
)
def test_reasons_that_say_timeout(reason: object, timeout: bool) -> None:
    assert says_timeout(reason) is timeout
