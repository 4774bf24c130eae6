"""The tools of one MCP server, as client tools."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup

from agentlin_bridge.delegation.client_tools import ClientTool
from agentlin_bridge.errors import BridgeError
from agentlin_bridge.extras import DISTRIBUTION
from agentlin_bridge.task import ToolResult
from agentlin_bridge.tool_servers.approval import is_repeatable, needs_approval
from agentlin_bridge.tool_servers.description import Reach, ServerEntry
from agentlin_bridge.tool_servers.discretion import Discretion

if TYPE_CHECKING:
    from mcp_types import Tool

    from agentlin_bridge.tool_servers.connection import ToolServerConnection

logger = logging.getLogger(__name__)

LONGEST_START = 60.0
"""Seconds a server has to be up, at least: it goes on starting when a task does not wait for it any longer."""
PATIENCE_OF_TASKS = 2.0
"""Seconds a new task waits for a server that has broken and may not be started again yet."""
PATIENCE_OF_CALLS = 30.0
"""The same for a call of one of its tools."""

_NAME_LENGTH = 64
_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9_-]+")


class ServerTools:
    """The tools of one MCP server, as client tools."""

    def __init__(self, name: str, entry: ServerEntry, reach: Reach, told: Discretion, result_chars: int) -> None:
        self.source = f"the tool server {name!r}"
        self._name = name
        self._entry = entry
        self._reach = reach
        self._told = told
        self._result_chars = result_chars
        self._connection: ToolServerConnection | None = None
        self._made: tuple[Mapping[str, Tool], dict[str, ClientTool]] = ({}, {})
        self._is_missed = False
        self._waited_for: object | None = None

    @property
    def known_names(self) -> frozenset[str]:
        """The names of its tools as far as the configuration lists them."""
        return frozenset(self._named(tool) for tool in self._entry.tools or ())

    @property
    def is_owned(self) -> bool:
        """Whether its connection has been made."""
        return self._connection is not None

    async def begin(self, group: TaskGroup) -> None:
        """Make its connection, which opens when it is first used."""
        from agentlin_bridge.tool_servers.connection import Terms, ToolServerConnection  # noqa: PLC0415  # slow

        terms = Terms(
            tools=self._entry.tools,
            start_timeout=max(LONGEST_START, self._entry.start_timeout),
            timeout=self._entry.timeout,
            result_chars=self._result_chars,
            concurrency=self._entry.concurrency,
            refused=frozenset({DISTRIBUTION}),
        )
        connection = ToolServerConnection(self._name, self._reach, terms, named=self._named, told=self._told)
        with anyio.CancelScope(shield=True):
            await group.start(connection.own)
        self._connection = connection

    def close(self) -> None:
        """Let its connection end."""
        if self._connection is not None:
            self._connection.close()

    async def offered(self) -> Mapping[str, ClientTool]:
        """Its tools; none, with a warning, while it is down. A start is waited for in vain only once."""
        from agentlin_bridge.tool_servers.connection import ToolServerDown  # noqa: PLC0415  # slow

        assert self._connection is not None  # noqa: S101  (begun by now)
        if (start := self._connection.start) is not None and start is self._waited_for:
            return {}
        problem = f"the tool server {self._name} is not up after {self._entry.start_timeout:g} seconds"
        try:
            with anyio.move_on_after(self._entry.start_timeout):
                tools = await self._tools(PATIENCE_OF_TASKS)
                self._is_missed = False
                return tools
            self._waited_for = self._connection.start
        except ToolServerDown as error:
            problem = str(error)
        if not self._is_missed:
            logger.warning(
                "%s. Tasks go on without its tools. Next: correct [client_tools.servers.%s], or look at what the "
                "server says; later tasks get them once it is up",
                problem,
                self._name,
            )
        self._is_missed = True
        return {}

    async def find(self, name: str) -> ClientTool:
        """One of its tools; if there is none, one whose result says why."""
        from agentlin_bridge.tool_servers.connection import ToolServerDown  # noqa: PLC0415  # slow

        try:
            tool = (await self._tools(PATIENCE_OF_CALLS)).get(name)
        except ToolServerDown as error:
            return _failing(name, f"{error}. {name} was not run.")
        return tool or _failing(name, f"{self.source} has no tool {name!r} any more. It was not run.")

    async def _tools(self, patience: float) -> dict[str, ClientTool]:
        assert self._connection is not None  # noqa: S101  (begun by now)
        listed = await self._connection.tools(patience)
        if self._made[0] is not listed:
            self._made = (listed, self._as_client_tools(listed, self._connection))
        return self._made[1]

    def _as_client_tools(self, listed: Mapping[str, Tool], connection: ToolServerConnection) -> dict[str, ClientTool]:
        if unknown := sorted(self._entry.approvals.keys() - {tool.name for tool in listed.values()}):
            logger.warning("%s has no tool %s, for which `approvals` says something", self.source, ", ".join(unknown))
        made: dict[str, ClientTool] = {}
        for name, tool in listed.items():
            policy = self._entry.approvals.get(tool.name, self._entry.approval)
            try:
                made[name] = ClientTool(
                    name,
                    tool.description or tool.title or "",
                    {"type": "object", **tool.input_schema},
                    handler=_calling(connection, name),
                    approval="required" if needs_approval(policy, tool.annotations) else None,
                    idempotent=is_repeatable(tool.annotations),
                )
            except BridgeError as error:
                logger.warning("%s: its tool %s is left out: %s", self.source, tool.name, error.message)
        return made

    def _named(self, tool: str) -> str:
        return f"{self._entry.prefix}{_NOT_ALLOWED.sub('_', tool)}"[:_NAME_LENGTH]


def _calling(connection: ToolServerConnection, name: str) -> Any:
    # No parameter of its own: the tool's may have any name.
    async def call(**arguments: Any) -> ToolResult:
        return await connection.call(name, arguments, PATIENCE_OF_CALLS)

    return call


def _failing(name: str, problem: str) -> ClientTool:
    async def fail(**_: Any) -> ToolResult:
        return ToolResult.error(problem)

    return ClientTool(name, handler=fail)
