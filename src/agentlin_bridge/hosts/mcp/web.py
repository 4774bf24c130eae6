"""The web application: streamable HTTP of both eras at one path, bearer tokens, and `/healthz`.

Everything about the protocol is the SDK's, the checks of Host and Origin and the bound on bodies as well.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend, RequireAuthMiddleware
from mcp.server.mcpserver import MCPServer
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from agentlin_bridge.errors import ConfigurationError
from agentlin_bridge.hosts.mcp.leaving import Waits
from agentlin_bridge.hosts.mcp.principals import Principals

HEALTH = "/healthz"
BODY_BYTES = 4 * 1024 * 1024
"""Larger requests get 413."""

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class OpenRequests:
    """ASGI middleware that counts the requests which will have an answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open = 0
        self._none = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._counted(scope):
            await self._app(scope, receive, send)

    @contextmanager
    def _counted(self, scope: Scope) -> Iterator[None]:
        # A GET, and a subscription, only listen.
        listens = (b"mcp-method", b"subscriptions/listen") in scope.get("headers", ())
        if listens or scope.get("method") != "POST":
            yield
            return
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
            if not self._open:
                self._none.set()
                self._none = anyio.Event()

    async def answered(self) -> None:
        """Wait until none is open."""
        while self._open:
            await self._none.wait()


@dataclass(frozen=True, slots=True)
class Names:
    """What clients may call the server, and the pages that may call it.

    Attributes:
        hosts: in the header Host; without a port, every port is meant.
        origins: in the header Origin.
    """

    hosts: Sequence[str] = field(default=())
    origins: Sequence[str] = field(default=())

    def security(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> TransportSecuritySettings:
        """The checks for a server at an address.

        Raises:
            ConfigurationError: it listens everywhere, and no name is given.
        """
        hosts, origins = list(self.hosts), list(self.origins)
        if address.is_loopback:
            hosts += _LOOPBACK
            origins += [f"http://{name}:*" for name in _LOOPBACK]
        elif not address.is_unspecified:
            hosts.append(f"[{address}]" if address.version == 6 else str(address))
        if not hosts:
            raise ConfigurationError(
                f"A server at {address} has to know what its clients call it.",
                next_step='set AGENTLIN_BRIDGE_MCP_HOSTS, like ["bridge.example.org"]',
            )
        return TransportSecuritySettings(
            allowed_hosts=[form for host in hosts for form in _with_ports(host)], allowed_origins=origins
        )


def _with_ports(host: str) -> list[str]:
    return [host] if ":" in host.rpartition("]")[2] else [host, f"{host}:*"]


def build_app(
    server: MCPServer[Any],
    *,
    path: str,
    principals: Principals,
    security: TransportSecuritySettings,
    waits: Waits,
) -> tuple[ASGIApp, OpenRequests]:
    """The application, and the requests that are open in it.

    Args:
        server: what it serves.
        path: where clients find it.
        principals: whose tokens are accepted; with none, no token is needed.
        security: what Host and Origin may be.
        waits: once they are ended, the server is no longer healthy.
    """
    # This makes the session manager; the application it returns takes tokens only together with OAuth.
    server.streamable_http_app(streamable_http_path=path, transport_security=security, max_request_body_size=BODY_BYTES)
    manager = server.session_manager
    endpoint: ASGIApp = StreamableHTTPASGIApp(manager)
    if principals:
        endpoint = RequireAuthMiddleware(endpoint, [])

    async def healthz(_request: Request) -> Response:
        return JSONResponse({"status": "leaving"}, 503) if waits.ended else JSONResponse({"status": "ok"})

    app = Starlette(
        routes=[Route(path, endpoint=endpoint), Route(HEALTH, healthz)], lifespan=lambda _app: manager.run()
    )
    app.add_middleware(AuthContextMiddleware)
    if principals:
        app.add_middleware(AuthenticationMiddleware, backend=BearerAuthBackend(principals))
    counted = OpenRequests(app)
    return counted, counted
