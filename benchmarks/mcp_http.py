"""Many MCP clients at once over HTTP, each with a task of one round: one client tool, which the client runs.

    python benchmarks/mcp_http.py [--clients N] [--repeat N] [--mode auto|legacy] [--ledger URL] [--processes N]

Server, remote and clients are processes of their own. Every client has a token, and so a principal, of its own, is
connected before the clock starts, and checks that its answer is the one to its own task. With several server
processes the clients' requests take turns between them. The exit code is 1 if a task was lost.
"""

# ruff: noqa: E402, I001  (where to import from has to be said first)

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

# In place of this directory, whose files may have the names of packages.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import anyio
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult

from tests.hosts.mcp.web import command
from tests.support.processes import subprocess_environment
from tests.support.remote import Json, ScriptedRemote, Turn, call, message, results_of

WAIT = 300
READ_FILE = {
    "name": "read_file",
    "description": "Read a text file.",
    "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
}


def turn(body: Json) -> Turn:
    """Ask for a file, then answer with what it holds."""
    results = results_of(body)
    return Turn([message(*results.values())] if results else [call("c", "read_file", {"path": "notes.md"})])


async def serve_remote() -> None:
    """Serve the remote until the process is ended."""
    async with ScriptedRemote(turn).serve() as remote:
        print(remote.base_url, flush=True)
        await anyio.sleep_forever()


@contextmanager
def remote_process() -> Iterator[str]:
    """The remote's base URL."""
    started = [sys.executable, os.path.abspath(__file__), "--serve"]
    with subprocess.Popen(started, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@contextmanager
def server_process(settings: dict[str, str], directory: Path) -> Iterator[str]:
    """The server's URL."""
    log = directory / f"server-{time.monotonic_ns()}.log"
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(
            command("--port", "0"), stderr=errors, cwd=directory, env=subprocess_environment(**settings)
        ) as process,
    ):
        try:
            while " at http" not in log.read_text(encoding="utf-8"):
                assert process.poll() is None, log.read_text(encoding="utf-8")
                time.sleep(0.05)
            yield log.read_text(encoding="utf-8").split(" at ")[1].split()[0]
        finally:
            process.terminate()
            process.wait()
            said = log.read_text(encoding="utf-8")
            if "ERROR" in said or "Traceback" in said:
                print(said[-4000:], file=sys.stderr)


class Measured:
    """What came of the tasks."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.lost: list[str] = []


async def ask(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(f"agentlin_{tool}", {**arguments, "wait_seconds": WAIT})
    assert isinstance(result, CallToolResult)
    assert result.structured_content is not None, result.content
    return dict(result.structured_content)


async def one_task(clients: list[Client], number: int, measured: Measured) -> None:
    """Create on one of the servers, answer on the next."""
    content = f"What only client {number} knows.\n" * 10
    began = perf_counter()
    try:
        asked = await ask(clients[0], "create_task", instructions="Read notes.md", client_tools=[READ_FILE])
        results = [{"call_id": each["call_id"], "content": content} for each in asked["tool_calls"]]
        done = await ask(clients[-1], "submit_tool_results", task_id=asked["task_id"], results=results)
        assert done["status"] == "completed", done
        assert done["answer"] == content, done
    except Exception as error:
        measured.lost.append(f"client {number}: {error!r}")
    else:
        measured.seconds.append(perf_counter() - began)


async def load(urls: list[str], tokens: dict[str, str], mode: str) -> tuple[Measured, float]:
    """All clients at once; how long each took, and all of them."""
    measured = Measured()
    began = 0.0
    connected = 0
    ready = anyio.Event()

    async def one(number: int, token: str) -> None:
        nonlocal began, connected
        limits = httpx2.Limits(max_connections=None)
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(headers=headers, timeout=WAIT + 60, limits=limits) as http:
            mine = [Client(streamable_http_client(url, http_client=http), mode=mode) for url in rotated(number)]
            async with AsyncExitStack() as stack:
                for client in mine:
                    await stack.enter_async_context(client)
                    await client.list_tools()
                connected += 1
                if connected == len(tokens):
                    began = perf_counter()
                    ready.set()
                await ready.wait()
                await one_task(mine, number, measured)

    def rotated(number: int) -> list[str]:
        return [urls[number % len(urls)], urls[(number + 1) % len(urls)]][: len(urls)]

    async with anyio.create_task_group() as group:
        for number, token in enumerate(tokens.values()):
            group.start_soon(one, number, token)
    return measured, perf_counter() - began


def percentile(values: list[float], share: float) -> float:
    """The value that so large a share of the values do not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Many MCP clients at once over HTTP.")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=3, help="repetitions, each with new clients")
    parser.add_argument("--mode", choices=["auto", "legacy"], default="auto", help="the era the clients speak")
    parser.add_argument("--ledger", default="", help="a database URL; by default a new SQLite file")
    parser.add_argument("--processes", type=int, choices=[1, 2], default=1, help="server processes on the ledger")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    # Each client has connections to each server.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if options.serve:
        anyio.run(serve_remote)
    tokens = {f"client-{number}": f"token-of-client-{number:06}" for number in range(options.clients)}
    lost = 0
    with remote_process() as remote, tempfile.TemporaryDirectory() as directory:
        settings = {
            "AGENTLIN_BASE_URL": remote,
            "AGENTLIN_BRIDGE_DIALECT": "documented",
            "AGENTLIN_BRIDGE_LEDGER": options.ledger or str(Path(directory) / "ledger"),
            "AGENTLIN_BRIDGE_MCP_TOKENS": json.dumps(tokens),
        }
        with server_process(settings, Path(directory)) as first:
            if options.processes == 1:
                lost = measure([first], tokens, options)
            else:
                with server_process(settings, Path(directory)) as second:
                    lost = measure([first, second], tokens, options)
    return 1 if lost else 0


def measure(urls: list[str], tokens: dict[str, str], options: argparse.Namespace) -> int:
    """Repeat and print; how many tasks were lost."""
    lost = 0
    for _ in range(options.repeat):
        measured, seconds = anyio.run(load, urls, tokens, options.mode)
        for line in measured.lost[:5]:
            print(line, file=sys.stderr)
        lost += len(measured.lost)
        times = measured.seconds or [0.0]
        print(
            f"{len(tokens)} clients, {len(urls)} server process(es), {options.mode}: "
            f"{len(measured.seconds)} completed, {len(measured.lost)} lost; "
            f"p50 {percentile(times, 0.5):.2f} s, p95 {percentile(times, 0.95):.2f} s, "
            f"{len(measured.seconds) / seconds:.1f} tasks/s",
            flush=True,
        )
    return lost


if __name__ == "__main__":
    sys.exit(main())
