"""Promise 1, through MCP: each file in `configs/`, started as its host would, completes a delegated task."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters

from tests.support.processes import subprocess_environment

pytestmark = pytest.mark.anyio

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(CONFIGS.glob("*.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
async def test_a_host_delegates(file: Path, embedded: dict[str, str], tmp_path: Path) -> None:
    content = json.loads(await anyio.Path(file).read_text(encoding="utf-8"))
    (servers,) = content.values()
    entry = servers["agentlin"]
    path = f"{Path(sys.executable).parent}:{subprocess_environment()['PATH']}"
    environment = subprocess_environment(**embedded, **entry.get("env", {})) | {"PATH": path}
    server = StdioServerParameters(command=entry["command"], args=entry["args"], env=environment, cwd=tmp_path)
    tool = {
        "name": "read_file",
        "description": "Read a file.",
        "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
    }
    with anyio.fail_after(60):
        async with Client(server) as host:
            created = await called(host, "agentlin_create_task", instructions="Digest notes.md", client_tools=[tool])
            assert created["status"] == "input-required"
            (call,) = created["tool_calls"]
            assert (call["name"], call["arguments"]) == ("read_file", {"path": "notes.md"})
            results = [{"call_id": call["call_id"], "content": "# Quokka\n\nhappy happy happy"}]
            done = await called(host, "agentlin_submit_tool_results", task_id=created["task_id"], results=results)
    assert done["status"] == "completed"
    assert "happy (3)" in done["answer"]


async def called(host: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await host.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    structured: dict[str, Any] = result.structured_content
    return structured


def test_there_is_a_file_for_each_host() -> None:
    assert len(FILES) == 4
