"""Agents with which tests drive the server, and what they say to it."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from threading import Event
from typing import Any, Self

from anyio import to_thread

from agentlin_bridge.server.agent import Conversation, Item, Step, Voice, answer, tool_call
from agentlin_bridge.task import TextContentItem, ToolCallItem, ToolResultItem, text_of


class Simple:
    """An agent without tools of its own."""

    name = "simple agent"
    description = "for tests"
    max_steps = 50

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def owns(self, name: str) -> bool:
        return False

    async def call(self, call: ToolCallItem) -> ToolResultItem:
        raise AssertionError("it has no tools")

    async def step(self, conversation: Conversation, voice: Voice) -> Step:
        raise NotImplementedError


class Scripted(Simple):
    """Does what a function of the conversation says."""

    name = "scripted agent"

    def __init__(self, step: Callable[[Conversation], Sequence[Item]]) -> None:
        self._step = step
        self.seen: list[Conversation] = []

    async def step(self, conversation: Conversation, voice: Voice) -> Step:
        self.seen.append(conversation)
        return Step(tuple(self._step(conversation)))


class Gated(Simple):
    """Announces every turn and stays in it until the gate is open."""

    name = "gated agent"

    def __init__(self) -> None:
        self.gate = Event()
        self.entered = Event()
        self.seen: list[str] = []
        self.inside = 0
        self.most_inside = 0

    async def step(self, conversation: Conversation, voice: Voice) -> Step:
        self.seen.append(text_of(conversation.user_content))
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        self.entered.set()
        try:
            while not self.gate.is_set():
                await to_thread.run_sync(self.gate.wait, 0.02)
        finally:
            self.inside -= 1
        return Step((answer(f"done: {text_of(conversation.user_content)}"),))


class Tooled(Simple):
    """Does what a function of the conversation says; its own tools are functions of their arguments."""

    name = "tooled agent"

    def __init__(
        self,
        step: Callable[[Conversation], Sequence[Item] | Awaitable[Sequence[Item]]],
        tools: Mapping[str, Callable[..., Any]] | None = None,
        *,
        max_steps: int = 50,
        says: Sequence[str] = (),
    ) -> None:
        self._step = step
        self._tools = tools or {}
        self._says = says
        self.max_steps = max_steps
        self.steps = 0
        self.called: list[str] = []

    async def step(self, conversation: Conversation, voice: Voice) -> Step:
        self.steps += 1
        for piece in self._says:
            voice.reasoning(piece)
            voice.text(piece)
        items = self._step(conversation)
        return Step(tuple(items if isinstance(items, Sequence) else await items), {"input_tokens": 3})

    def owns(self, name: str) -> bool:
        return name in self._tools

    async def call(self, call: ToolCallItem) -> ToolResultItem:
        self.called.append(call.name)
        value = self._tools[call.name](**json.loads(call.arguments))
        if isinstance(value, Awaitable):
            value = await value
        return ToolResultItem(call_id=call.call_id, message_content=[TextContentItem(text=str(value))])


def weather(conversation: Conversation) -> Sequence[Item]:
    """Asks for the weather of every city named, then repeats the results."""
    if not conversation.rounds:
        cities = text_of(conversation.user_content).split()
        return [tool_call("get_weather", json.dumps({"city": city})) for city in cities]
    return [answer(" | ".join(result.text for result in conversation.rounds[-1].results))]


def eventually(happened: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until something that comes without an event has happened."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


READ_FILE = {
    "type": "function",
    "function": {
        "name": "read_file",
        "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
    },
}
ASK_HOST = {
    "type": "function",
    "function": {
        "name": "ask_host",
        "parameters": {"type": "object", "properties": {"request": {"type": "string"}}, "required": ["request"]},
    },
}


def result(call_id: str, text: str) -> dict[str, Any]:
    """A tool result as the published SDK types it."""
    return {
        "type": "tool_result",
        "call_id": call_id,
        "message_content": [{"type": "text", "text": text}],
        "block_list": [],
    }


def tool_message(call_id: str, content: str | list[dict[str, Any]]) -> dict[str, Any]:
    """A tool result as chat models write it."""
    return {"role": "tool", "tool_call_id": call_id, "content": content}
