"""Giving a model back what it said in the form it said it.

Some providers sign what a model thought before it called a tool, and refuse the results of the call without it.
The signed form goes along with the step's first item, in a field of its own, and back to the same model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage

from agentlin_bridge.server.agent import Item
from agentlin_bridge.task import ToolCallItem

FIELD = "said_by_model"

_CALLS = frozenset({"tool_use", "tool_call", "function_call", "tool_call_chunk", "invalid_tool_call"})
_PLAIN = frozenset({"text", "output_text"})
_NOT_NEEDED = frozenset({"tool_calls", "function_call", "refusal", "parsed"})
_METADATA = ("model_provider", "output_version")


def with_original(items: Sequence[Item], message: AIMessage, model: str) -> tuple[Item, ...]:
    """The items of a step; with tool calls among them, and more said than plain text, the first carries the form."""
    if not any(isinstance(item, ToolCallItem) for item in items):
        return tuple(items)
    content = message.content if isinstance(message.content, str) else _without_calls(message.content)
    more = {name: value for name, value in message.additional_kwargs.items() if name not in _NOT_NEEDED and value}
    is_plain = isinstance(content, str) or all(_kind(block) in _PLAIN for block in content)
    if is_plain and not more:
        return tuple(items)
    metadata = {name: message.response_metadata[name] for name in _METADATA if name in message.response_metadata}
    form = {"model": model, "content": content, "additional": more, "metadata": metadata}
    first, *rest = items
    return (first.model_copy(update={FIELD: form}), *rest)


def original(items: Sequence[Item], calls: Sequence[Mapping[str, Any]], model: str) -> AIMessage | None:
    """The message a step's items came from; None where this model left no form of its own."""
    forms = [form for item in items if isinstance(form := (item.model_extra or {}).get(FIELD), dict)]
    match forms:
        case [
            {"model": str(by), "content": str() | list() as content, "additional": dict(more), "metadata": dict(about)}
        ] if by == model:
            return AIMessage(content, tool_calls=list(calls), additional_kwargs=more, response_metadata=about)
        case _:
            return None


def _without_calls(content: Sequence[Any]) -> list[Any]:
    return [block for block in content if _kind(block) not in _CALLS]


def _kind(block: Any) -> Any:
    return block.get("type") if isinstance(block, dict) else "text"
