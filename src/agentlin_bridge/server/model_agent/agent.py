"""An agent that is a chat model with tools."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio
from anyio.abc import TaskGroup
from langchain_core.runnables import Runnable

from agentlin_bridge.extras import require_extra
from agentlin_bridge.server.agent import AgentFailure, Conversation, OfferedTool, Step, Voice
from agentlin_bridge.server.model_agent.asking import Question, answered
from agentlin_bridge.server.model_agent.chat_model import chat_model_of, context_of
from agentlin_bridge.server.model_agent.messages import arguments_of, history_of
from agentlin_bridge.server.model_agent.offering import Offer, problem_of
from agentlin_bridge.server.model_agent.overrides import Overrides, read_overrides
from agentlin_bridge.server.model_agent.profiles import SEPARATOR, AgentProfile
from agentlin_bridge.server.model_agent.structured import AnswerSchema
from agentlin_bridge.server.protocol.refusals import Refusal
from agentlin_bridge.server.protocol.request import read_tools
from agentlin_bridge.task import ToolCallItem, ToolResult, ToolResultItem

if TYPE_CHECKING:
    from agentlin_bridge.server.model_agent.tool_servers import ToolServerConnection

CLOSING = 5.0
"""Seconds tool servers get to end by themselves."""


class ModelAgent:
    """What a profile describes, running."""

    def __init__(self, profile: AgentProfile) -> None:
        """Set up the model; nothing is connected yet.

        Raises:
            ConfigurationError: a package is missing, or the model cannot be set up.
        """
        self.profile = profile
        self._model = chat_model_of(profile)
        self._context = context_of(self._model, profile)
        self._servers = _connections(profile) if profile.tool_servers else {}
        self._open = AsyncExitStack()

    @property
    def name(self) -> str:
        """The profile's name."""
        return self.profile.name

    @property
    def description(self) -> str:
        """The profile's description, or what model it is."""
        return self.profile.description or f"the model {self.profile.model}"

    @property
    def max_steps(self) -> int:
        """Model calls for one user message."""
        return self.profile.limits.max_steps

    async def __aenter__(self) -> Self:
        """Start the tool servers, without waiting for them. One that does not start is tried again when needed."""
        group = await self._open.enter_async_context(anyio.create_task_group())
        self._open.callback(self._close, group)
        for server in self._servers.values():
            await group.start(server.own)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the tool servers."""
        # An error of the server's is none of this group's: it comes out as it is.
        await self._open.aclose()

    def _close(self, group: TaskGroup) -> None:
        for server in self._servers.values():
            server.close()
        group.cancel_scope.deadline = anyio.current_time() + CLOSING

    def check(self, request: Mapping[str, Any], overrides: Overrides) -> None:
        """Check that the agent can serve a create request.

        Raises:
            Refusal: it asks for another model, or offers a tool under a name of the server's.
        """
        _, _, name = self.profile.model.partition(":")
        if overrides.model not in {"", name, self.profile.model}:
            raise Refusal(
                f"The agent {self.name!r} runs {name!r}; agent_config.model can only be that, or empty", status=422
            )
        self._check_names(tool.name for tool in read_tools(request) or ())

    def _check_names(self, client_tools: Iterable[str]) -> None:
        """A client's tool never stands in for one of the server's: it would be given what was meant for that."""
        for name in client_tools:
            if self.owns(name):
                raise Refusal(
                    f"The client tool {name!r} has a name of the server's own tools; call it otherwise", status=422
                )

    async def step(self, conversation: Conversation, voice: Voice) -> Step:
        """Call the model once.

        Returns:
            Its items. A tool call that nobody can run is `incomplete`: `call` answers it, whoever owns its name.

        Raises:
            AgentFailure: there is no usable answer.
        """
        try:
            overrides = read_overrides(conversation.request)
            self._check_names(tool.name for tool in conversation.client_tools)
        except Refusal as refusal:
            raise AgentFailure(refusal.message, code=refusal.code) from None
        limit = self.profile.limits.step_timeout
        with anyio.move_on_after(limit):
            offer = Offer.of(conversation.client_tools, await self._own_tools(), overrides)
            step = await answered(self._question(conversation, offer, overrides), voice)
            return Step(offer.checked(step.items), step.usage)
        raise AgentFailure(
            f"{self.profile.model} did not finish its answer within {limit:g} seconds. Next: try again, ask for less, "
            "or raise the agent's step_timeout"
        )

    def _question(self, conversation: Conversation, offer: Offer, overrides: Overrides) -> Question:
        schema = AnswerSchema(overrides.output_schema) if overrides.output_schema is not None else None
        parts = [overrides.prompt or self.profile.prompt, schema.instruction if schema else ""]
        model: Runnable[Any, Any] = self._model
        definitions = offer.definitions
        if definitions:
            model = self._model.bind_tools(definitions)
        return Question(
            model=model.bind(**overrides.arguments) if overrides.arguments else model,
            name=self.profile.model,
            instructions="\n\n".join(filter(None, parts)),
            tools_text=json.dumps(definitions),
            history=history_of(conversation, self.profile.model),
            limit=min(self._context, overrides.max_context_tokens or self._context),
            schema=schema,
        )

    async def _own_tools(self) -> list[OfferedTool]:
        if not self._servers:
            return []
        from agentlin_bridge.server.model_agent.tool_servers import ToolServerDown  # noqa: PLC0415  # needs mcp

        found: list[OfferedTool] = []
        for server in self._servers.values():
            try:
                found += await server.tools()
            except ToolServerDown as error:
                raise AgentFailure(
                    f"The agent {self.name!r} cannot work: {error}. Next: the server's operator has to look at it"
                ) from None
        return found

    def owns(self, name: str) -> bool:
        """Whether a name is one of a tool server's tools. By its form, so that it holds while the server is down."""
        server, separator, _ = name.partition(SEPARATOR)
        return bool(separator) and server in self._servers

    async def call(self, call: ToolCallItem) -> ToolResultItem:
        """Run a tool of a tool server's. Whatever goes wrong, or why it cannot be run, is a result that says so."""
        return (await self._result(call)).to_item(call.call_id)

    async def _result(self, call: ToolCallItem) -> ToolResult:
        if problem := problem_of(call):
            return ToolResult.error(problem)
        server, _, _ = call.name.partition(SEPARATOR)
        connection: ToolServerConnection | None = self._servers.get(server)
        if connection is None:
            return ToolResult.error(f"there is no tool server {server!r}")
        try:
            arguments = arguments_of(call)
        except ValueError as error:
            return ToolResult.error(f"the arguments of {call.name} are not a JSON object: {error}. It was not run.")
        return await connection.call(call.name, arguments)


def _connections(profile: AgentProfile) -> dict[str, ToolServerConnection]:
    require_extra("mcp")
    from agentlin_bridge.server.model_agent.tool_servers import ToolServerConnection  # noqa: PLC0415  # slow

    return {name: ToolServerConnection(name, server, profile.limits) for name, server in profile.tool_servers.items()}
