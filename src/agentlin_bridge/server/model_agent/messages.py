"""A conversation as the messages a chat model is given."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from pydantic import BaseModel

from agentlin_bridge.server.agent import Conversation, Item, Round, Turn
from agentlin_bridge.server.model_agent.content import Block, message_content, to_blocks
from agentlin_bridge.server.model_agent.replaying import original
from agentlin_bridge.task import MessageItem, ToolCallItem, ToolResultItem

NOTHING = "(nothing)"
ERROR = "ERROR: "
"""How a tool result says that it is an error: the API has no flag for it."""


@dataclass(frozen=True)
class History:
    """The messages of a conversation, turn by turn.

    Attributes:
        earlier: the session's completed turns, oldest first.
        current: the turn that is going on.
    """

    earlier: tuple[tuple[BaseMessage, ...], ...]
    current: tuple[BaseMessage, ...]


def history_of(conversation: Conversation, model: str) -> History:
    """The conversation without its system message, for a model. No tool call in it lacks its result."""
    return History(
        earlier=tuple(tuple(_turn(turn, model)) for turn in conversation.earlier),
        current=(_user(conversation.user_content), *_rounds(conversation.rounds, model)),
    )


def arguments_of(call: ToolCallItem) -> dict[str, Any]:
    """A tool call's arguments.

    Raises:
        ValueError: they are not a JSON object; says why.
    """
    try:
        arguments = json.loads(call.arguments or "{}")
    except RecursionError:
        raise ValueError("they are nested too deeply") from None
    if not isinstance(arguments, dict):
        raise ValueError(f"they are not an object but {json.dumps(arguments)[:100]}")
    return arguments


def _turn(turn: Turn, model: str) -> Iterator[BaseMessage]:
    yield _user(turn.user_content)
    yield from _rounds(turn.rounds, model)
    asked = {item.call_id for one in turn.rounds for item in one.items if isinstance(item, ToolCallItem)}
    said = tuple(item for item in turn.output if getattr(item, "call_id", None) not in asked)
    yield from _said(said, {}, model)


def _user(content: Iterable[BaseModel]) -> HumanMessage:
    blocks = to_blocks(content)
    return HumanMessage(message_content(blocks) or NOTHING)


def _rounds(rounds: Iterable[Round], model: str) -> Iterator[BaseMessage]:
    for one in rounds:
        results = {result.call_id: result for result in one.results}
        yield from _said(one.items, results, model)
        calls = [item for item in one.items if isinstance(item, ToolCallItem)]
        yield from _answers([results[call.call_id] for call in calls if call.call_id in results], one.note)


def _said(items: Sequence[Item], results: Mapping[str, ToolResultItem], model: str) -> Iterator[AIMessage]:
    """What the model said in one step. Its reasoning is repeated only to a model that needs that."""
    blocks = [block for item in items if isinstance(item, MessageItem) for block in _spoken(item)]
    calls = [
        {"type": "tool_call", "id": item.call_id, "name": item.name, "args": _readable(item)}
        for item in items
        if isinstance(item, ToolCallItem) and item.call_id in results
    ]
    if calls and (same := original(items, calls, model)) is not None:
        yield same
    elif blocks or calls:
        yield AIMessage(message_content(blocks), tool_calls=calls)


def _spoken(item: MessageItem) -> list[Block]:
    return to_blocks(item.message_content) or [{"type": "text", "text": item.text or NOTHING}]


def _readable(call: ToolCallItem) -> dict[str, Any]:
    """Arguments for a message, which can hold only an object: broken ones are quoted in it."""
    try:
        return arguments_of(call)
    except ValueError:
        return {"not a JSON object": call.arguments}


def _answers(results: Sequence[ToolResultItem], note: Sequence[BaseModel]) -> Iterator[BaseMessage]:
    """The results, and in a message after them what a tool message cannot hold everywhere: media, and the note."""
    after: list[Block] = []
    for result in results:
        blocks = to_blocks(result.message_content)
        texts = [block["text"] for block in blocks if block["type"] == "text"]
        media = [block for block in blocks if block["type"] != "text"]
        text = "".join(texts) or ("" if media else result.text)
        if media:
            after += [{"type": "text", "text": f"What the tool call {result.call_id} returned:"}, *media]
            text = text or "(it follows the tool results)"
        status = "error" if text.startswith(ERROR) else "success"
        yield ToolMessage(text or NOTHING, tool_call_id=result.call_id, status=status)
    after += to_blocks(note)
    if after:
        yield HumanMessage(message_content(after))
