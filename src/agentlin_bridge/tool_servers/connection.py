"""A connection to an MCP server: opened when it is needed, by an owner that ends it, and again after it broke."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import anyio
import httpx2
from anyio.abc import TaskStatus
from anyio.streams.memory import MemoryObjectSendStream
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, METHOD_NOT_FOUND, REQUEST_TIMEOUT, Tool, ToolListChangedNotification
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from agentlin_bridge.task import ToolResult
from agentlin_bridge.tool_servers.description import Reach
from agentlin_bridge.tool_servers.processes import process
from agentlin_bridge.tool_servers.results import result_of

logger = logging.getLogger(__name__)

LONGEST_PAUSE = 60.0
"""Seconds between two starts of a server that keeps breaking, at most."""
STEADY = 60.0
"""Seconds after which a server that ran so long counts as sound again."""

_MOST_PAGES = 50
_HTTP_TIMEOUT = 30.0
_SESSION_ID = "mcp-session-id"
_CLOSED = "Connection closed"
"""What the SDK says with its code for that; servers use the same code for errors of their own."""
_BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, httpx2.TransportError, OSError)


class ToolServerDown(Exception):
    """The server cannot be started or reached; says why."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a server is dealt with.

    Attributes:
        tools: the names of the tools that are used, as the server calls them; None for all.
        start_timeout: seconds until it has to be up with its list of tools.
        timeout: seconds for one call, whatever progress it reports.
        result_chars: characters of text of one result.
        concurrency: calls at once.
        refused: names of servers that are not used, as they call themselves.
        at_once: whether it is started before it is needed.
    """

    tools: Collection[str] | None
    start_timeout: float
    timeout: float
    result_chars: int
    concurrency: float = math.inf
    refused: frozenset[str] = frozenset()
    at_once: bool = False


@dataclass
class _Link:
    """One life of the connection.

    Attributes:
        settled: whether it is known to be up, or not to come up.
        broken: set when it is over, or shall be.
        ended: set when nothing of it is left.
        client: while it is up.
        tools: by the names they are called here.
        is_stale: whether the server may have other tools meanwhile.
        is_forgotten: whether the server has said, in HTTP's terms, that it does not know this session.
        problem: why it is over.
    """

    settled: anyio.Event = field(default_factory=anyio.Event)
    broken: anyio.Event = field(default_factory=anyio.Event)
    ended: anyio.Event = field(default_factory=anyio.Event)
    client: Client | None = None
    tools: Mapping[str, Tool] = field(default_factory=dict)
    is_stale: bool = False
    is_forgotten: bool = False
    problem: str = ""


class ToolServerConnection:
    """The tools of one MCP server.

    Args:
        name: what the configuration calls it.
        reach: how it is reached.
        terms: how it is dealt with.
        named: what a tool is called here, given its server's name for it.
        told: makes an error fit to be told: on one line, without secrets.
    """

    def __init__(
        self, name: str, reach: Reach, terms: Terms, *, named: Callable[[str], str], told: Callable[[str], str]
    ) -> None:
        self.name = name
        self._reach = reach
        self._terms = terms
        self._named = named
        self._told = told
        self._slots = anyio.CapacityLimiter(terms.concurrency)
        self._listing = anyio.Lock()
        self._link: _Link | None = None
        self._asking: MemoryObjectSendStream[_Link] | None = None
        self._failures = 0
        self._not_before = -math.inf

    async def own(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Open the connection whenever it is asked for, and close it when it is broken or no more needed."""
        self._asking, asked = anyio.create_memory_object_stream[_Link](math.inf)
        with self._asking, asked:
            if self._terms.at_once:
                self._link = _ask(self._asking)
            task_status.started()
            async for link in asked:
                await self._live(link)

    @property
    def start(self) -> object | None:
        """The start that is under way, each another object; None while none is."""
        return None if self._link is None or self._link.settled.is_set() else self._link

    def close(self) -> None:
        """Let the owner end."""
        if self._asking is not None:
            self._asking.close()
        if self._link is not None:
            self._link.broken.set()

    async def tools(self, patience: float = math.inf) -> Mapping[str, Tool]:
        """What the server offers, by the names the tools have here.

        Args:
            patience: seconds to wait before a server that has broken may be started again.

        Raises:
            ToolServerDown: it does not run and cannot be started.
        """
        link = await self._open_link(patience)
        await self._refresh(link)
        return link.tools

    async def call(self, name: str, arguments: dict[str, Any], patience: float = math.inf) -> ToolResult:
        """Run a tool. Whatever goes wrong is a result that says so.

        Args:
            name: of the tool, here.
            arguments: for it.
            patience: seconds to wait before a server that has broken may be started again.
        """
        async with self._slots:
            try:
                link = await self._open_link(patience)
                await self._refresh(link)
            except ToolServerDown as error:
                return ToolResult.error(f"{error}. {name} was not run.")
            tool = link.tools.get(name)
            if tool is None or link.client is None:
                return ToolResult.error(f"there is no tool {name!r}; it may have been removed. Next: use another one")
            limit = self._terms.timeout
            try:
                with anyio.move_on_after(limit):
                    returned = await link.client.call_tool(tool.name, arguments, read_timeout_seconds=limit)
                    return result_of(returned, self._terms.result_chars)
            except Exception as error:
                return self._failed(link, name, error)
            return self._too_slow(name)

    def _failed(self, link: _Link, name: str, error: Exception) -> ToolResult:
        """What went wrong; where it is the connection, that is over."""
        if isinstance(error, MCPError) and not _is_over(link, error):
            if error.code == REQUEST_TIMEOUT:
                return self._too_slow(name)
            return ToolResult.error(f"{name} failed: {self._told(error.message)}")
        if not isinstance(error, (MCPError, *_BROKEN)):
            return ToolResult.error(
                f"{name} gave an answer that cannot be used: {self._cause(error)}. It may have had its effect."
            )
        logger.warning("tool server %s: the connection broke during a call: %s", self.name, type(error).__name__)
        link.broken.set()
        return ToolResult.error(
            f"the connection to the tool server {self.name} broke while it ran {name}. It may or may not have had an "
            "effect. The server is started again for the next call."
        )

    def _too_slow(self, name: str) -> ToolResult:
        limit = f"{self._terms.timeout:g} seconds"
        return ToolResult.error(f"{name} did not answer within {limit}. It may or may not have had an effect.")

    async def _open_link(self, patience: float) -> _Link:
        if self._asking is None:
            raise ToolServerDown(f"the tool server {self.name} has not been opened")
        until = anyio.current_time() + patience
        if self._link is not None and self._link.broken.is_set():
            await self._link.ended.wait()
        while (pause := self._not_before - anyio.current_time()) > 0 and self._is_down:
            if anyio.current_time() + pause > until:
                problem = self._link.problem if self._link is not None else ""
                raise ToolServerDown(
                    f"the tool server {self.name} cannot be used: {problem or 'it broke'}; it is tried again in "
                    f"{pause:.0f} seconds"
                )
            await anyio.sleep(pause)
        link = self._link
        if link is None or link.broken.is_set():
            try:
                link = self._link = _ask(self._asking)
            except anyio.ClosedResourceError:
                raise ToolServerDown(f"the tool server {self.name} is being closed") from None
        await link.settled.wait()
        if link.client is None:
            raise ToolServerDown(f"the tool server {self.name} cannot be used: {link.problem}")
        return link

    @property
    def _is_down(self) -> bool:
        return self._link is None or self._link.broken.is_set()

    async def _live(self, link: _Link) -> None:
        began = anyio.current_time()
        try:
            with anyio.CancelScope(deadline=began + self._terms.start_timeout) as opening:
                async with self._client(link) as client:
                    self._check(client)
                    link.tools = await self._listed(client)
                    opening.deadline = math.inf
                    link.client = client
                    link.settled.set()
                    async with anyio.create_task_group() as group:
                        group.start_soon(self._heed_changes, link, client)
                        await link.broken.wait()
                        group.cancel_scope.cancel()
            if opening.cancelled_caught:
                link.problem = f"it was not up within {self._terms.start_timeout:g} seconds"
        except Exception as error:
            link.problem = self._cause(error)
        finally:
            self._count(anyio.current_time() - began)
            link.broken.set()
            link.settled.set()
            link.ended.set()
        if link.problem:
            logger.warning("tool server %s: %s", self.name, link.problem)

    def _count(self, lived: float) -> None:
        """Note the end of a life: a server that keeps breaking is started again ever more slowly."""
        self._failures = 1 if lived >= STEADY else self._failures + 1
        pause = min(LONGEST_PAUSE, 2.0 ** (self._failures - 2)) if self._failures > 1 else 0.0
        self._not_before = anyio.current_time() + pause

    def _check(self, client: Client) -> None:
        info = client.server_info
        if info is not None and info.name in self._terms.refused:
            raise ToolServerDown(f"it is {info.name} itself, which must not delegate to itself")

    @asynccontextmanager
    async def _client(self, link: _Link) -> AsyncIterator[Client]:
        async def heed(message: object) -> None:
            if isinstance(message, ToolListChangedNotification):
                link.is_stale = True

        async def notice(response: httpx2.Response) -> None:
            # The error that comes with it is the server's own, so only this tells it from one of a tool.
            request = response.request
            if response.status_code == HTTPStatus.NOT_FOUND and request.method == "POST":
                link.is_forgotten = link.is_forgotten or _SESSION_ID in request.headers

        headers = {name: value.get_secret_value() for name, value in self._reach.headers.items()}
        read = self._terms.timeout + self._terms.start_timeout
        timeout = httpx2.Timeout(_HTTP_TIMEOUT, read=read)
        hooks = {"response": [notice]}
        async with httpx2.AsyncClient(headers=headers, timeout=timeout, event_hooks=hooks) as http:
            transport = (
                streamable_http_client(self._reach.url or "", http_client=http)
                if self._reach.command is None
                else process(self._reach.command, self._reach, link.broken)
            )
            async with Client(
                transport, read_timeout_seconds=self._terms.start_timeout, message_handler=heed, cache=None
            ) as client:
                yield client

    async def _heed_changes(self, link: _Link, client: Client) -> None:
        """Since 2026-07-28 changes are told to those who listen; before, the message handler hears of them."""
        tools = client.server_capabilities.tools
        if client.protocol_version not in MODERN_PROTOCOL_VERSIONS or tools is None or not tools.list_changed:
            return
        try:
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    link.is_stale = True
        except (MCPError, ListenNotSupportedError, SubscriptionLost, TimeoutError) as error:
            logger.info("tool server %s no longer tells of changes: %s", self.name, type(error).__name__)

    async def _refresh(self, link: _Link) -> None:
        """List the tools again if they may have changed."""
        async with self._listing:
            if not link.is_stale or link.client is None:
                return
            link.is_stale = False
            try:
                link.tools = await self._listed(link.client)
            except Exception as error:
                # The tools as they were are better than none; a broken connection is noticed by the call.
                link.is_stale = True
                logger.warning("tool server %s: listing its tools again: %s", self.name, self._cause(error))

    async def _listed(self, client: Client) -> Mapping[str, Tool]:
        wanted = None if self._terms.tools is None else set(self._terms.tools)
        found: dict[str, Tool] = {}
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            page = await client.list_tools(cursor=cursor)
            for tool in page.tools:
                if wanted is not None and tool.name not in wanted:
                    continue
                name = self._named(tool.name)
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

    def _cause(self, error: BaseException) -> str:
        """The first real error in what may be a group of groups."""
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, ToolServerDown):
            return str(error)
        return f"{type(error).__name__}: {self._told(str(error))}"


def _is_over(link: _Link, error: MCPError) -> bool:
    """Whether an error means that the connection, or its session, is no more."""
    if link.is_forgotten and error.code != METHOD_NOT_FOUND:
        return True
    return error.code == CONNECTION_CLOSED and error.message == _CLOSED


def _ask(owner: MemoryObjectSendStream[_Link]) -> _Link:
    link = _Link()
    owner.send_nowait(link)
    return link
