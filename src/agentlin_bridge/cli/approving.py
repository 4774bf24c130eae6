"""Asking whoever sits at the terminal whether a tool may run."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import anyio

from agentlin_bridge import TaskBridge
from agentlin_bridge.hosts.approvals import TOO_LONG, shown_arguments
from agentlin_bridge.hosts.text import one_line
from agentlin_bridge.task import PendingCall, Task, ToolResult


def unapproved(task: Task) -> list[PendingCall]:
    """The calls of a task that wait for a person's approval."""
    return [call for call in task.pending if call.approval_required]


def can_ask() -> bool:
    """Whether a person sits at a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


async def settle(bridge: TaskBridge, task_id: str, calls: Sequence[PendingCall]) -> bool:
    """Ask about each call and do what the person says; whether everything was decided.

    Nothing is asked if one of them cannot be shown as a whole.
    """
    shown = [shown_arguments(call) for call in calls]
    for call, arguments in zip(calls, shown, strict=True):
        if arguments is None:
            sys.stderr.write(f"The call of {one_line(call.name, 100)} cannot be approved here: {TOO_LONG}.\n")
    if None in shown:
        return False
    for call, arguments in zip(calls, shown, strict=True):
        answer = await _answer(call, str(arguments))
        if answer is None:
            return False
        if answer:
            await bridge.approve(task_id, [call.call_id])
        else:
            refused = ToolResult.error("The user refused to let this tool run. Nothing was executed.")
            await bridge.submit(task_id, {call.call_id: refused})
    return True


async def _answer(call: PendingCall, shown: str) -> bool | None:
    """Yes or no; None if the terminal was closed."""
    sys.stderr.write(
        f"The remote agent wants to run the tool {one_line(call.name, 100)} here, with the arguments:\n{shown}\n"
    )
    while True:
        sys.stderr.write("Run it? [y/n] ")
        sys.stderr.flush()
        # A thread in `input` could not be interrupted.
        await anyio.wait_readable(sys.stdin)
        line = sys.stdin.readline()
        if not line:
            return None
        if (said := line.strip().lower()) in ("y", "yes", "n", "no"):
            return said.startswith("y")
