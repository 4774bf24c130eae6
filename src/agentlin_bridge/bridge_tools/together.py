"""All tools the bridge runs: started when they are needed, offered together, ended together."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from importlib import import_module
from types import TracebackType
from typing import Self

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from agentlin_bridge.bridge_tools.commands import CommandTool
from agentlin_bridge.bridge_tools.servers import ServerTools
from agentlin_bridge.delegation.client_tools import ClientTool
from agentlin_bridge.delegation.own_tools import OwnTool
from agentlin_bridge.errors import ConfigurationError

logger = logging.getLogger(__name__)

CLOSING = 5.0
"""Seconds tool servers get to end by themselves."""

_APART = "under [client_tools.servers], give the server a prefix, or name the tools it shall have"
_NEXT = f"Next: {_APART}"


class BridgeTools:
    """The tools the bridge runs. Servers are started when a task first needs them, and end with the bridge.

    Args:
        servers: MCP servers; of two whose tools turn out to have one name, the first keeps it.
        commands: go before servers.
        taken: by name, whose the tools are that the bridge has besides.

    Raises:
        ConfigurationError: two tools that the configuration names have the same name.
    """

    def __init__(
        self, servers: Iterable[ServerTools], commands: Iterable[CommandTool], taken: Mapping[str, str]
    ) -> None:
        self._servers = {server.source: server for server in servers}
        self._commands = {command.source: command for command in commands}
        self._taken = taken
        self._stack = AsyncExitStack()
        self._group: TaskGroup | None = None
        self._starting = anyio.Lock()
        self._owners = self._checked()
        self._left_out: set[tuple[str, str]] = set()

    async def __aenter__(self) -> Self:
        """Make ready to start servers."""
        self._group = await self._stack.enter_async_context(anyio.create_task_group())
        self._stack.callback(self._close, self._group)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the servers."""
        await self._stack.aclose()
        self._group = None

    def _close(self, group: TaskGroup) -> None:
        for server in self._servers.values():
            server.close()
        group.cancel_scope.deadline = anyio.current_time() + CLOSING

    def has(self, source: str) -> bool:
        """Whether this source is configured."""
        return source in self._servers or source in self._commands

    async def offered(self) -> Mapping[str, OwnTool]:
        """What can be offered now. A server that is down has none, and the log says why."""
        await self._ready()
        found: dict[str, Mapping[str, ClientTool]] = {}

        async def ask(server: ServerTools) -> None:
            found[server.source] = await server.offered()

        async with anyio.create_task_group() as group:
            for server in self._servers.values():
                group.start_soon(ask, server)
        return self._together({source: found[source] for source in self._servers})

    async def find(self, name: str, source: str) -> ClientTool:
        """A tool that was offered. If it cannot be run, its handler says why."""
        if (command := self._commands.get(source)) is not None:
            return command.tool
        await self._ready()
        return await self._servers[source].find(name)

    def _checked(self) -> dict[str, str]:
        """Whose each name is, as far as the configuration tells."""
        owners = dict(self._taken)
        named = [(source, {command.tool.name}) for source, command in self._commands.items()]
        named += [(source, set(server.known_names)) for source, server in self._servers.items()]
        for source, names in named:
            for name in sorted(names):
                if name in owners:
                    raise ConfigurationError(
                        f"Two tools are called {name!r}: one is of {owners[name]}, the other of {source}.",
                        next_step=f"{_APART}; a command can be called otherwise",
                    )
                owners[name] = source
        return owners

    def _together(self, of_servers: Mapping[str, Mapping[str, ClientTool]]) -> dict[str, OwnTool]:
        together = {command.tool.name: OwnTool(source, command.tool) for source, command in self._commands.items()}
        owners = dict(self._owners)
        for source, tools in of_servers.items():
            for name, tool in tools.items():
                if (owner := owners.setdefault(name, source)) == source:
                    together[name] = OwnTool(source, tool)
                elif (name, source) not in self._left_out:
                    self._left_out.add((name, source))
                    logger.warning("%r of %s is left out: %s has a tool of that name. %s", name, source, owner, _NEXT)
        return together

    async def _ready(self) -> None:
        assert self._group is not None  # noqa: S101  (the engine has entered it)
        async with self._starting:
            for server in self._servers.values():
                if not server.is_owned:
                    # Its imports are slow.
                    await anyio.to_thread.run_sync(import_module, "agentlin_bridge.tool_servers.connection")
                    await server.begin(self._group)
