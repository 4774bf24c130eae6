"""The client tools a task carries: the host's, those it names, the bridge's own, and the two that ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentlin_bridge.delegation.client_tools import ClientTool, ToolLike
from agentlin_bridge.errors import InvalidRequestError
from agentlin_bridge.hosts.arguments import HostTool, NamedTool
from agentlin_bridge.hosts.mcp.asking import ASK_USER, OFFERED
from agentlin_bridge.settings import Config

ASK_HOST: dict[str, Any] = {
    "name": "ask_host",
    "description": "Ask the agent that delegated this task to do something only it can do, such as reading one of its "
    "files. It answers in text.",
    "parameters": {
        "type": "object",
        "properties": {"request": {"type": "string", "description": "What it shall do, in one or more sentences"}},
        "required": ["request"],
    },
}
"""Lets a host delegate without ever writing a schema."""


def offered(
    given: Sequence[HostTool], bound: Sequence[ClientTool], config: Config, *, is_possible: bool
) -> tuple[list[ToolLike], dict[str, Any]]:
    """The client tools of a new task, and its metadata, which tells whether `ask_user` is ours.

    Args:
        given: by the host.
        bound: executed by the bridge.
        config: which tools go by name, and which of ours are wanted.
        is_possible: whether the backend calls client tools; if not, nothing is added to the host's.

    Raises:
        InvalidRequestError: a tool is given by a name that is not configured.
    """
    tools: list[ToolLike] = [_resolved(tool, config) for tool in given]
    if not is_possible:
        return tools, {}
    tools += bound
    names = {tool.name for tool in given} | {tool.name for tool in bound}
    if config.mcp.ask_host and ASK_HOST["name"] not in names:
        tools.append(ASK_HOST)
    if not config.mcp.ask_user or ASK_USER["name"] in names:
        return tools, {}
    return [*tools, ASK_USER], OFFERED


def _resolved(tool: HostTool, config: Config) -> dict[str, Any]:
    spec = config.client_tools.get(tool.name)
    if spec is not None and tool.model_fields_set <= {"name"}:
        return {"name": tool.name, **spec.model_dump()}
    if isinstance(tool, NamedTool):
        known = ", ".join(config.client_tools) or "none are"
        raise InvalidRequestError(
            f"There is no configured client tool {tool.name[:64]!r} ({known} configured).",
            next_step="give its name, description and parameters",
        )
    return tool.model_dump()
