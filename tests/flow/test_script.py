"""Promise 1, from a script: many tasks at once on the embedded server, each needing a client tool."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

from agentlin_bridge import TaskBridge, TaskStatus
from agentlin_bridge.task import ToolCallItem
from agentlin_bridge.wiring import DEMO_NOTICE

pytestmark = pytest.mark.anyio


async def test_run_many_with_client_tools(embedded: dict[str, str], tmp_path: Path) -> None:
    for number in range(21):
        text = f"# Title {number}\n\n" + f"walrus{number} " * (number + 1)
        (tmp_path / f"file{number}.md").write_text(text, encoding="utf-8")
    read: list[str] = []

    def read_file(path: str) -> str:
        """Read a text file."""
        read.append(path)
        return (tmp_path / path).read_text(encoding="utf-8")

    instructions = [f"Digest file{number}.md" for number in range(19)] + ["Compare file19.md and file20.md"]
    with anyio.fail_after(60):
        async with TaskBridge.from_env(client_tools=[read_file]) as bridge:
            assert bridge.notice == DEMO_NOTICE
            requests = [{"instructions": text, "client_tools": [read_file]} for text in instructions]
            tasks = await bridge.run_many(requests, max_concurrency=5)
    assert [task.status for task in tasks] == [TaskStatus.COMPLETED] * 20
    for number, task in enumerate(tasks[:19]):
        assert task.answer is not None
        assert task.answer.startswith(DEMO_NOTICE + "\n")
        assert f"Title {number}" in task.answer
        assert f"walrus{number} ({number + 1})" in task.answer
    calls = [item for item in tasks[19].output if isinstance(item, ToolCallItem)]
    assert len(calls) == 2, "two files are asked for at once"
    assert tasks[19].answer is not None
    assert "walrus19 (20)" in tasks[19].answer
    assert "walrus20 (21)" in tasks[19].answer
    assert sorted(read) == sorted(f"file{number}.md" for number in range(21))


def server_of(database: str) -> dict[str, str]:
    """What the embedded server tells local clients."""
    state: dict[str, str] = json.loads(Path(f"{database}.server.json").read_text(encoding="utf-8"))
    return state


async def test_a_task_made_by_the_published_client_is_a_task(embedded: dict[str, str]) -> None:
    """Created with the SDK, answered through the bridge."""
    from agentlin_client import AsyncClient

    async with TaskBridge.from_env() as bridge:
        warm = await bridge.run("hello")
        assert warm.status is TaskStatus.COMPLETED
        server = server_of(embedded["AGENTLIN_BRIDGE_DATABASE"])
        async with AsyncClient(api_key=server["api_key"], base_url=server["base_url"]) as client:
            tool: dict[str, object] = {
                "type": "object",
                "properties": {"path": {"type": "string"}},
                "required": ["path"],
            }
            created = await client.tasks.create(
                stream=False,
                user_message_content="Digest far.md",
                client_tools=[{"type": "function", "function": {"name": "read_file", "parameters": tool}}],
            )
            assert created.result is not None
            task = await bridge.wait(created.result.id)
            (call,) = task.pending
            await bridge.submit(task.id, {call.call_id: "# Far\n\naway away"})
            task = await bridge.wait(task.id)
    assert task.answer is not None
    assert "away (2)" in task.answer
