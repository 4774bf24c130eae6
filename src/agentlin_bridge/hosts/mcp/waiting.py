"""Waiting for a task on behalf of a tool call. The end of the waiting is never the end of the task."""

from __future__ import annotations

import anyio
from mcp.server.mcpserver import Context

from agentlin_bridge.delegation.bridge import TaskBridge
from agentlin_bridge.hosts.mcp.lazy_bridge import LazyBridge
from agentlin_bridge.task import Task

SLICE = 1.0
"""Seconds between looks at the task, for a client that wants progress."""
KEEPALIVE = 10
"""Looks after which progress is reported although nothing changed: it resets some clients' timeouts."""


async def waited(ctx: Context[LazyBridge], bridge: TaskBridge, task: Task, seconds: float) -> Task:
    """The task when it is over, needs the host, or `seconds` have passed."""
    meta = ctx.request_context.meta
    if meta is None or meta.get("progress_token") is None:
        return await bridge.wait(task.id, timeout=seconds) if seconds else task
    until = anyio.current_time() + seconds
    looks = reports = 0
    reported = None
    while True:
        if task.status is not reported or looks % KEEPALIVE == 0:
            reported = task.status
            reports += 1
            await ctx.report_progress(reports, message=f"Task {task.id} is {task.status.value}")
        left = until - anyio.current_time()
        if left <= 0 or task.status.is_terminal or task.pending:
            return task
        task = await bridge.wait(task.id, timeout=min(left, SLICE))
        looks += 1
