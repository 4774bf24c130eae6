"""Requests to the backend, and waiting for what comes of them."""

from __future__ import annotations

import secrets
from typing import Any

import anyio

from agentlin_bridge.remote.backend import StartRequest
from agentlin_bridge.remote.nla_engine.backend import NlaEngineBackend
from agentlin_bridge.task import ContentItem, MessageItem, TaskObject, TextContentItem


def request(*texts: str, **fields: Any) -> StartRequest:
    """A first round with an id of its own."""
    said: list[ContentItem] = [TextContentItem(text=text) for text in texts or ("a heist in space",)]
    return StartRequest(f"task_{secrets.token_hex(16)}", "sess_1", "user_1", fields.pop("content", said), **fields)


async def ended(backend: NlaEngineBackend, task_id: str) -> TaskObject:
    """The task when it is over."""
    while True:
        task = await backend.retrieve(task_id)
        assert task.status is not None
        if task.status.is_terminal:
            return task
        await anyio.sleep(0.005)


def texts_of(task: TaskObject) -> list[str]:
    """The texts of its messages."""
    return [item.text for item in task.output if isinstance(item, MessageItem)]
