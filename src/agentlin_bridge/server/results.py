"""Tool results in a create body, in every form clients use. No IO."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agentlin_bridge.server.refusals import Refusal
from agentlin_bridge.task import TEXT_TYPES, ToolResultItem


def tool_results(body: Mapping[str, Any]) -> tuple[ToolResultItem, ...]:
    """The results among `thought_messages` and in `tool_results`, in order.

    Other thought messages (what the client repeats of the dialogue) carry nothing this server lacks.

    Raises:
        Refusal: a list or a result is malformed, or a call is answered twice.
    """
    found: dict[str, ToolResultItem] = {}
    for result in _all_results(body):
        if result.call_id in found:
            raise Refusal(f"The tool call {result.call_id!r} is answered twice in one request")
        found[result.call_id] = result
    return tuple(found.values())


def _all_results(body: Mapping[str, Any]) -> Iterator[ToolResultItem]:
    for item in _objects(body, "thought_messages"):
        if item.get("type") == "tool_result":
            yield _result(item.get("call_id"), item.get("message_content"), "call_id", "message_content")
        elif item.get("role") == "tool":
            yield _result(item.get("tool_call_id"), item.get("content"), "tool_call_id", "content")
    for item in _objects(body, "tool_results"):
        yield _result(item.get("call_id"), item.get("message_content"), "call_id", "message_content")


def _objects(body: Mapping[str, Any], field: str) -> list[dict[str, Any]]:
    items = body.get(field)
    if items is None:
        return []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise Refusal(f"{field} must be a list of objects")
    return items


def _result(call_id: object, content: object, id_field: str, content_field: str) -> ToolResultItem:
    if not isinstance(call_id, str) or not call_id:
        raise Refusal(f"A tool result needs a {id_field}")
    parts = [] if content is None else content if isinstance(content, list) else [content]
    if not all(map(is_content, parts)):
        raise Refusal(f"The {content_field} of {call_id!r} must be a string or a list of content items")
    return ToolResultItem(call_id=call_id, message_content=parts, status="completed")


def is_content(item: object) -> bool:
    """Whether something can stand in a content list. Items of unknown types can; a text without text cannot."""
    if not isinstance(item, dict):
        return isinstance(item, str)
    kind = item.get("type")
    return isinstance(kind, str) and (kind not in TEXT_TYPES or isinstance(item.get("text"), str))
