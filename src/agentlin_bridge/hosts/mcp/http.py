"""The life of the HTTP server's process: it listens, and leaves in good order."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import anyio
import uvicorn

from agentlin_bridge import TaskBridge
from agentlin_bridge.delegation.client_tools import ClientTool
from agentlin_bridge.errors import ConfigurationError
from agentlin_bridge.hosts.mcp.leaving import Waits
from agentlin_bridge.hosts.mcp.principals import Principals
from agentlin_bridge.hosts.mcp.server import build_server
from agentlin_bridge.hosts.mcp.web import HEALTH, Names, OpenRequests, build_app
from agentlin_bridge.listening import address_of, bound, url_of
from agentlin_bridge.settings import load_settings

logger = logging.getLogger(__name__)

KEEP_ALIVE = 75
"""Seconds an unused connection stays open: longer than clients keep theirs, or a request on a connection that is just
being closed is lost."""
GRACE = 5
"""Seconds in which calls that were ended by a signal get their answers out."""
LISTENERS_GRACE = 2
"""Seconds for streams that only listen, after that."""

_HAS_RECEIVER: bool = sys.platform != "win32"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to serve.

    Attributes:
        port: 0 picks a free one.
        path: of the one endpoint.
    """

    host: str
    port: int
    path: str


def serve_http(where: Address, client_tools: Sequence[ClientTool] = ()) -> None:
    """Serve MCP over HTTP until SIGINT or SIGTERM comes; tasks go on without it. A second signal ends it at once.

    Args:
        where: the address and the path.
        client_tools: offered with every task, and executed by the bridge.

    Raises:
        ConfigurationError: the settings contradict each other or are half set, the address cannot be listened on,
            or it is not a loopback address and there are no tokens.
    """
    if not where.path.startswith("/") or where.path == HEALTH:
        raise ConfigurationError(f"--path is {where.path!r}.", next_step="use one like /mcp")
    settings = load_settings()
    principals = Principals(settings.mcp_tokens)
    waits = Waits()
    listener = bound(
        where.host,
        where.port,
        guard="tokens",
        is_guarded=bool(principals),
        next_step="set AGENTLIN_BRIDGE_MCP_TOKENS",
    )
    with listener:
        security = Names(settings.mcp_hosts, settings.mcp_origins).security(address_of(listener))
        server = build_server(
            partial(TaskBridge.from_env, client_tools=client_tools),
            config=settings.load_config(),
            client_tools=client_tools,
            principals=principals,
            keys=settings.mcp_keys,
            waits=waits,
        )
        app, requests = build_app(server, path=where.path, principals=principals, security=security, waits=waits)
        config = uvicorn.Config(
            app,
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            http="h11",
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=LISTENERS_GRACE,
        )
        http = _Server(config, f"{url_of(listener)}{where.path}")
        anyio.run(_serve, http, listener, waits, requests)
        if not http.started:
            raise ConfigurationError("The server could not start.", next_step="see what it logged before this line")


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, url: str) -> None:
        super().__init__(config)
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # Depending on its version, uvicorn exits or returns when the application does not start.
        with suppress(SystemExit):
            await super().startup(sockets)
        if self.started:
            logger.info("serving MCP at %s", self._url)
        else:
            self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own would end streams before the calls on them are answered.
        if _HAS_RECEIVER:
            yield
        else:
            with super().capture_signals():
                yield


async def _serve(server: _Server, listener: socket.socket, waits: Waits, requests: OpenRequests) -> None:
    async with anyio.create_task_group() as group:
        if _HAS_RECEIVER:
            group.start_soon(_leave_on_signal, server, waits, requests)
        await server.serve(sockets=[listener])
        group.cancel_scope.cancel()


async def _leave_on_signal(server: _Server, waits: Waits, requests: OpenRequests) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        number = await anext(signals)
        logger.info("leaving; the tasks go on")
        waits.end()
        async with anyio.create_task_group() as group:
            group.start_soon(_force_on_signal, server, signals)
            with anyio.move_on_after(GRACE):
                await requests.answered()
            # Streams that only listen watch for this one.
            server.handle_exit(number, None)


async def _force_on_signal(server: _Server, signals: AsyncIterator[signal.Signals]) -> None:
    number = await anext(signals)
    logger.info("leaving at once")
    server.force_exit = True
    server.handle_exit(number, None)
    await anyio.sleep_forever()
