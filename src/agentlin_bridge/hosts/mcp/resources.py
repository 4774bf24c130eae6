"""Tasks as resources, for hosts that keep long content out of their model's context.

`agentlin://tasks/{task_id}` is a task as JSON, `agentlin://tasks/{task_id}/answer{?offset}` a page of its answer.
"""

from __future__ import annotations

import json
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError

from agentlin_bridge.errors import BridgeError, TaskNotFound
from agentlin_bridge.hosts.mcp.calling import in_words
from agentlin_bridge.hosts.mcp.results import ANSWER_LABEL, answer_uri
from agentlin_bridge.hosts.mcp.serving import Ctx, serving
from agentlin_bridge.hosts.text import inert
from agentlin_bridge.task import Task

PAGE_CHARS = 100_000
"""Characters of an answer on one page."""


def add_resources(server: MCPServer[Any]) -> None:
    """Let a server's tasks be read."""

    @server.resource("agentlin://tasks/{task_id}", name="task", mime_type="application/json")
    async def task(task_id: str, ctx: Ctx) -> str:
        """A delegated task: status, error, tool calls it waits for, and the start of its answer."""
        found = await _task(ctx, task_id)
        fields = serving(ctx).results.task(found).structured_content or {}
        return json.dumps(fields | _record(found), ensure_ascii=False)

    @server.resource("agentlin://tasks/{task_id}/answer{?offset}", name="answer", mime_type="text/plain")
    async def answer(task_id: str, ctx: Ctx, offset: int = 0) -> str:
        """The answer of a delegated task, one page of it; the first line says where the next begins."""
        found = await _task(ctx, task_id)
        text = inert(found.answer or "")
        start = min(max(offset, 0), len(text))
        end = min(start + PAGE_CHARS, len(text))
        head = f"[task {found.id} is {found.status.value}; characters {start}-{end} of {len(text)}"
        if end < len(text):
            head += f"; next page: {answer_uri(found.id)}?offset={end}"
        return f"{head}]\n{ANSWER_LABEL}\n{text[start:end]}"


def _record(task: Task) -> dict[str, Any]:
    return {
        "created_at": task.created_at.isoformat(),
        "updated_at": task.updated_at.isoformat(),
        "answer_resource": answer_uri(task.id),
    }


async def _task(ctx: Ctx, task_id: str) -> Task:
    try:
        bridge = await serving(ctx).bridge_of_caller()
        return await bridge.retrieve(task_id)
    except TaskNotFound as error:
        raise ResourceNotFoundError(in_words(error)) from error
    except BridgeError as error:
        raise ResourceError(in_words(error)) from error
