"""An agent's connection to an MCP server: opened by an owner that ends it, and again after it broke."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx2
from anyio.abc import TaskStatus
from anyio.streams.memory import MemoryObjectSendStream
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, INVALID_REQUEST, REQUEST_TIMEOUT, Tool

from agentlin_bridge.server.agent import OfferedTool
from agentlin_bridge.server.model_agent.failures import without_secrets
from agentlin_bridge.server.model_agent.profiles import SEPARATOR, AgentLimits, ToolServer
from agentlin_bridge.server.model_agent.tool_results import result_of
from agentlin_bridge.task import ToolResult

logger = logging.getLogger(__name__)

START_TIMEOUT = 30.0
"""Seconds until a server has to be up with its list of tools."""
_MOST_PAGES = 50
_NAME_LENGTH = 64
_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9_-]+")
_HTTP_TIMEOUT = 30.0


class ToolServerDown(Exception):
    """The server cannot be started or reached; says why."""


@dataclass
class _Link:
    """One life of the connection."""

    settled: anyio.Event = field(default_factory=anyio.Event)
    broken: anyio.Event = field(default_factory=anyio.Event)
    client: Client | None = None
    tools: Mapping[str, Tool] = field(default_factory=dict)
    problem: str = ""


class ToolServerConnection:
    """The tools of one MCP server, by the names a model calls: `<server>__<tool>`."""

    def __init__(self, name: str, server: ToolServer, limits: AgentLimits) -> None:
        self.name = name
        self._server = server
        self._limits = limits
        self._link: _Link | None = None
        self._asking: MemoryObjectSendStream[_Link] | None = None

    async def own(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Open the connection, again whenever it is asked for, and close it when it is broken or no more needed."""
        self._asking, asked = anyio.create_memory_object_stream[_Link](float("inf"))
        with self._asking, asked:
            self._link = _ask(self._asking)
            task_status.started()
            async for link in asked:
                await self._live(link)

    def close(self) -> None:
        """Let the owner end."""
        if self._asking is not None and self._link is not None:
            self._asking.close()
            self._link.broken.set()

    async def tools(self) -> list[OfferedTool]:
        """What the server offers, as far as the agent may use it.

        Raises:
            ToolServerDown: it does not run and cannot be started.
        """
        link = await self._open_link()
        return [OfferedTool(name, tool.description or "", tool.input_schema) for name, tool in link.tools.items()]

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        """Run a tool. Whatever goes wrong is a result that says so."""
        try:
            link = await self._open_link()
        except ToolServerDown as error:
            return ToolResult.error(f"{error}. {name} was not run.")
        tool = link.tools.get(name)
        if tool is None or link.client is None:
            return ToolResult.error(f"there is no tool {name!r}; it may have been removed. Next: use another one")
        try:
            returned = await link.client.call_tool(tool.name, arguments, read_timeout_seconds=self._limits.tool_timeout)
        except Exception as error:
            return self._failed(link, name, error)
        return result_of(returned, self._limits.result_chars)

    def _failed(self, link: _Link, name: str, error: Exception) -> ToolResult:
        """What went wrong; where it is the connection, that is over."""
        if isinstance(error, MCPError) and error.code not in (CONNECTION_CLOSED, INVALID_REQUEST):
            if error.code == REQUEST_TIMEOUT:
                limit = f"{self._limits.tool_timeout:g} seconds"
                return ToolResult.error(f"{name} did not answer within {limit}. It may or may not have had an effect.")
            return ToolResult.error(f"{name} failed: {without_secrets(error.message)}")
        logger.warning("tool server %s: the connection broke during a call: %s", self.name, type(error).__name__)
        link.broken.set()
        return ToolResult.error(
            f"the connection to the tool server {self.name} broke while it ran {name}. It may or may not have had an "
            "effect. The server is started again for the next call."
        )

    async def _open_link(self) -> _Link:
        link = self._link
        if link is None or self._asking is None:
            raise ToolServerDown(f"the tool server {self.name} has not been opened")
        if link.broken.is_set():
            link = self._link = _ask(self._asking)
        await link.settled.wait()
        if link.client is None:
            raise ToolServerDown(f"the tool server {self.name} cannot be used: {link.problem}")
        return link

    async def _live(self, link: _Link) -> None:
        try:
            with anyio.CancelScope(deadline=anyio.current_time() + START_TIMEOUT) as opening:
                async with self._client() as client:
                    link.tools = await self._listed(client)
                    opening.deadline = math.inf
                    link.client = client
                    link.settled.set()
                    await link.broken.wait()
            if opening.cancelled_caught:
                link.problem = f"it was not up within {START_TIMEOUT:g} seconds"
        except Exception as error:
            link.problem = _cause(error)
        finally:
            link.broken.set()
            link.settled.set()
        if link.problem:
            logger.warning("tool server %s: %s", self.name, link.problem)

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Client]:
        async with self._http() as http:
            if self._server.command is None:
                transport = streamable_http_client(self._server.url or "", http_client=http)
                client = Client(transport, read_timeout_seconds=START_TIMEOUT)
            else:
                client = Client(self._process(self._server.command), read_timeout_seconds=START_TIMEOUT)
            async with client:
                yield client

    def _http(self) -> AbstractAsyncContextManager[httpx2.AsyncClient]:
        headers = {name: value.get_secret_value() for name, value in self._server.headers.items()}
        read = self._limits.tool_timeout + START_TIMEOUT
        return httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(_HTTP_TIMEOUT, read=read))

    def _process(self, command: str) -> StdioServerParameters:
        return StdioServerParameters(
            command=command,
            args=self._server.args,
            env={name: value.get_secret_value() for name, value in self._server.env.items()},
            cwd=self._server.cwd,
        )

    async def _listed(self, client: Client) -> Mapping[str, Tool]:
        wanted = None if self._server.tools is None else set(self._server.tools)
        found: dict[str, Tool] = {}
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            page = await client.list_tools(cursor=cursor)
            for tool in page.tools:
                if wanted is not None and tool.name not in wanted:
                    continue
                name = self._called(tool.name)
                if name in found:
                    logger.warning("tool server %s: %s is left out, as %s is taken", self.name, tool.name, name)
                else:
                    found[name] = tool
            cursor = page.next_cursor
            if cursor is None:
                break
        if wanted and (missing := wanted - {tool.name for tool in found.values()}):
            logger.warning("tool server %s has no tool %s", self.name, ", ".join(sorted(missing)))
        return found

    def _called(self, tool: str) -> str:
        return f"{self.name}{SEPARATOR}{_NOT_ALLOWED.sub('_', tool)}"[:_NAME_LENGTH]


def _ask(owner: MemoryObjectSendStream[_Link]) -> _Link:
    link = _Link()
    owner.send_nowait(link)
    return link


def _cause(error: BaseException) -> str:
    """The first real error in what may be a group of groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {without_secrets(str(error))}"
