"""Agent profiles: what an operator writes down about an agent. Light to import."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from agentlin_bridge.errors import ConfigurationError
from agentlin_bridge.tool_servers.description import Reach, Strict

SEPARATOR = "__"
"""Stands between a tool server's name and its tool's in the name a model calls."""

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_WITH_VARIABLES = frozenset({"model_options", "tool_servers"})

ServerName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9-]|_(?!_)){0,30}(?<!_)$")]


class ToolServer(Reach):
    """An MCP server, in the shape hosts use: a command to start, or a URL to talk to.

    Attributes:
        tools: the names of the tools the agent gets, as the MCP server calls them; None for all.
    """

    url: str | None = Field(None, pattern=r"^https?://", repr=False)
    tools: list[str] | None = None

    @model_validator(mode="after")
    def _is_reached(self) -> Self:
        if not self.is_given:
            raise ValueError("give either command or url")
        return self


class AgentLimits(Strict):
    """Bounds on what one agent may use.

    Attributes:
        max_steps: model calls for one user message.
        max_context_tokens: of one model call, as estimated; None for what the model's provider tells, and
            `UNKNOWN_CONTEXT` if it tells nothing.
        step_timeout: seconds for one model call with its retries.
        tool_timeout: seconds for one call of a server-side tool.
        result_chars: characters of text of one such call's result.
    """

    max_steps: int = Field(50, ge=1, le=1000)
    max_context_tokens: int | None = Field(None, ge=500)
    step_timeout: float = Field(600, gt=0)
    tool_timeout: float = Field(60, gt=0)
    result_chars: int = Field(50_000, ge=200)


class AgentProfile(Strict):
    """An agent.

    Attributes:
        name: by which requests pick it.
        prompt: its system message.
        model: `provider:model`, as LangChain names them.
        model_options: arguments for the model's class, such as `temperature` or `base_url`.
        tool_servers: MCP servers by name; their tools are called `<server>__<tool>`.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$")
    description: str = ""
    prompt: str = ""
    model: str = Field(pattern=r"^[A-Za-z0-9_-]+:.+$")
    model_options: dict[str, Any] = Field({}, repr=False)
    tool_servers: dict[ServerName, ToolServer] = Field({})
    limits: AgentLimits = AgentLimits()


def read_profiles(agents: Mapping[str, Any]) -> tuple[AgentProfile, ...]:
    """Profiles from the configuration: by their names, the other fields.

    In `model_options` and `tool_servers` `${NAME}` stands for an environment variable, so that no secret has to be
    written down.

    Raises:
        ConfigurationError: naming the field, the cause and the next step. No value is repeated.
    """
    return tuple(_profile(name, fields) for name, fields in agents.items())


def profile_of_model(model: str) -> AgentProfile:
    """The profile of an agent that is only a model.

    Raises:
        ConfigurationError: it is not written `provider:model`.
    """
    try:
        return AgentProfile(name="default", description=f"the model {model}", model=model)
    except ValidationError:
        raise ConfigurationError(
            f"{model!r} names no model.",
            next_step="write it provider:model, such as openai:gpt-5.5 or anthropic:claude-opus-4-7",
        ) from None


def _profile(name: str, fields: Any) -> AgentProfile:
    try:
        if not isinstance(fields, Mapping):
            return AgentProfile.model_validate(fields)
        told = {field: _filled_in(fields[field], f"agents.{name}.{field}") for field in _WITH_VARIABLES & fields.keys()}
        return AgentProfile.model_validate({"name": name, **fields, **told})
    except ValidationError as error:
        # Neither the input nor the cause is shown: both may hold secrets.
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(("agents", name, *map(str, first["loc"])))
        what = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{where}: {what}.", next_step="correct the agent's profile") from None


def _filled_in(value: Any, where: str) -> Any:
    """A value with the environment's variables in their places."""
    if isinstance(value, Mapping):
        return {key: _filled_in(one, f"{where}.{key}") for key, one in value.items()}
    if isinstance(value, list):
        return [_filled_in(one, where) for one in value]
    return _VARIABLE.sub(lambda found: _variable(found[1], where), value) if isinstance(value, str) else value


def _variable(name: str, where: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise ConfigurationError(
            f"{where} refers to the environment variable {name}, which is not set.", next_step=f"set {name}"
        )
    return value
