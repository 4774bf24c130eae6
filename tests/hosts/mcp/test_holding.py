"""Pausing and resuming, where the backend can."""

from __future__ import annotations

import anyio
import pytest
from mcp import Client

from agentlin_bridge import TaskBridge
from agentlin_bridge.hosts.mcp.server import build_server
from agentlin_bridge.remote.agentlin.backend import AgentlinBackend
from agentlin_bridge.remote.agentlin.endpoint import Address, FixedEndpoint
from tests.support.remote import ScriptedRemote, Turn, message

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("can_hold", [True, False])
async def test_a_task_is_held(tmp_path_factory: pytest.TempPathFactory, can_hold: bool) -> None:
    gate = anyio.Event()
    remote = ScriptedRemote(lambda body: Turn([message("done")], gate=gate))
    ledger = tmp_path_factory.mktemp("ledger") / "ledger.sqlite3"
    with anyio.fail_after(20):
        async with remote.serve():

            def make_bridge() -> TaskBridge:
                backend = AgentlinBackend(FixedEndpoint(Address(remote.base_url)), can_hold=can_hold)
                return TaskBridge(backend, ledger=ledger)

            async with Client(build_server(make_bridge)) as client:
                names = [tool.name for tool in (await client.list_tools()).tools]
                assert [name in names for name in ("agentlin_pause_task", "agentlin_resume_task")] == [can_hold] * 2
                if not can_hold:
                    return
                created = await client.call_tool("agentlin_create_task", {"instructions": "x", "wait_seconds": 0})
                assert created.structured_content is not None
                task_id = created.structured_content["task_id"]
                await remote.posted.wait()
                paused = await client.call_tool("agentlin_pause_task", {"task_id": task_id})
                assert paused.structured_content is not None
                assert paused.structured_content["status"] == "paused"
                assert f'Next: call agentlin_resume_task with task_id "{task_id}"' in str(paused.content)
                resumed = await client.call_tool("agentlin_resume_task", {"task_id": task_id})
                assert "is working" in str(resumed.content)
                gate.set()
                ended = await client.call_tool("agentlin_retrieve_task", {"task_id": task_id, "wait_seconds": 20})
                assert "done" in str(ended.content)
