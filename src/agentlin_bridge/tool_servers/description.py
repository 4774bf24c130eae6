"""What an operator writes down about MCP servers and commands whose tools shall be used. Light to import."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, model_validator

Policy = Literal["never", "destructive", "always"]
"""Which calls a person has to approve; `destructive`: those of tools that do not claim to be harmless."""

SourceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._@/-]{0,63}$")]
"""How the configuration calls a server."""

ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""A name that every model can call."""


class Strict(BaseModel):
    """A part of the configuration: a misspelt field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, regex_engine="python-re")


class Reach(Strict):
    """How an MCP server is reached, in the shape hosts use. What may hold a secret stays out of the representation.

    Attributes:
        type: only `stdio` with a command, or `http` with a url; it may be left out.
        env: added to a small safe environment; the process's own is not passed on.
    """

    type: Literal["stdio", "http", "streamable-http"] | None = None
    command: str | None = Field(None, min_length=1)
    args: list[str] = Field([], repr=False)
    env: dict[str, SecretStr] = {}
    cwd: str | None = None
    url: str | None = Field(None, repr=False)
    headers: dict[str, SecretStr] = {}

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.command is not None and self.url is not None:
            raise ValueError("give either command or url")
        if self.command is None and (self.args or self.env or self.cwd):
            raise ValueError("args, env and cwd belong to a command, not to a url")
        if self.url is None and self.headers:
            raise ValueError("headers belong to a url, not to a command")
        if self.type is not None and (self.type == "stdio") == (self.command is None):
            raise ValueError(f"type {self.type!r} needs a {'command' if self.type == 'stdio' else 'url'}")
        return self

    @property
    def is_given(self) -> bool:
        """Whether it says how to reach the server at all."""
        return self.command is not None or self.url is not None


class ServerEntry(Reach):
    """An MCP server whose tools the bridge offers to remote agents and runs for them.

    Attributes:
        tools: the names of the tools that are offered, as the server calls them; None for all.
        prefix: put before each tool's name.
        approval: which of their calls a person has to approve.
        approvals: the same for single tools, as the server calls them.
        concurrency: calls at once.
        timeout: seconds for one call.
        start_timeout: seconds for which a new task waits for the server to be up with its list of tools.
    """

    tools: list[str] | None = None
    prefix: str = Field("", pattern=r"^[A-Za-z0-9_-]{0,32}$")
    approval: Policy = "destructive"
    approvals: dict[str, Policy] = {}
    concurrency: int = Field(4, ge=1)
    timeout: float = Field(60, gt=0)
    start_timeout: float = Field(10, gt=0)


class CommandEntry(Strict):
    """A command that is a tool: its arguments come as JSON on its stdin, its stdout is the result. No shell is used.

    Attributes:
        command: the program and its arguments.
        parameters: a JSON Schema of type object.
        env: added to a small safe environment.
        approval: whether a person has to approve each call. Nothing is known of what the command does, so
            `destructive` asks like `always`.
        concurrency: calls at once.
        timeout: seconds for one call.
    """

    command: list[str] = Field(min_length=1, repr=False)
    description: str = ""
    parameters: dict[str, Any] = {"type": "object", "properties": {}}
    env: dict[str, SecretStr] = {}
    cwd: str | None = None
    approval: Policy = "destructive"
    concurrency: int = Field(4, ge=1)
    timeout: float = Field(60, gt=0)
