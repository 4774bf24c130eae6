"""From the configuration to the tools the bridge runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from agentlin_bridge.bridge_tools.commands import command_tool, directory
from agentlin_bridge.bridge_tools.servers import ServerTools
from agentlin_bridge.bridge_tools.together import BridgeTools
from agentlin_bridge.errors import ConfigurationError
from agentlin_bridge.extras import require_extra
from agentlin_bridge.tool_servers.description import CommandEntry, Reach, ServerEntry
from agentlin_bridge.tool_servers.discretion import Discretion
from agentlin_bridge.tool_servers.host_file import read_host_file
from agentlin_bridge.tool_servers.variables import Variables

logger = logging.getLogger(__name__)

_NOTES_CHARS = 200
"""Room in a result for what is said about it."""


class Described(Protocol):
    """What the configuration says about tools the bridge runs."""

    @property
    def tool_servers(self) -> Mapping[str, ServerEntry]:
        """MCP servers by name; one that says not how it is reached stands in the host file."""
        ...

    @property
    def tool_commands(self) -> Mapping[str, CommandEntry]:
        """Commands by the names of the tools they are."""
        ...

    @property
    def host_file(self) -> Path | None:
        """A host's own configuration file."""
        ...

    @property
    def host_servers(self) -> list[str] | None:
        """Which of its servers to use; None for all."""
        ...


def configured_tools(config: Described, *, taken: Mapping[str, str], result_chars: int) -> BridgeTools | None:
    """The tools that a configuration has the bridge run; None if there are none. Nothing is started yet.

    Args:
        config: the configuration.
        taken: by name, whose the tools are that the bridge has besides.
        result_chars: characters of one result.

    Raises:
        ConfigurationError: something of it cannot be used.
        MissingExtraError: it needs what is not installed.
    """
    room = max(1, result_chars - _NOTES_CHARS)
    servers = list(_servers(config, room))
    commands = [command_tool(name, entry, room) for name, entry in config.tool_commands.items()]
    if servers:
        require_extra("mcp")
    if not servers and not commands:
        return None
    return BridgeTools(servers, commands, taken)


def _servers(config: Described, result_chars: int) -> Iterator[ServerTools]:
    asked_for = {*config.tool_servers, *(config.host_servers or ())}
    for name, (entry, reach) in _reached(config).items():
        try:
            server = _server(name, entry, reach, result_chars)
        except ConfigurationError as error:
            # What stands in a host's file is written for the host, which may fill in more than we can.
            if name in asked_for:
                raise
            logger.warning(
                "the MCP server %r of %s is left out: %s Next: describe it under [client_tools.servers], or list "
                "those that are wanted in host_servers",
                name,
                config.host_file,
                error.message,
            )
        else:
            yield server


def _reached(config: Described) -> dict[str, tuple[ServerEntry, Reach]]:
    """The servers and how they are reached, those of the host file first."""
    entries = dict(config.tool_servers)
    of_host: Mapping[str, Reach] = {}
    elsewhere = [name for name, entry in entries.items() if not entry.is_given]
    if config.host_file is not None:
        of_host = read_host_file(config.host_file, config.host_servers, elsewhere)
    elif config.host_servers is not None:
        raise ConfigurationError(
            "client_tools.host_servers names servers, but no host_file that has them.",
            next_step='set host_file = "..." under [client_tools]',
        )
    found: dict[str, tuple[ServerEntry, Reach]] = {}
    for name, reach in of_host.items():
        # What is described here goes before the host's description.
        if not (entry := entries.get(name, ServerEntry())).is_given:
            found[name] = (entry, reach)
    for name, entry in entries.items():
        if entry.is_given:
            found[name] = (entry, entry)
        elif name not in found:
            raise ConfigurationError(
                f"client_tools.servers.{name} says not how the server is reached.",
                next_step="give a command or a url, or set host_file to a file that has the server",
            )
    return found


def _server(name: str, entry: ServerEntry, reach: Reach, result_chars: int) -> ServerTools:
    variables = Variables()
    where = f"client_tools.servers.{name}"
    fields = variables.fill_in({field: getattr(reach, field) for field in Reach.model_fields}, where)
    try:
        filled = Reach.model_validate({**fields, "cwd": directory(fields["cwd"])})
    except ValidationError:
        raise ConfigurationError(
            f"{where} cannot be used with its variables filled in.", next_step="correct it"
        ) from None
    if filled.url is not None and not filled.url.startswith(("http://", "https://")):
        raise ConfigurationError(f"{where}.url is no http(s) URL.", next_step="correct it")
    secrets = [value.get_secret_value() for value in (*filled.env.values(), *filled.headers.values())]
    return ServerTools(name, entry, filled, Discretion([*secrets, *variables.used]), result_chars)
