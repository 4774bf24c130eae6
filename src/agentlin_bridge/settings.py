"""Settings from the environment and an optional TOML file.

The environment names what differs between machines; the file (`AGENTLIN_BRIDGE_CONFIG`, or
`agentlin-bridge.toml` in the working directory) holds limits and agent profiles.
"""

from __future__ import annotations

import re
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from platformdirs import user_data_path
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from agentlin_bridge.delegation.limits import Limits
from agentlin_bridge.errors import ConfigurationError
from agentlin_bridge.tool_servers.description import CommandEntry, ServerEntry, SourceName, ToolName

DEFAULT_BASE_URL = "https://api.linxueyuan.online/v1"
"""The documented deployment (source: `agentlin_client` 1.14.0)."""

CONFIG_FILE = "agentlin-bridge.toml"


class BackendName(StrEnum):
    """Who can run tasks."""

    AGENTLIN = "agentlin"
    EMBEDDED = "embedded"
    NLA = "nla"


class McpConfig(BaseModel):
    """How the MCP server shows itself.

    Attributes:
        prefix: what its tools' names begin with.
        ask_host: whether every task carries `ask_host(request)`.
        ask_user: whether every task carries `ask_user(question)`.
    """

    model_config = ConfigDict(extra="forbid")

    prefix: str = Field("agentlin_", pattern=r"^[A-Za-z0-9_-]{0,16}$")
    ask_host: bool = True
    ask_user: bool = True


class ToolSpec(BaseModel):
    """A client tool that a host's model executes, and may offer by its name alone."""

    model_config = ConfigDict(extra="forbid")

    description: str = ""
    parameters: dict[str, Any] = {"type": "object", "properties": {}}


class ServerConfig(BaseModel):
    """The embedded server.

    Attributes:
        agents: agents on chat models, by name; the fields are those of `server.model_agent.AgentProfile`.
        expires_in: seconds a task has unless its request says otherwise; None is for ever.
        retention: seconds for which ended tasks are kept; None is for ever.
    """

    model_config = ConfigDict(extra="forbid")

    agents: dict[str, dict[str, Any]] = {}
    expires_in: float | None = Field(None, gt=0)
    retention: float | None = Field(None, gt=0)


_SOURCES = {
    "servers": "tool_servers",
    "commands": "tool_commands",
    "host_file": "host_file",
    "host_servers": "host_servers",
}
"""What else than declared tools stands under `[client_tools]`, and the field of `Config` it becomes."""


def _is_declared(value: object) -> bool:
    """Whether it is a declared tool rather than tables of servers or commands."""
    if not isinstance(value, dict) or not value or not value.keys() <= ToolSpec.model_fields.keys():
        return False
    return isinstance(value.get("description"), str) or "type" in value.get("parameters", {})


