"""The seam where an agent loop plugs in.

An agent sees a whole conversation and returns what it does next: tool calls for the client, or an answer.
It keeps nothing between turns, so that a turn can be run again after a crash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel

from agentlin_bridge.task import MessageItem, TextContentItem, ToolCallItem, ToolResultItem

Item = BaseModel
"""An output item of `agentlin_bridge.task`."""


@dataclass(frozen=True)
class OfferedTool:
    """A client tool: the agent may call it, the client runs it. `parameters` is a JSON Schema."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Round:
    """What the agent did in one step, and the results of the tool calls among it, in their order.

    Attributes:
        note: user content that came along with the results.
    """

    items: tuple[Item, ...]
    results: tuple[ToolResultItem, ...]
    note: tuple[BaseModel, ...] = ()

    def result_of(self, call_id: str) -> ToolResultItem | None:
        """The result of one call of this round."""
        return next((result for result in self.results if result.call_id == call_id), None)


@dataclass(frozen=True)
class Turn:
    """An earlier, completed turn of the session."""

    user_content: tuple[BaseModel, ...]
    rounds: tuple[Round, ...]
    output: tuple[Item, ...]


@dataclass(frozen=True)
class Conversation:
    """All an agent needs for its next step.

    Attributes:
        earlier: the session's completed turns, oldest first.
        user_content: what this turn's user message holds.
        client_tools: what the client can run in this turn.
        rounds: the steps of this turn so far, every call answered.
        request: the newest request as it came, for fields the server itself does not use.
    """

    user_content: tuple[BaseModel, ...]
    client_tools: tuple[OfferedTool, ...] = ()
    rounds: tuple[Round, ...] = ()
    earlier: tuple[Turn, ...] = ()
    request: Mapping[str, Any] = field(default_factory=dict)


class Agent(Protocol):
    """Something that can take a turn."""

    @property
    def name(self) -> str:
        """What it is called in messages."""
        ...

    @property
    def description(self) -> str:
        """What it can do, honestly, in one line."""
        ...

    async def turn(self, conversation: Conversation) -> Sequence[Item]:
        """Take the next step.

        Returns:
            Output items. With a `ToolCallItem` among them the task waits for the client; else it is
            completed. An empty `call_id` is filled in.

        Raises:
            Exception: anything; the task then fails, naming the type of the error.
        """
        ...


def answer(text: str) -> MessageItem:
    """An assistant message."""
    return MessageItem(role="assistant", message_content=[TextContentItem(text=text)])


def tool_call(name: str, arguments: str) -> ToolCallItem:
    """A tool call whose id the server chooses. `arguments` is JSON."""
    return ToolCallItem(call_id="", name=name, arguments=arguments)
