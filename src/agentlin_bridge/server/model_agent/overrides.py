"""What a create request may say about its agent, and nothing more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentlin_bridge.json_schema import schema_problem
from agentlin_bridge.server.protocol.refusals import Refusal

_NOT_FOR_US = frozenset({"use_responses_backend", "stream"})
"""Inference arguments of other servers' transport, which unchanged clients send."""


class _AgentConfig(BaseModel):
    """The fields of `agent_config` that mean something here. The documents have more; they are ignored."""

    model_config = ConfigDict(strict=True)

    agent_id: str = ""
    developer_prompt: str = Field("", max_length=200_000)
    model: str = ""
    max_model_length: int | None = Field(None, ge=500)
    max_response_length: int | None = Field(None, ge=1)


class _InferenceArgs(BaseModel):
    """Model parameters a client may choose: none that changes where requests go or who pays."""

    model_config = ConfigDict(extra="forbid", strict=True)

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    stop: list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    reasoning_effort: str | None = None


class _Request(BaseModel):
    """The fields of a create request that concern a model agent."""

    model_config = ConfigDict(strict=True)

    agent_config: _AgentConfig | None = None
    client_id: str | None = None
    inference_args: _InferenceArgs | None = None
    allowed_tools: list[str] | None = None
    disallowed_tools: list[str] | None = None
    structured_output: dict[str, Any] | None = None


@dataclass(frozen=True)
class Overrides:
    """What a request says.

    Attributes:
        agent_id: the agent it asks for by name; empty for none.
        client_id: who asks; an agent of that name is the client's default.
        prompt: replaces the profile's; empty for none.
        model: the model it expects; empty for any.
        max_context_tokens: lowers the profile's limit.
        arguments: model parameters of every call.
        allowed_tools: the only tools it wants, client tools included; None for no limit.
        output_schema: the JSON Schema of the answer.
    """

    agent_id: str = ""
    client_id: str = ""
    prompt: str = ""
    model: str = ""
    max_context_tokens: int | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    allowed_tools: frozenset[str] | None = None
    disallowed_tools: frozenset[str] = frozenset()
    output_schema: Mapping[str, Any] | None = None

    def allows(self, tool: str) -> bool:
        """Whether the request lets its agent use a tool."""
        return (self.allowed_tools is None or tool in self.allowed_tools) and tool not in self.disallowed_tools


def read_overrides(request: Mapping[str, Any]) -> Overrides:
    """Read a create request.

    Raises:
        Refusal: a field has the wrong type, a model parameter cannot be chosen, the schema is none.
    """
    known = {name: request[name] for name in _Request.model_fields if request.get(name) is not None}
    if isinstance(arguments := known.get("inference_args"), Mapping):
        known["inference_args"] = {name: value for name, value in arguments.items() if name not in _NOT_FOR_US}
    try:
        read = _Request.model_validate(known)
    except ValidationError as error:
        raise Refusal(_misfit(error), status=422) from None
    schema = read.structured_output
    if schema is not None and (problem := schema_problem(schema)):
        raise Refusal(f"structured_output is no JSON Schema: {problem[:300]}", status=422)
    config = read.agent_config or _AgentConfig()
    chosen = (read.inference_args or _InferenceArgs()).model_dump(exclude_none=True)
    if config.max_response_length is not None:
        chosen.setdefault("max_tokens", config.max_response_length)
    return Overrides(
        agent_id=config.agent_id,
        client_id=read.client_id or "",
        prompt=config.developer_prompt,
        model=config.model,
        max_context_tokens=config.max_model_length,
        arguments=chosen,
        allowed_tools=None if read.allowed_tools is None else frozenset(read.allowed_tools),
        disallowed_tools=frozenset(read.disallowed_tools or ()),
        output_schema=schema,
    )


def _misfit(error: ValidationError) -> str:
    # The input is left out: it may be long, or a key in the wrong place.
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return f"{where} cannot be chosen by a request; these can: {', '.join(_InferenceArgs.model_fields)}"
    return f"{where}: {first['msg']}"
