"""The MCP servers of an agent: their tools by the names a model calls, `<server>__<tool>`."""

from __future__ import annotations

import re
from typing import Any

import anyio
from anyio.abc import TaskStatus

from agentlin_bridge.server.agent import OfferedTool
from agentlin_bridge.server.model_agent.failures import without_secrets
from agentlin_bridge.server.model_agent.profiles import SEPARATOR, AgentLimits, ToolServer
from agentlin_bridge.task import ToolResult
from agentlin_bridge.tool_servers import connection
from agentlin_bridge.tool_servers.connection import Terms, ToolServerDown
from agentlin_bridge.tool_servers.description import Reach

__all__ = ["START_TIMEOUT", "ToolServerConnection", "ToolServerDown"]

START_TIMEOUT = 30.0
"""Seconds until a server has to be up with its list of tools."""
_NAME_LENGTH = 64
_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9_-]+")


class ToolServerConnection:
    """One MCP server of an agent. It is started with the agent, and again after it broke."""

    def __init__(self, name: str, server: ToolServer, limits: AgentLimits) -> None:
        self.name = name
        terms = Terms(
            tools=server.tools,
            start_timeout=START_TIMEOUT,
            timeout=limits.tool_timeout,
            result_chars=limits.result_chars,
            at_once=True,
        )
        reach = Reach(**{field: getattr(server, field) for field in Reach.model_fields})
        self._connection = connection.ToolServerConnection(name, reach, terms, named=self._named, told=without_secrets)

    async def own(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Open the connection, again whenever it is asked for, and close it when it is broken or no more needed."""
        await self._connection.own(task_status=task_status)

    def close(self) -> None:
        """Let the owner end."""
        self._connection.close()

    async def tools(self) -> list[OfferedTool]:
        """What the server offers, as far as the agent may use it.

        Raises:
            ToolServerDown: it does not run and cannot be started.
        """
        tools = await self._connection.tools()
        return [OfferedTool(name, tool.description or "", tool.input_schema) for name, tool in tools.items()]

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        """Run a tool. Whatever goes wrong is a result that says so."""
        return await self._connection.call(name, arguments)

    def _named(self, tool: str) -> str:
        return f"{self.name}{SEPARATOR}{_NOT_ALLOWED.sub('_', tool)}"[:_NAME_LENGTH]
