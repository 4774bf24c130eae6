"""The documented dialect: POST /tasks for everything, results as `ToolResultItem`s.

Sources: the task API documents; the types of `agentlin_client` 1.14.0. How tool results go back is in no
document: `ToolResultItem`s in `thought_messages` of the same session are what the client's types ask for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentlin_bridge.remote.backend import Continuation, StartRequest, ToolDefinition


def start_body(request: StartRequest, client_id: str | None) -> dict[str, Any]:
    """The create request of a first round."""
    body = _body(request, client_id)
    body["user_message_content"] = [wire(item) for item in request.content]
    if request.previous_remote_id is not None:
        body["previous_task_id"] = request.previous_remote_id
    return body


def results_body(continuation: Continuation, client_id: str | None) -> dict[str, Any]:
    """The create request that carries the results of the newest past round."""
    return {
        **_body(continuation, client_id),
        "user_message_content": [],
        "previous_task_id": continuation.previous_remote_id,
        "thought_messages": [wire(result) for result in continuation.history[-1].results],
    }


def _body(request: StartRequest | Continuation, client_id: str | None) -> dict[str, Any]:
    return {
        **parameters(request, client_id),
        "stream": request.stream,
        "task_id": request.remote_id,
        "session_id": request.session_id,
        "user_id": request.user_id,
    }


def parameters(request: StartRequest | Continuation, client_id: str | None) -> dict[str, Any]:
    """What every request says again, because only the session remembers it, or nobody."""
    found: dict[str, Any] = dict(request.options)
    if client_id:
        found.setdefault("client_id", client_id)
    if request.client_tools:
        found["client_tools"] = [_wire_tool(tool) for tool in request.client_tools]
    if request.output_schema is not None:
        found["structured_output"] = dict(request.output_schema)
    return found


def wire(item: Any) -> dict[str, Any]:
    """A content or output item as it is sent."""
    fields: dict[str, Any] = item.model_dump(mode="json", exclude_none=True)
    return fields


def _wire_tool(tool: ToolDefinition) -> Mapping[str, Any]:
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
    }
