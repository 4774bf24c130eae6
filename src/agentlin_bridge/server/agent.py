"""The seam where an agent loop plugs in.

An agent sees a whole conversation and returns what its model says next: tool calls, or an answer. The engine
owns the loop around it: what a step asked of the server is run, what it asked of the client is waited for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from pydantic import BaseModel

from agentlin_bridge.errors import SERVER_ERROR
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
        results: the server's own and the client's alike.
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


@dataclass(frozen=True)
class Step:
    """What one call of an agent's model produced.

    Attributes:
        items: reasoning, messages and tool calls, in order. An empty `call_id` is filled in.
        usage: `input_tokens`, `output_tokens` and `total_tokens`, as far as they are known.
    """

    items: tuple[Item, ...]
    usage: Mapping[str, int] = field(default_factory=dict)


class Voice(Protocol):
    """Told what a model says while it says it. Its methods never block."""

    def text(self, delta: str) -> None:
        """The next piece of the message."""
        ...

    def reasoning(self, delta: str) -> None:
        """The next piece of what the model thinks."""
        ...


class AgentFailure(Exception):
    """An agent cannot go on.

    Attributes:
        code: a JSON-RPC error code.
        message: the cause and the next step. The client sees it, so it holds nothing secret.
    """

    def __init__(self, message: str, *, code: int = SERVER_ERROR) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class Agent(Protocol):
    """Something that can take a turn, one model call at a time. It keeps nothing between two calls."""

    @property
    def name(self) -> str:
        """What it is called in messages."""
        ...

    @property
    def description(self) -> str:
        """What it can do, honestly, in one line."""
        ...

    @property
    def max_steps(self) -> int:
        """Model calls in one turn, that is for one user message; then the task fails."""
        ...

    async def __aenter__(self) -> Self:
        """Open what it needs. Entered by the server's process, for its whole life."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Close it."""
        ...

    async def step(self, conversation: Conversation, voice: Voice) -> Step:
        """Call the model once. It may be cancelled at any await.

        Returns:
            What the model produced. With tool calls among it the turn goes on when they are answered; else
            the task is completed.

        Raises:
            AgentFailure: for what it can explain. After any other exception the client is told only its type.
        """
        ...

    def owns(self, name: str) -> bool:
        """Whether the server runs the tool of this name; else the client does."""
        ...

    async def call(self, call: ToolCallItem) -> ToolResultItem:
        """Run a tool of the server's. What goes wrong with the tool is a result the model can read.

        A call with the status `incomplete` is one that nobody can run; the result says why.
        """
        ...


class Agents(Protocol):
    """All agents of a server."""

    def __iter__(self) -> Iterator[Agent]:
        """Each of them once. The server enters them all."""
        ...

    def pick(self, request: Mapping[str, Any]) -> Agent:
        """The agent a create request is for.

        Raises:
            Refusal: there is none such.
        """
        ...


@dataclass(frozen=True)
class OneAgent:
    """The agents of a server that has only one."""

    agent: Agent

    def __iter__(self) -> Iterator[Agent]:
        """The one."""
        yield self.agent

    def pick(self, request: Mapping[str, Any]) -> Agent:
        """The one, whatever the request says."""
        return self.agent


def answer(text: str) -> MessageItem:
    """An assistant message."""
    return MessageItem(role="assistant", message_content=[TextContentItem(text=text)])


def tool_call(name: str, arguments: str) -> ToolCallItem:
    """A tool call whose id the server chooses. `arguments` is JSON."""
    return ToolCallItem(call_id="", name=name, arguments=arguments)
