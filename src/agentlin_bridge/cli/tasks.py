"""`agentlin-bridge tasks`: look at what is in the ledger."""

from __future__ import annotations

import sys

import anyio
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agentlin_bridge.hosts.text import inert
from agentlin_bridge.task import Task
from agentlin_bridge.wiring import build_bridge

_LINE = 60


def list_tasks(status: list[str] | None, limit: int, *, as_json: bool) -> None:
    """Print tasks, newest first."""

    async def load() -> list[Task]:
        async with build_bridge(has_own_tools=False) as bridge:
            return [task async for task in bridge.list(status=status, limit=limit)]

    tasks = anyio.run(load)
    if as_json:
        for task in tasks:
            sys.stdout.write(task.model_dump_json(exclude={"output"}) + "\n")
        return
    table = Table("id", "status", "created", "answer or error")
    for task in tasks:
        created = task.created_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(task.id, task.status.value, created, escape(_summary(task)))
    Console().print(table)


def show_task(task_id: str, *, as_json: bool) -> None:
    """Print one task."""

    async def load() -> Task:
        async with build_bridge(has_own_tools=False) as bridge:
            return await bridge.retrieve(task_id)

    task = anyio.run(load)
    if as_json:
        sys.stdout.write(task.model_dump_json(indent=2) + "\n")
        return
    lines = [f"{task.id}  {task.status.value}  created {task.created_at.isoformat(timespec='seconds')}"]
    lines += [f"waits for {inert(call.call_id)}: {inert(call.name)}({inert(call.arguments)})" for call in task.pending]
    if task.error is not None:
        lines.append(f"error {task.error.code}: {inert(task.error.message)}")
    if task.answer is not None:
        lines += ["", task.answer]
    sys.stdout.write("\n".join(lines) + "\n")


def _summary(task: Task) -> str:
    text = task.error.message if task.error is not None else task.answer or ""
    line = " ".join(text.split())
    return line if len(line) <= _LINE else line[: _LINE - 1] + "…"
