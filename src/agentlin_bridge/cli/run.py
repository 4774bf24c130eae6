"""`agentlin-bridge run`: delegate one task, with typed functions and the configuration's tools as its client tools."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import anyio

from agentlin_bridge import TaskBridge
from agentlin_bridge.cli.approving import can_ask, settle, unapproved
from agentlin_bridge.cli.tools import load_tool
from agentlin_bridge.hosts.text import inert, one_line
from agentlin_bridge.task import PendingCall, Task, TaskStatus


def run_task(
    instructions: str, tools: Iterable[str], *, agent: str | None, as_json: bool, timeout: float | None
) -> int:
    """Run a task and print its answer, or the whole task; 0 if it completed, else 1.

    Raises:
        BridgeError: a tool cannot be loaded, the settings are wrong, or the request cannot be used.
    """
    loaded = [load_tool(name) for name in tools]

    async def delegate() -> Task:
        async with TaskBridge.from_env(client_tools=loaded) as bridge:
            task = await bridge.run(instructions, client_tools=loaded, agent=agent, timeout=timeout)
            return await _approved(bridge, task, timeout) if can_ask() else task

    try:
        task = anyio.run(delegate)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the task was canceled\n")
        return 130
    if as_json:
        sys.stdout.write(task.model_dump_json(indent=2) + "\n")
    elif task.answer is not None:
        sys.stdout.write(task.answer.rstrip("\n") + "\n")
    if task.status is TaskStatus.COMPLETED:
        return 0
    sys.stderr.write(f"{_what_now(task)}\n")
    return 1


async def _approved(bridge: TaskBridge, task: Task, timeout: float | None) -> Task:
    """The task when it is over, or needs what the person at the terminal cannot give."""
    try:
        while (calls := unapproved(task)) and await settle(bridge, task.id, calls):
            task = await bridge.wait(task.id, timeout=timeout)
    except anyio.get_cancelled_exc_class():
        with anyio.CancelScope(shield=True):
            await bridge.cancel(task.id)
        raise
    return task


def _what_now(task: Task) -> str:
    if task.error is not None:
        return f"task {task.id} {task.status.value}: {inert(task.error.message)}"
    if waiting := unapproved(task):
        calls = _in_short(waiting)
        return (
            f"task {task.id} waits for a person to approve: {calls}. Next: run it at a terminal, which asks, or set "
            "the tool's approval under [client_tools]"
        )
    if task.pending:
        calls = _in_short(task.pending)
        return f"task {task.id} waits for tools that were not given: {calls}. Next: run it again with --tool"
    return f"task {task.id} is {task.status.value}. Next: agentlin-bridge tasks show {task.id}"


def _in_short(calls: Iterable[PendingCall]) -> str:
    return ", ".join(f"{one_line(call.name, 100)}({one_line(call.arguments, 200)})" for call in calls)
