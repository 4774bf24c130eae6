"""How a delegated task gets on, told to those who watch the host: custom events, stream writer, output deltas."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from langchain_core.callbacks.manager import adispatch_custom_event, dispatch_custom_event

from agentlin_bridge import TaskBridge
from agentlin_bridge.events import Progress
from agentlin_bridge.hosts.langchain.caller import Caller

logger = logging.getLogger(__name__)

EVENT = "agentlin_task_progress"
"""The name of the custom event, and the `type` of what the stream writer gets."""

_OVERLAP = 100


class Reporter:
    """Tells how a task gets on, in the caller's context.

    Args:
        caller: who delegated it.
        is_watched: whether anybody may be watching; if not, nothing is asked of the remote for it.
    """

    def __init__(self, caller: Caller, *, is_watched: bool) -> None:
        self._caller = caller
        self._is_watched = is_watched
        self._text = ""

    @asynccontextmanager
    async def reporting(self, bridge: TaskBridge, task_id: str) -> AsyncIterator[None]:
        """Tell how the task gets on while entered."""
        if not self._is_watched:
            yield
            return
        telling = asyncio.ensure_future(self._tell_all(bridge, task_id))
        try:
            yield
        finally:
            telling.cancel()
            with suppress(asyncio.CancelledError):
                await telling

    async def _tell_all(self, bridge: TaskBridge, task_id: str) -> None:
        try:
            async for progress in bridge.events(task_id):
                await self._tell(task_id, progress)
        except Exception:
            # Who watches must not harm what is watched.
            logger.exception("telling how %s gets on", task_id)

    async def _tell(self, task_id: str, progress: Progress) -> None:
        data = {
            "task_id": task_id,
            "status": progress.status.value,
            "step": progress.step,
            "tool": progress.tool,
            "text": progress.text,
        }
        await self._dispatch(data)
        runtime = self._caller.runtime
        if runtime is not None:
            self._caller.call(runtime.stream_writer, {"type": EVENT, **data})
            if delta := self._new_text(progress.text):
                self._caller.call(runtime.emit_output_delta, delta)

    async def _dispatch(self, data: dict[str, Any]) -> None:
        config = self._caller.config
        if self._caller.is_sync:
            await self._caller.run_in_thread(dispatch_custom_event, EVENT, data, config=config)
        else:
            await self._caller.run(adispatch_custom_event, EVENT, data, config=config)

    def _new_text(self, text: str) -> str:
        """What the text has more than before; of a long one only its end is known."""
        before, self._text = self._text, text
        place = text.rfind(before[-_OVERLAP:]) if before else -1
        return text if place < 0 else text[place + len(before[-_OVERLAP:]) :]
