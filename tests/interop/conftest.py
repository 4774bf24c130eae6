"""MCP clients of others, in environments of their own (`scripts/interop-environment`)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.support.processes import subprocess_environment, wait_until_gone

Json = dict[str, Any]

READ_FILE: Json = {
    "name": "read_file",
    "description": "Read a text file.",
    "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
}
TOOLS = {
    f"agentlin_{name}"
    for name in ("create_task", "retrieve_task", "submit_tool_results", "cancel_task", "delete_task", "list_tasks")
}
SECONDS = 60
"""Whatever one client does takes far less."""

_HERE = Path(__file__).parent
_ENVIRONMENT = _HERE.parents[1] / ".venv-interop"
_NODE_MODULES_AT = _ENVIRONMENT / "node"
_LINE = 1_000_000


@pytest.fixture(scope="session")
def python() -> Path:
    """An interpreter that has langchain-mcp-adapters."""
    if not (_ENVIRONMENT / "python" / ".installed").exists():
        pytest.skip("no .venv-interop with langchain-mcp-adapters: scripts/interop-environment makes it")
    return _ENVIRONMENT / "python" / "bin" / "python"


@pytest.fixture(scope="session")
def node() -> str:
    """Node.js, with the Inspector and the TypeScript SDK installed."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("no Node.js: install it, then scripts/interop-environment makes what is needed")
    if not (_NODE_MODULES_AT / ".installed").exists():
        pytest.skip("no .venv-interop with the clients for Node.js: scripts/interop-environment makes it")
    return found


def stdio_server(settings: Mapping[str, str], directory: Path) -> Json:
    """The bridge's server in the form in which every client takes a command."""
    return {
        "command": sys.executable,
        "args": ["-m", "agentlin_bridge", "mcp"],
        "env": subprocess_environment(**settings),
        "cwd": str(directory),
    }


class NodeHost:
    """A host on the TypeScript SDK at work (`host.mjs`, `tasks_host.mjs`)."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin = process.stdin
        self._lines = BufferedByteReceiveStream(process.stdout)
        self._numbers = count(1)
        self._replies: dict[int, Json] = {}
        self.elicited: list[Json] = []
        self.began: list[str] = []

    async def start(self, command: str, **fields: Any) -> int:
        """Have something done; the number under which its outcome comes."""
        number = next(self._numbers)
        line = json.dumps({"command": command, "number": number, **fields})
        await self._stdin.send(f"{line}\n".encode())
        return number

    async def outcome(self, number: int) -> Json:
        """What came of it: `result` or `error`."""
        while number not in self._replies:
            await self._hear()
        return self._replies.pop(number)

    async def begun(self) -> str:
        """The kind of the next call that begins: `task` or `immediate`."""
        while not self.began:
            await self._hear()
        return self.began.pop(0)

    async def _hear(self) -> None:
        line = json.loads(await self._lines.receive_until(b"\n", _LINE))
        if "elicited" in line:
            self.elicited.append(line["elicited"])
        elif "began" in line:
            self.began.append(line["began"])
        else:
            self._replies[line["number"]] = line

    async def do(self, command: str, **fields: Any) -> Any:
        """Have something done that has to succeed."""
        outcome = await self.outcome(await self.start(command, **fields))
        assert "error" not in outcome, outcome["error"]
        return outcome["result"]

    async def ask(self, tool: str, **arguments: Any) -> Json:
        """Call a tool that has to succeed; its structured content."""
        result = await self.do("call", call=called(tool, **arguments))
        assert not result.get("isError"), result["content"]
        return dict(result["structuredContent"])


def called(tool: str, **arguments: Any) -> Json:
    """A call of one of the bridge's tools."""
    return {"name": f"agentlin_{tool}", "arguments": arguments}


NodeHosting = Callable[..., AbstractAsyncContextManager[NodeHost]]


@pytest.fixture
def hosting(node: str, tmp_path: Path) -> NodeHosting:
    """Starts hosts with a server that has the given settings; neither may be left behind."""
    errors = tmp_path / "stderr"

    @asynccontextmanager
    async def start(settings: Mapping[str, str], *, era: str, **connect: Any) -> AsyncIterator[NodeHost]:
        # The SDK speaks the older protocol unless told otherwise.
        chosen = {"negotiation": {"mode": "auto"}} if era == "modern" else {}
        command = [node, str(_HERE / "host.mjs")]
        with errors.open("wb") as log, anyio.fail_after(SECONDS):
            async with await anyio.open_process(
                command, stderr=log, cwd=_NODE_MODULES_AT, env=subprocess_environment()
            ) as process:
                host = NodeHost(process)
                connected = await host.do("connect", server=stdio_server(settings, tmp_path), **chosen, **connect)
                assert connected["era"] == era
                yield host
                assert process.stdin is not None
                await process.stdin.aclose()
                assert await process.wait() == 0
        wait_until_gone(connected["pid"])
        assert "Traceback" not in errors.read_text(encoding="utf-8")

    return start


@pytest.fixture
def tasks_hosting(node: str, tmp_path: Path) -> NodeHosting:
    """Starts hosts that know MCP tasks, and connects them to a server over HTTP."""
    errors = tmp_path / "stderr"

    @asynccontextmanager
    async def start(url: str, **connect: Any) -> AsyncIterator[NodeHost]:
        command = [node, str(_HERE / "tasks_host.mjs")]
        with errors.open("wb") as log, anyio.fail_after(SECONDS):
            async with await anyio.open_process(
                command, stderr=log, cwd=_NODE_MODULES_AT, env=subprocess_environment()
            ) as process:
                host = NodeHost(process)
                connected = await host.do("connect", url=url, **connect)
                assert connected["era"] == "modern"
                yield host
                assert process.stdin is not None
                await process.stdin.aclose()
                assert await process.wait() == 0
        assert not errors.read_text(encoding="utf-8")

    return start


class Inspector:
    """The official command line client, which starts a server for each thing it does."""

    def __init__(self, node: str, settings: Mapping[str, str], directory: Path, era: str) -> None:
        server = stdio_server(settings, directory)
        # Named on the command line; a server's environment in a file is taken for secrets to be put away.
        environment = [f"-e{name}={value}" for name, value in server["env"].items() if value]
        self._command = [
            node,
            str(_NODE_MODULES_AT / "node_modules" / ".bin" / "inspector"),
            "--cli",
            f"--protocol-era={era}",
            f"--cwd={directory}",
            *environment,
            server["command"],
            *server["args"],
        ]
        self._home = str(directory)
        self._era = era

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command, *options],
            env=subprocess_environment(HOME=self._home),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def ask(self, tool: str, **arguments: Any) -> Json:
        """Call a tool that has to succeed; its structured content."""
        given = [f"--tool-name=agentlin_{tool}", f"--tool-args-json={json.dumps(arguments)}"]
        done = self.run("--method=tools/call", "--format=json", *given)
        assert (done.returncode, done.stderr) == (0, "")
        result = json.loads(done.stdout)["result"]
        # Only newer servers name themselves in each result.
        assert ("_meta" in result) == (self._era == "modern")
        return dict(result["structuredContent"])


Inspecting = Callable[[str], Inspector]


@pytest.fixture
def inspecting(node: str, embedded: dict[str, str], tmp_path: Path) -> Inspecting:
    """An Inspector that speaks the protocol of that era, facing the embedded server."""
    return lambda era: Inspector(node, embedded, tmp_path, era)