class Config(BaseModel):
    """The TOML file.

    Attributes:
        limits: bounds on time, size and concurrency.
        agents: agent profiles: per name, parameters of the backend's create request.
        client_tools: by name, client tools that a host's model executes.
        tool_servers: by name, MCP servers whose tools the bridge executes; one without command and url is the host
            file's.
        tool_commands: by the tools' names, commands that the bridge executes.
        host_file: a host's own configuration file, with MCP servers.
        host_servers: which of its servers are used; None for all.
        mcp: how the MCP server shows itself.
        server: how the embedded server works, and its agents.
    """

    model_config = ConfigDict(extra="forbid")

    limits: Limits = Limits()
    agents: dict[str, dict[str, Any]] = {}
    client_tools: dict[str, ToolSpec] = {}
    tool_servers: dict[SourceName, ServerEntry] = Field({}, validation_alias=AliasPath("client_tools", "servers"))
    tool_commands: dict[ToolName, CommandEntry] = Field({}, validation_alias=AliasPath("client_tools", "commands"))
    host_file: Path | None = Field(None, validation_alias=AliasPath("client_tools", "host_file"))
    host_servers: list[str] | None = Field(None, validation_alias=AliasPath("client_tools", "host_servers"))
    mcp: McpConfig = McpConfig()
    server: ServerConfig = ServerConfig()

    @field_validator("client_tools", mode="before")
    @classmethod
    def _declared(cls, given: Any) -> Any:
        """Those tools that are declared; the rest of the table has fields of its own."""
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if name not in _SOURCES or _is_declared(value)}

    @field_validator(*_SOURCES.values(), mode="before")
    @classmethod
    def _not_declared(cls, given: Any, info: ValidationInfo) -> Any:
        """A tool may be declared that is called like one of these fields."""
        return cls.model_fields[info.field_name or ""].default if _is_declared(given) else given

    @field_validator("host_file")
    @classmethod
    def _beside_this_file(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return None if path is None else Path((info.context or {}).get("directory", ".")) / path.expanduser()

    @property
    def default_model(self) -> str | None:
        """The model of the first of the server's agents."""
        return next((str(agent.get("model")) for agent in self.server.agents.values()), None)


class Settings(BaseSettings):
    """What the environment says. An empty variable counts as not set."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", populate_by_name=True)

    base_url: str | None = Field(None, validation_alias=AliasChoices("AGENTLIN_BASE_URL", "CLIENT_BASE_URL"))
    api_key: SecretStr | None = Field(None, validation_alias="AGENTLIN_API_KEY")
    client_id: str | None = Field(None, validation_alias="AGENTLIN_CLIENT_ID")
    user_id: str | None = Field(None, validation_alias="AGENTLIN_USER_ID")
    nla_base_url: str | None = Field(None, validation_alias="NLA_ENGINE_BASE_URL")
    nla_api_key: SecretStr | None = Field(None, validation_alias="NLA_ENGINE_API_KEY")
    nla_agent: str | None = Field(None, validation_alias="NLA_ENGINE_AGENT")
    chosen_backend: str | None = Field(None, validation_alias="AGENTLIN_BRIDGE_BACKEND")
    ledger: SecretStr = Field(SecretStr(""), validation_alias="AGENTLIN_BRIDGE_LEDGER")
    database: str = Field("", validation_alias="AGENTLIN_BRIDGE_DATABASE")
    model: str | None = Field(None, validation_alias="AGENTLIN_BRIDGE_MODEL")
    dialect: Literal["documented", "published"] | None = Field(None, validation_alias="AGENTLIN_BRIDGE_DIALECT")
    server_tools: Literal["all", "none"] = Field("all", validation_alias="AGENTLIN_BRIDGE_SERVER_TOOLS")
    config_file: Path | None = Field(None, validation_alias="AGENTLIN_BRIDGE_CONFIG")
    server_keys: dict[str, SecretStr] = Field({}, validation_alias="AGENTLIN_BRIDGE_SERVER_KEYS")
    mcp_tokens: dict[str, SecretStr] = Field({}, validation_alias="AGENTLIN_BRIDGE_MCP_TOKENS")
    mcp_keys: list[SecretStr] = Field([], validation_alias="AGENTLIN_BRIDGE_MCP_KEYS")
    mcp_hosts: list[str] = Field([], validation_alias="AGENTLIN_BRIDGE_MCP_HOSTS")
    mcp_origins: list[str] = Field([], validation_alias="AGENTLIN_BRIDGE_MCP_ORIGINS")

    @field_validator("base_url", "nla_base_url")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
                raise ValueError(f"{value!r} is not an http(s) URL; write it like {DEFAULT_BASE_URL}")
            if parts.username or parts.password:
                raise ValueError("a URL must not carry credentials; the key has a variable of its own")
        return value

    @field_validator("api_key", "nla_api_key")
    @classmethod
    def _sendable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        key = value.get_secret_value().strip()
        if not key.isascii() or not key.isprintable() or " " in key or not key:
            raise ValueError("the key holds characters that no key has; set it again")
        return SecretStr(key)

    @property
    def backend(self) -> BackendName:
        """The backend to use.

        Raises:
            ConfigurationError: the settings do not say, or contradict each other.
        """
        if self.chosen_backend is None:
            if self.base_url is not None or self.api_key is not None:
                return BackendName.AGENTLIN
            if self.client_id is not None:
                raise ConfigurationError(
                    "AGENTLIN_CLIENT_ID is set, but neither AGENTLIN_BASE_URL nor AGENTLIN_API_KEY is.",
                    next_step="set AGENTLIN_API_KEY, or remove AGENTLIN_CLIENT_ID to use the embedded server",
                )
            if self.nla_base_url is not None or self.nla_api_key is not None:
                # Whoever sets up nothing else does not mean the demo agent.
                return self.checked(BackendName.NLA)
            return BackendName.EMBEDDED
        try:
            chosen = BackendName(self.chosen_backend)
        except ValueError as error:
            raise ConfigurationError(
                f"AGENTLIN_BRIDGE_BACKEND is {self.chosen_backend!r}.",
                next_step=f"use one of: {', '.join(BackendName)}",
            ) from error
        return self.checked(chosen)

    def checked(self, backend: BackendName) -> BackendName:
        """A backend for which all is set that it needs.

        Raises:
            ConfigurationError: something is missing.
        """
        if backend is BackendName.AGENTLIN and self.base_url is None and self.api_key is None:
            raise ConfigurationError(
                "The backend agentlin is to be used, but neither AGENTLIN_BASE_URL nor AGENTLIN_API_KEY is set.",
                next_step="set AGENTLIN_API_KEY, and AGENTLIN_BASE_URL for a deployment of your own",
            )
        if backend is BackendName.NLA and self.nla_base_url is None:
            raise ConfigurationError(
                "The backend nla is to be used, but NLA_ENGINE_BASE_URL is not set; there is no documented default.",
                next_step="set NLA_ENGINE_BASE_URL to the address before /api/v1, and NLA_ENGINE_API_KEY",
            )
        return backend

    @property
    def ledger_path(self) -> str:
        """Where the ledger is. A URL may hold a password."""
        return self.ledger.get_secret_value() or str(data_directory() / "ledger.sqlite3")

    def database_path(self, model: str | None) -> Path:
        """Where the embedded server keeps its tasks: unless it is named, each default model has its own.

        Hosts with other models would else take each other's server for theirs.

        Args:
            model: the server's default model; None for the demo agent.

        Raises:
            ConfigurationError: it is named, and is no path.
        """
        if "://" in self.database:
            raise ConfigurationError(
                "AGENTLIN_BRIDGE_DATABASE is a URL; the server that is started on demand keeps its tasks in a file.",
                next_step="give a path, or run `agentlin-bridge serve --database URL` and set AGENTLIN_BASE_URL",
            )
        if self.database:
            return Path(self.database).expanduser()
        named = "" if model is None else "-" + re.sub(r"[^A-Za-z0-9.]+", "-", model).strip("-")
        return data_directory() / f"embedded{named}.sqlite3"

    @property
    def config_path(self) -> Path | None:
        """The configuration file, if there is one."""
        path = self.config_file or Path(CONFIG_FILE)
        return path.absolute() if path.exists() else None

    def load_config(self) -> Config:
        """Read the configuration file, if there is one.

        Raises:
            ConfigurationError: it is missing where it was named, or cannot be understood.
        """
        path = self.config_file or Path(CONFIG_FILE)
        if self.config_path is None:
            if self.config_file is None:
                return Config()
            raise ConfigurationError(
                f"AGENTLIN_BRIDGE_CONFIG names {path}, which does not exist.", next_step="correct the path or unset it"
            )
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
            return Config.model_validate(content, context={"directory": path.absolute().parent})
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError(f"{path} cannot be read: {error}.", next_step="correct the file") from error
        except ValidationError as error:
            raise ConfigurationError(f"{path}: {_first(error)}.", next_step="correct the file") from error


def data_directory() -> Path:
    """Where the ledger and the embedded server's database are by default."""
    return user_data_path("agentlin-bridge", appauthor=False)


def load_settings(**given: Any) -> Settings:
    """Read and check the environment.

    Args:
        given: fields of `Settings` that go before what the environment says.

    Raises:
        ConfigurationError: naming the variable, the cause and the next step.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        raise ConfigurationError(f"{_first(error)}.", next_step="correct the environment variable") from error
    except SettingsError as error:
        # Its message names the field, and no value.
        raise ConfigurationError(f"{error}.", next_step='write it as JSON, like {"name": "key"} or ["key"]') from None


def _first(error: ValidationError) -> str:
    # The input is left out: it may be a secret.
    found = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in found["loc"])
    return f"{where}: {found['msg'].removeprefix('Value error, ')}"
