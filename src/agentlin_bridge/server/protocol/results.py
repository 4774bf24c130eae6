"""Tool results in a create body, in every form clients use. No IO."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agentlin_bridge.server.protocol.bodies import is_content
from agentlin_bridge.server.protocol.refusals import Refusal
from agentlin_bridge.task import ToolResultItem


def tool_results(body: Mapping[str, Any]) -> tuple[ToolResultItem, ...]:
    """The results among `thought_messages` and in `tool_results`, in order.

    Raises:
        Refusal: a result is malformed, or a call is answered twice.
    """
    found: dict[str, ToolResultItem] = {}
    for result in _all_results(body):
        if result.call_id in found:
            raise Refusal(f"The tool call {result.call_id!r} is answered twice in one request")
        found[result.call_id] = result
    return tuple(found.values())


def _all_results(body: Mapping[str, Any]) -> Iterator[ToolResultItem]:
    for message in body.get("thought_messages") or ():
        if (result := result_in(message)) is not None:
            yield result
    for item in body.get("tool_results") or ():
        yield _result(item.get("call_id"), item.get("message_content"), "call_id", "message_content")


def result_in(message: Mapping[str, Any]) -> ToolResultItem | None:
    """The tool result that a message is, if it is one.

    Raises:
        Refusal: it is one, but malformed.
    """
    if message.get("type") == "tool_result":
        return _result(message.get("call_id"), message.get("message_content"), "call_id", "message_content")
    if message.get("role") == "tool":
        return _result(message.get("tool_call_id"), message.get("content"), "tool_call_id", "content")
    return None


def _result(call_id: object, content: object, id_field: str, content_field: str) -> ToolResultItem:
    if not isinstance(call_id, str) or not call_id:
        raise Refusal(f"A tool result needs a {id_field}")
    parts = [] if content is None else content if isinstance(content, list) else [content]
    if not all(map(is_content, parts)) or isinstance(content, dict):
        raise Refusal(f"The {content_field} of {call_id!r} must be a string or a list of content items")
    return ToolResultItem(call_id=call_id, message_content=parts, status="completed")
