"""What a model said, as output items, or why it is no answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk

from agentlin_bridge.server.agent import AgentFailure, Item
from agentlin_bridge.server.model_agent.content import from_block
from agentlin_bridge.task import ContentItem, MessageItem, ReasoningItem, TextContentItem, ToolCallItem, text_of

_CUT = frozenset({"length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"})
_REFUSED = frozenset({"content_filter", "refusal", "safety", "prohibited_content", "blocklist", "recitation", "spii"})
_REASONS = ("finish_reason", "stop_reason", "stopReason", "done_reason")


def items_of(message: AIMessage, model: str) -> tuple[Item, ...]:
    """Reasoning, then the message, then the tool calls.

    Raises:
        AgentFailure: the answer was cut off, withheld by the provider, or is empty.
    """
    reason = _reason(message)
    thoughts, said = _split(message)
    calls = _calls(message)
    if reason in _CUT:
        raise AgentFailure(
            f"The answer of {model} was cut off at its length limit after {len(text_of(said))} characters. "
            "Next: allow more tokens (inference_args.max_tokens, or the agent's model_options), or ask for less"
        )
    refusal = message.additional_kwargs.get("refusal")
    if isinstance(refusal, str) and refusal:
        said.append(TextContentItem(type="refusal", text=refusal))
    if reason in _REFUSED and not text_of(said).strip():
        raise AgentFailure(f"The provider of {model} withheld the answer ({reason}). Next: put the task in other words")
    if _was_broken_off(message):
        raise AgentFailure(f"The answer of {model} broke off before its end. Next: try again")
    items: list[Item] = []
    if thoughts:
        items.append(ReasoningItem(content=[TextContentItem(type="reasoning_text", text=thoughts)]))
    if any(not isinstance(part, TextContentItem) for part in said) or text_of(said).strip():
        items.append(MessageItem(role="assistant", message_content=said))
    elif not calls:
        raise EmptyAnswer(model, has_thoughts=bool(thoughts))
    return (*items, *calls)


class EmptyAnswer(AgentFailure):
    """The model said nothing and called nothing.

    Attributes:
        has_thoughts: whether it has at least thought.
    """

    def __init__(self, model: str, *, has_thoughts: bool) -> None:
        super().__init__(f"{model} gave an empty answer. Next: try again, or put the task in other words")
        self.has_thoughts = has_thoughts


def usage_of(message: AIMessage) -> dict[str, int]:
    """Tokens as the provider counted them; empty if it did not tell."""
    usage = message.usage_metadata
    if usage is None:
        return {}
    return {name: usage[name] for name in ("input_tokens", "output_tokens", "total_tokens")}


def with_text(items: tuple[Item, ...], text: str) -> tuple[Item, ...]:
    """The same items with one message that holds this text."""
    others = tuple(item for item in items if not isinstance(item, MessageItem))
    message = MessageItem(role="assistant", message_content=[TextContentItem(text=text)])
    return (*others, message)


def _split(message: AIMessage) -> tuple[str, list[ContentItem]]:
    thoughts: list[str] = []
    said: list[ContentItem] = []
    for block in message.content_blocks:
        if block["type"] == "reasoning":
            thoughts.append(block.get("reasoning") or "")
        elif (item := from_block(block)) is not None:
            said.append(item)
    return "\n\n".join(filter(None, thoughts)), said


def _calls(message: AIMessage) -> list[ToolCallItem]:
    """The tool calls with their arguments as the model wrote them.

    LangChain completes broken JSON of a stream, which would turn a cut-off argument into a different one:
    where there are chunks, they are the truth.
    """
    written: list[Mapping[str, Any]] = []
    if isinstance(message, AIMessageChunk) and message.tool_call_chunks:
        written += message.tool_call_chunks
    else:
        written += message.tool_calls
        written += message.invalid_tool_calls
    return [
        ToolCallItem(call_id=call.get("id") or "", name=call.get("name") or "", arguments=_json(call.get("args")))
        for call in written
    ]


def _json(arguments: object) -> str:
    if arguments is None or arguments == "":
        return "{}"
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _reason(message: AIMessage) -> str:
    found = message.response_metadata
    incomplete = found.get("incomplete_details")
    if isinstance(incomplete, Mapping) and isinstance(incomplete.get("reason"), str):
        return str(incomplete["reason"]).lower()
    return next((found[key].lower() for key in _REASONS if isinstance(found.get(key), str)), "")


def _was_broken_off(message: AIMessage) -> bool:
    """A stream that ends without a reason was cut: OpenAI's package takes the end of the bytes for the end."""
    found = message.response_metadata
    return found.get("model_provider") == "openai" and not _reason(message) and "status" not in found
