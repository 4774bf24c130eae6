"""The HTTP server as a process, and its clients: the SDK's, and JSON-RPC by hand."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx
import httpx2
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.hosts.mcp.conftest import Host
from tests.support.processes import subprocess_environment

Json = dict[str, Any]

ALICE, BOB = "alice-0123456789abcdef", "bob-0123456789abcdef"
TOKENS = json.dumps({"alice": ALICE, "bob": BOB})
MODERN = "2026-07-28"
TASKS = "io.modelcontextprotocol/tasks"


@dataclass
class Web:
    """A server process that listens.

    Attributes:
        said: its stderr, as far as it was read.
    """

    process: Process
    url: str = ""
    said: list[bytes] = field(default_factory=list)

    @property
    def origin(self) -> str:
        return self.url.removesuffix("/mcp")

    @property
    def stderr(self) -> str:
        return b"".join(self.said).decode()

    async def ended(self, how: signal.Signals = signal.SIGTERM, *, within: float = 15) -> int:
        """Its exit status after a signal."""
        self.process.send_signal(how)
        with anyio.fail_after(within):
            return await self.process.wait()

    async def _listens(self) -> None:
        assert self.process.stderr is not None
        lines = BufferedByteReceiveStream(self.process.stderr)
        while not self.url:
            try:
                line = await lines.receive_until(b"\n", 2**16)
            except anyio.IncompleteRead:
                raise AssertionError(f"the server did not start: {self.stderr}") from None
            self.said.append(line + b"\n")
            if found := re.search(rb"serving MCP at (\S+)", line):
                self.url = found[1].decode()

    async def _drain(self) -> None:
        assert self.process.stderr is not None
        self.said.extend([chunk async for chunk in self.process.stderr])


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "agentlin_bridge", "mcp", "--transport", "http", *arguments]


@asynccontextmanager
async def web(settings: Mapping[str, str], cwd: Path, *arguments: str) -> AsyncIterator[Web]:
    """A server on a free port, which must not print a traceback."""
    async with listening(command("--port", "0", *arguments), settings, cwd) as server:
        yield server
    assert "Traceback" not in server.stderr, server.stderr


@asynccontextmanager
async def listening(
    started: Sequence[str], settings: Mapping[str, str], cwd: Path, *, seconds: float = 60
) -> AsyncIterator[Web]:
    """A process that says where it serves MCP; it is ended if it is still there at the end."""
    process = await anyio.open_process(
        started,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=subprocess_environment(**settings),
        cwd=cwd,
    )
    server = Web(process)
    with anyio.fail_after(seconds):
        async with process, anyio.create_task_group() as group:
            try:
                await server._listens()
                group.start_soon(server._drain)
                yield server
            finally:
                if process.returncode is None:
                    process.terminate()


@asynccontextmanager
async def hosted(server: Web, token: str | None = None, *, mode: str = "auto", **options: Any) -> AsyncIterator[Host]:
    """A host on the SDK's client."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
        transport = streamable_http_client(server.url, http_client=http)
        async with Client(transport, mode=mode, read_timeout_seconds=30, **options) as client:
            yield Host(client)


class Refused(Exception):
    """An error instead of a result."""

    def __init__(self, status: int, error: Json) -> None:
        super().__init__(f"{status}: {error}")
        self.status = status
        self.code = error["code"]


@dataclass
class ByHand:
    """A client of 2026-07-28 that sends what it is told.

    Attributes:
        capabilities: what it declares with each request.
    """

    http: httpx.AsyncClient
    url: str
    token: str | None = None
    capabilities: Json = field(default_factory=dict)

    async def request(self, method: str, params: Json | None = None, **headers: str) -> Json:
        """The result.

        Raises:
            Refused: there was an error instead.
        """
        params = params or {}
        name = params.get("name") or params.get("taskId") or params.get("uri")
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientInfo": {"name": "by hand", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": self.capabilities,
        }
        sent = {
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": MODERN,
            "Mcp-Method": method,
            **({"Mcp-Name": name} if name else {}),
            **({"Authorization": f"Bearer {self.token}"} if self.token else {}),
            **headers,
        }
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
        response = await self.http.post(self.url, json=body, headers=sent, timeout=40)
        message = _message(response)
        if "error" in message:
            raise Refused(response.status_code, message["error"])
        return dict(message["result"])

    async def call(self, tool: str, **arguments: Any) -> Json:
        return await self.request("tools/call", {"name": f"agentlin_{tool}", "arguments": arguments})

    async def ask(self, tool: str, **arguments: Any) -> Json:
        """The structured content of a call that succeeds at once."""
        result = await self.call(tool, **arguments)
        assert not result.get("isError"), result
        return dict(result["structuredContent"])


def _message(response: httpx.Response) -> Json:
    if response.headers["content-type"].startswith("text/event-stream"):
        data = [line for line in response.text.splitlines() if line.startswith("data: ")]
        return dict(json.loads(data[-1].removeprefix("data: ")))
    return dict(response.json())


@asynccontextmanager
async def by_hand(server: Web, token: str | None = None, **capabilities: Any) -> AsyncIterator[ByHand]:
    async with httpx.AsyncClient() as http:
        yield ByHand(http, server.url, token, capabilities)
