"""The stdio server as a bare process, for what a client library hides: its pid, its pipes, its end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.support.processes import subprocess_environment

HELLO = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "bare", "version": "1"},
}


ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "bare", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Wire:
    """A server process and JSON-RPC by hand, in the era of 2025 or of 2026."""

    def __init__(self, process: Process, *, modern: bool = False, newline: bytes = b"\n") -> None:
        assert process.stdin is not None
        assert process.stderr is not None
        self.process = process
        self.stdin = process.stdin
        # A test may have given the server another stdout.
        self._out = None if process.stdout is None else BufferedByteReceiveStream(process.stdout)
        self._err = process.stderr
        self._modern = modern
        self._newline = newline
        self.last_id = 0

    async def send(self, method: str, params: dict[str, Any] | None = None, *, request: bool = True) -> None:
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params or {}}
        if request and self._modern:
            message["params"]["_meta"] = ENVELOPE
        if request:
            self.last_id += 1
            message["id"] = self.last_id
        await self.stdin.send(json.dumps(message).encode() + self._newline)

    async def answer(self) -> dict[str, Any]:
        """The result of the last request. Every line on stdout has to be JSON-RPC."""
        assert self._out is not None
        while True:
            message: dict[str, Any] = json.loads(await self._out.receive_until(b"\n", 2**22))
            assert message["jsonrpc"] == "2.0"
            if message.get("id") == self.last_id:
                return dict(message["result"])

    async def greet(self) -> None:
        if self._modern:
            await self.send("server/discover")
            await self.answer()
            return
        await self.send("initialize", HELLO)
        await self.answer()
        await self.send("notifications/initialized", request=False)

    async def start(self, tool: str, **arguments: Any) -> None:
        await self.send("tools/call", {"name": f"agentlin_{tool}", "arguments": arguments})

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        await self.start(tool, **arguments)
        return dict((await self.answer())["structuredContent"])

    async def rest(self) -> tuple[bytes, str]:
        """What is left on stdout and stderr, up to their ends."""
        assert self._out is not None
        return b"".join([chunk async for chunk in self._out]), b"".join([chunk async for chunk in self._err]).decode()

    async def ended(self, *, within: float = 10) -> int:
        """The exit status, which has to come soon."""
        with anyio.fail_after(within):
            return await self.process.wait()


@asynccontextmanager
async def wire(
    settings: dict[str, str], cwd: Path, *, stdout: int = subprocess.PIPE, **options: Any
) -> AsyncIterator[Wire]:
    """A server process; it is killed if it is still there at the end."""
    command = [sys.executable, "-m", "agentlin_bridge", "mcp"]
    process = await anyio.open_process(command, stdout=stdout, env=subprocess_environment(**settings), cwd=cwd)
    with anyio.fail_after(30):
        async with process:
            try:
                yield Wire(process, **options)
            finally:
                if process.returncode is None:
                    process.kill()
