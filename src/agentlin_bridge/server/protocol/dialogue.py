"""The dialogue that a create body tells: earlier turns, and a turn that is replayed. No IO.

A client whose server has lost a session tells it again: the user's message in `history_messages`, the calls the
agent made and their results in `thought_messages`. Messages come in the form of chat models or as output items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, TypeAdapter

from agentlin_bridge.server.agent import Item, Round, Turn
from agentlin_bridge.server.protocol.refusals import Refusal
from agentlin_bridge.server.protocol.results import result_in
from agentlin_bridge.task import (
    ContentItem,
    MessageItem,
    OutputItem,
    ReasoningItem,
    TextContentItem,
    ToolCallItem,
    ToolResultItem,
)

_contents = TypeAdapter(list[ContentItem])
_item: TypeAdapter[Any] = TypeAdapter(OutputItem)


@dataclass(frozen=True)
class Told:
    """What a create body says about the session it begins or goes on with.

    Attributes:
        earlier: completed turns, oldest first, before those the server knows of.
        user_content: what the user says in this turn.
        rounds: the steps of this turn that were taken elsewhere, every call answered.
    """

    earlier: tuple[Turn, ...] = ()
    user_content: tuple[BaseModel, ...] = ()
    rounds: tuple[Round, ...] = ()


def is_replay(body: Mapping[str, Any]) -> bool:
    """Whether a body tells a turn from its beginning: the user's message, then calls with all their results.

    A client that only repeats the calls next to its results delivers them to the session that asked.
    """
    called: set[str] = set()
    begun = bool(body.get("history_messages"))
    for message in body.get("thought_messages") or ():
        if (result := result_in(message)) is not None:
            if result.call_id not in called:
                return False
        elif calls := _calls_in(message):
            called |= {call.call_id for call in calls}
        elif _is_user(message) and not called:
            begun = True
    return begun and bool(called) and not body.get("tool_results")


def told_in(body: Mapping[str, Any], *, replay: bool | None = None) -> Told:
    """The dialogue a body tells.

    Args:
        replay: what `is_replay` says of it, if that is known.

    Raises:
        Refusal: a call has no result, or a result no call.
    """
    if replay is None:
        replay = is_replay(body)
    teller = _Teller()
    for message in body.get("history_messages") or ():
        teller.tell(message, "history_messages")
    teller.close_turn()
    teller.user(_content_of(body.get("user_message_content")))
    for message in body.get("thought_messages") or ():
        if replay:
            teller.tell(message, "thought_messages")
        elif _is_user(message):
            teller.user(_user_content(message))
    return teller.told()


def said_in(body: Mapping[str, Any]) -> tuple[BaseModel, ...]:
    """What the user says in a request that delivers results: its own content, then user messages among them."""
    said = _content_of(body.get("user_message_content"))
    for message in body.get("thought_messages") or ():
        if _is_user(message):
            said += _user_content(message)
    return tuple(said)


@dataclass
class _Step:
    items: tuple[Item, ...]
    results: tuple[ToolResultItem, ...]
    note: list[BaseModel] = field(default_factory=list)


@dataclass
class _Open:
    user: list[BaseModel] = field(default_factory=list)
    steps: list[_Step] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    calls: list[ToolCallItem] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)
    results: dict[str, ToolResultItem] = field(default_factory=dict)

    def add(self, items: list[Item]) -> None:
        self.items += items
        calls = [item for item in items if isinstance(item, ToolCallItem)]
        self.calls += calls
        self.asked.update(call.call_id for call in calls)

    def end_step(self) -> None:
        for call in self.calls:
            if call.call_id not in self.results:
                raise Refusal(
                    f"The replayed tool call {call.call_id!r} has no result; send one, "
                    "or deliver the results you have to the session that asked"
                )
        results = tuple(self.results[call.call_id] for call in self.calls)
        self.steps.append(_Step(tuple(self.items), results))
        self.items, self.calls, self.asked, self.results = [], [], set(), {}

    @property
    def rounds(self) -> tuple[Round, ...]:
        return tuple(Round(step.items, step.results, tuple(step.note)) for step in self.steps)


class _Teller:
    def __init__(self) -> None:
        self._turns: list[Turn] = []
        self._open = _Open()

    def tell(self, message: Mapping[str, Any], where: str) -> None:
        """One message after the other."""
        now = self._open
        if (result := result_in(message)) is not None:
            if result.call_id not in now.asked:
                raise Refusal(f"{where}: the tool result {result.call_id!r} follows no call of that id")
            now.results[result.call_id] = result
        elif _is_user(message):
            self.user(_user_content(message))
        else:
            items = _items_in(message)
            if items and now.results:
                now.end_step()
            now.add(items)

    def user(self, content: list[BaseModel]) -> None:
        """The user says something: the beginning of a turn, or a note to its last step."""
        if not content:
            return
        if self._open.calls:
            self._open.end_step()
        self.close_turn()
        now = self._open
        if now.steps:
            now.steps[-1].note += content
        else:
            now.user += content

    def close_turn(self) -> None:
        """A turn that ended with an answer is over."""
        now = self._open
        if now.items and not now.calls:
            self._turns.append(Turn(tuple(now.user), now.rounds, tuple(now.items)))
            self._open = _Open()

    def told(self) -> Told:
        """All of it."""
        now = self._open
        if now.items:
            now.end_step()
        return Told(tuple(self._turns), tuple(now.user), now.rounds)


def _is_user(message: Mapping[str, Any]) -> bool:
    return message.get("role") == "user" and message.get("type") in {None, "message"}


def _user_content(message: Mapping[str, Any]) -> list[BaseModel]:
    return _content_of(message.get("content") or message.get("message_content"))


def _content_of(value: Any) -> list[BaseModel]:
    items = [] if value is None else value if isinstance(value, list) else [value]
    return list(_contents.validate_python(items))


def _calls_in(message: Mapping[str, Any]) -> list[ToolCallItem]:
    return [item for item in _items_in(message) if isinstance(item, ToolCallItem)]


def _items_in(message: Mapping[str, Any]) -> list[Item]:
    """What an agent said or called. System messages are the server's own business and carry nothing here."""
    if message.get("role") == "assistant" and message.get("type") in {None, "message"}:
        items: list[Item] = []
        content = _user_content(message)
        if any(not isinstance(item, TextContentItem) or item.text for item in content):
            items.append(MessageItem(role="assistant", message_content=content, status="completed"))
        items += [
            ToolCallItem(call_id=call["id"], status="completed", **_function(call["function"]))
            for call in message.get("tool_calls") or ()
        ]
        return items
    if message.get("type") in {"reasoning", "tool_call"}:
        item = _item.validate_python(dict(message))
        return [item] if isinstance(item, ReasoningItem | ToolCallItem) else []
    return []


def _function(function: Mapping[str, Any]) -> dict[str, str]:
    return {"name": function["name"], "arguments": function.get("arguments") or "{}"}
