"""What `AgentlinTaskTool` costs over `TaskBridge` called directly: one round with one client tool per task.

    python benchmarks/langchain.py [--tasks N] [--repeat N]

One scripted remote in a process of its own answers all contestants, which take turns task by task and write
to ledgers of their own; what counts is the median wall time of a task, and its CPU time in this process tells
what it is made of. The exit code is 1 if the tool costs more than 1.15 x the bridge in async code.
"""

# ruff: noqa: E402, I001  (where to import from has to be said first)

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import NamedTuple

# In place of this directory, where this very file would pass for the package `langchain`.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import anyio
from langchain_core.tools import tool

from agentlin_bridge import Task, TaskBridge, TaskStatus
from agentlin_bridge.hosts.langchain import AgentlinTaskTool
from agentlin_bridge.remote.agentlin.backend import AgentlinBackend
from agentlin_bridge.remote.agentlin.dialect import Dialect
from agentlin_bridge.remote.agentlin.endpoint import Address, FixedEndpoint
from tests.support.remote import Json, ScriptedRemote, Turn, call, message, results_of

TARGET = 1.15
CONTENT = "A file of ordinary length.\n" * 40
WARMING_UP = 5


class Cost(NamedTuple):
    """What one task took, in seconds."""

    wall: float
    cpu: float


def read_file(path: str) -> str:
    """Read a file of the host's."""
    return CONTENT


read_file_tool = tool(read_file)


def turn(body: Json) -> Turn:
    """Ask for a file, then answer with what it holds."""
    results = results_of(body)
    return Turn([message(*results.values())] if results else [call("call_1", "read_file", {"path": "notes.md"})])


async def serve() -> None:
    """Serve the remote until the process is ended."""
    async with ScriptedRemote(turn).serve() as remote:
        print(remote.base_url, flush=True)
        await anyio.sleep_forever()


def make_bridge(url: str, ledger: Path, *, principal: str = "local") -> TaskBridge:
    """A bridge to the remote."""
    backend = AgentlinBackend(FixedEndpoint(Address(url)), dialect=Dialect.DOCUMENTED)
    return TaskBridge(backend, ledger=ledger, principal=principal)


def check(answer: str | None) -> None:
    """A fast wrong answer counts for nothing."""
    assert answer == CONTENT, answer


async def compare(url: str, directory: Path, tasks: int) -> dict[str, list[Cost]]:
    """The cost of each task of each contestant. They take turns, so that what else the machine does hits all alike."""
    ours = {
        name: AgentlinTaskTool(client_tools=[read_file_tool], bridge=partial(make_bridge, url, directory / name))
        for name in ("async", "sync")
    }
    async with make_bridge(url, directory / "direct") as bridge:

        async def direct() -> None:
            task: Task = await bridge.run("Read notes.md", client_tools=[read_file])
            assert task.status is TaskStatus.COMPLETED
            check(task.answer)

        async def in_async() -> None:
            check(await ours["async"].ainvoke({"instructions": "Read notes.md"}))

        async def in_sync() -> None:
            check(ours["sync"].invoke({"instructions": "Read notes.md"}))

        contestants: dict[str, Callable[[], Awaitable[None]]] = {
            "TaskBridge.run": direct,
            "AgentlinTaskTool.ainvoke": in_async,
            "AgentlinTaskTool.invoke": in_sync,
        }
        taken: dict[str, list[Cost]] = {name: [] for name in contestants}
        for number in range(WARMING_UP + tasks):
            for name, run in contestants.items():
                wall, cpu = perf_counter(), process_time()
                await run()
                if number >= WARMING_UP:
                    taken[name].append(Cost(perf_counter() - wall, process_time() - cpu))
    for each in ours.values():
        await asyncio.to_thread(each.close)
    return taken


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description="What AgentlinTaskTool costs over TaskBridge.")
    parser.add_argument("--tasks", type=int, default=100, help="per contestant and repetition")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions, each with new ledgers")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if options.serve:
        anyio.run(serve)
    taken: dict[str, list[Cost]] = {}
    command = [sys.executable, os.path.abspath(__file__), "--serve"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            for _ in range(options.repeat):
                with tempfile.TemporaryDirectory() as directory:
                    for name, times in anyio.run(compare, url, Path(directory), options.tasks).items():
                        taken.setdefault(name, []).extend(times)
        finally:
            server.terminate()
    measured = {
        name: Cost(statistics.median(cost.wall for cost in costs), statistics.median(cost.cpu for cost in costs))
        for name, costs in taken.items()
    }
    base = measured["TaskBridge.run"]
    for name, cost in measured.items():
        print(
            f"{name:26} {cost.wall * 1e3:7.2f} ms a task, {cost.wall / base.wall:5.2f} x TaskBridge.run"
            f"   (CPU {cost.cpu * 1e3:6.2f} ms, {cost.cpu / base.cpu:5.2f} x)"
        )
    good = measured["AgentlinTaskTool.ainvoke"].wall <= TARGET * base.wall
    print("good" if good else f"NOT GOOD: wanted at most {TARGET} x in async code")
    return not good


if __name__ == "__main__":
    sys.exit(main())
