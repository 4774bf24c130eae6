"""Waiting for a task on behalf of a tool call. The end of the waiting is never the end of the task."""

from __future__ import annotations

import logging
from contextlib import aclosing

import anyio

from agentlin_bridge.delegation.bridge import TaskBridge
from agentlin_bridge.errors import BridgeError
from agentlin_bridge.events import Progress
from agentlin_bridge.hosts.mcp.serving import Ctx, serving
from agentlin_bridge.hosts.text import one_line
from agentlin_bridge.task import Task

logger = logging.getLogger(__name__)

LONGEST = 86_400.0
"""Seconds one call waits at most."""
GAP = 0.5
"""Seconds between two progress messages."""
KEEPALIVE = 10.0
"""Seconds after which progress is reported although nothing changed: it resets some clients' timeouts."""

_TOOL_CHARS = 64
_TEXT_CHARS = 120


class Waiting:
    """The patience of one call, and the progress it reports to clients that ask for it.

    Args:
        ctx: the call's.
        bridge: has the task.
        seconds: how long the call may wait in all; less if the server leaves before.
    """

    def __init__(self, ctx: Ctx, bridge: TaskBridge, seconds: float) -> None:
        self._ctx = ctx
        self._bridge = bridge
        self._waits = serving(ctx).waits
        self._until = anyio.current_time() + min(seconds, LONGEST)
        meta = ctx.request_context.meta
        self._is_watched = meta is not None and meta.get("progress_token") is not None
        self._reports = 0
        self._line = self._sent = ""
        self._news = anyio.Event()

    @property
    def left(self) -> float:
        """Seconds left; never negative."""
        return 0.0 if self._waits.ended else max(0.0, self._until - anyio.current_time())

    async def wait(self, task: Task) -> Task:
        """The task when it is over, needs somebody, or time is up."""
        if not self.left:
            return task
        waited = None
        with self._waits.waiting():
            waited = await (self._wait_watched(task) if self._is_watched else self._wait(task))
        return waited or await self._bridge.retrieve(task.id)

    async def _wait(self, task: Task) -> Task:
        return await self._bridge.wait(task.id, timeout=self.left)

    async def _wait_watched(self, task: Task) -> Task:
        fault: Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._follow, task.id)
            group.start_soon(self._report)
            try:
                task = await self._wait(task)
            except Exception as error:
                fault = error
            group.cancel_scope.cancel()
        if fault is not None:
            raise fault
        if not self._line.startswith(task.status.value):
            self._line = task.status.value
        if self._line != self._sent:
            await self._send()
        return task

    async def _follow(self, task_id: str) -> None:
        try:
            async with aclosing(self._bridge.events(task_id)) as events:  # type: ignore[type-var]
                async for progress in events:
                    self._tell(line_of(progress))
        except BridgeError as error:
            logger.warning("following %s for the host: %s", task_id, error.message)

    async def _report(self) -> None:
        while True:
            with anyio.move_on_after(KEEPALIVE):
                await self._news.wait()
            await self._send()
            await anyio.sleep(GAP)

    def _tell(self, line: str) -> None:
        if line != self._line:
            self._line = line
            self._news.set()

    async def _send(self) -> None:
        self._news = anyio.Event()
        self._reports += 1
        self._sent = self._line
        await self._ctx.report_progress(self._reports, message=self._line)


def line_of(progress: Progress) -> str:
    """Progress in one line: the status, and what of step, tool and text there is."""
    parts = [progress.status.value]
    if progress.step:
        parts.append(f"step {progress.step}")
    if progress.tool:
        parts.append(f"tool {one_line(progress.tool, _TOOL_CHARS)}")
    if last := one_line(progress.text.rstrip().rpartition("\n")[2], _TEXT_CHARS):
        parts.append(last)
    return " · ".join(parts)
