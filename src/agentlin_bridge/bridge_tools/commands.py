"""A command, as a client tool."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from pydantic import SecretStr

from agentlin_bridge.delegation.client_tools import ClientTool
from agentlin_bridge.errors import BridgeError, ConfigurationError
from agentlin_bridge.task import ToolResult
from agentlin_bridge.tool_servers.approval import needs_approval
from agentlin_bridge.tool_servers.commands import Command
from agentlin_bridge.tool_servers.description import CommandEntry
from agentlin_bridge.tool_servers.discretion import Discretion
from agentlin_bridge.tool_servers.variables import Variables


@dataclass(frozen=True)
class CommandTool:
    """A command as a client tool."""

    source: str
    tool: ClientTool


def command_tool(name: str, entry: CommandEntry, result_chars: int) -> CommandTool:
    """The tool that a command is.

    Raises:
        ConfigurationError: its description cannot be used, or a variable it refers to is not set.
    """
    variables = Variables()
    where = f"client_tools.commands.{name}"
    env: Mapping[str, SecretStr] = variables.fill_in(entry.env, f"{where}.env")
    values = {variable: value.get_secret_value() for variable, value in env.items()}
    command = Command(
        name=name,
        argv=variables.fill_in(entry.command, f"{where}.command"),
        env=values,
        cwd=directory(variables.fill_in(entry.cwd, f"{where}.cwd")),
        timeout=entry.timeout,
        result_chars=result_chars,
        discretion=Discretion([*values.values(), *variables.used]),
    )
    try:
        tool = ClientTool(
            name,
            entry.description,
            entry.parameters,
            handler=partial(_run, command, anyio.CapacityLimiter(entry.concurrency)),
            approval="required" if needs_approval(entry.approval, None) else None,
        )
    except BridgeError as error:
        raise ConfigurationError(f"{where}: {error.message}", next_step=error.next_step) from None
    return CommandTool(f"the command {name!r}", tool)


def directory(cwd: str | None) -> str | None:
    """A directory as the configuration writes it."""
    return None if cwd is None else str(Path(cwd).expanduser())


async def _run(command: Command, slots: anyio.CapacityLimiter, /, **arguments: Any) -> ToolResult:
    async with slots:
        return await command.run(json.dumps(arguments, ensure_ascii=False))
