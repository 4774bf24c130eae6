"""`agentlin-bridge demo`: a host, played by this command, delegates a report over real MCP stdio.

The host offers one tool, `read_file`. The remote agent asks for the files it needs, the host reads them and
hands the text back, and the answer is computed from it. Everything runs on the embedded server, on a
ledger and a database of its own that are gone afterwards.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters
from mcp.types import TextContent

from agentlin_bridge.errors import BridgeError, ConfigurationError

READ_FILE = {
    "name": "read_file",
    "description": "Read a text file of the host.",
    "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
}
_PASSED_ON = ("COVERAGE", "COV_", "PYTHON")


def run_demo(files: list[Path]) -> int:
    """Run the demo on some files and leave no process behind; 0 if the task completed.

    Raises:
        ConfigurationError: a file cannot be read as text.
    """
    texts = {str(path): _read(path) for path in files}
    with tempfile.TemporaryDirectory(prefix="agentlin-bridge-demo-") as directory:
        database = Path(directory) / "embedded.sqlite3"
        try:
            return anyio.run(_play_host, texts, Path(directory) / "ledger.sqlite3", database)
        finally:
            _stop_server(Path(f"{database}.server.json"))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path} cannot be read as text: {error}.", next_step="name text, Markdown or CSV files"
        ) from error


async def _play_host(texts: dict[str, str], ledger: Path, database: Path) -> int:
    inherited = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "agentlin_bridge", "mcp"],
        env={
            **inherited,
            "AGENTLIN_BRIDGE_BACKEND": "embedded",
            "AGENTLIN_BRIDGE_LEDGER": str(ledger),
            "AGENTLIN_BRIDGE_DATABASE": str(database),
        },
    )
    async with Client(server) as host:
        return await _Host(host, texts).delegate()


class _Host:
    def __init__(self, client: Client, texts: dict[str, str]) -> None:
        self._client = client
        self._texts = texts
        self._began = time.monotonic()

    async def delegate(self) -> int:
        instructions = f"Write a report on {', '.join(f'`{path}`' for path in self._texts)}."
        self._say(f'host delegates: "{instructions}", offering the tool read_file(path)')
        result = await self._call("agentlin_create_task", {"instructions": instructions, "client_tools": [READ_FILE]})
        self._say(f"task created: {result['task_id']}")
        while result["status"] not in ("completed", "failed", "canceled", "expired"):
            self._say(f"status: {result['status']}")
            if result["status"] == "input-required":
                results = [self._answer(call) for call in result["tool_calls"]]
                result = await self._call(
                    "agentlin_submit_tool_results", {"task_id": result["task_id"], "results": results}
                )
            else:
                result = await self._call("agentlin_retrieve_task", {"task_id": result["task_id"], "wait_seconds": 45})
        self._say(f"status: {result['status']}")
        self._say("what the host's model now reads:")
        sys.stdout.write(f"\n{result['text']}\n")
        return 0 if result["status"] == "completed" else 1

    def _answer(self, call: dict[str, Any]) -> dict[str, Any]:
        self._say(f"tool call {call['call_id']}: {call['name']}({json.dumps(call['arguments'])})")
        path = call["arguments"].get("path") if isinstance(call["arguments"], dict) else None
        text = self._texts.get(str(path))
        if text is None:
            self._say(f"host's result: refused, {path!r} is not one of the files of this demo")
            return {"call_id": call["call_id"], "content": f"{path!r} is not a file you may read", "is_error": True}
        self._say(f"host's result: {len(text):,} characters of {path}")
        return {"call_id": call["call_id"], "content": text}

    async def _call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        result = await self._client.call_tool(tool, arguments)
        text = "\n".join(block.text for block in result.content if isinstance(block, TextContent))
        if result.structured_content is None:
            raise BridgeError(f"The MCP tool {tool} failed: {text}")
        return {**result.structured_content, "text": text}

    def _say(self, line: str) -> None:
        sys.stdout.write(f"[{time.monotonic() - self._began:5.2f}s] {line}\n")
        sys.stdout.flush()


def _stop_server(state_file: Path) -> None:
    """End the server that was started for this demo, and only that one."""
    try:
        pid = int(json.loads(state_file.read_text(encoding="utf-8"))["pid"])
    except (OSError, ValueError, KeyError):
        return
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            time.sleep(0.02)
