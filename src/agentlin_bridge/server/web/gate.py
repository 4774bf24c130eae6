"""What every request passes first: it is counted, and it has to show a key.

A server without a key is for programs on this machine. A web page in a browser is none, though the browser
can reach it: such a server refuses requests from other origins, and those that name another host.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentlin_bridge.errors import SERVER_ERROR
from agentlin_bridge.server.activity import Activity
from agentlin_bridge.server.protocol.refusals import Refusal
from agentlin_bridge.server.protocol.request import request_id_of
from agentlin_bridge.server.protocol.wire import error_envelope
from agentlin_bridge.server.web.keys import Caller, Keys
from agentlin_bridge.server.web.metrics import Metrics

GUARDED = ("/v1/", "/metrics")


class Gate:
    """ASGI middleware. It leaves who asks in `request.state.caller`."""

    def __init__(self, app: ASGIApp, *, keys: Keys, activity: Activity, metrics: Metrics) -> None:
        self._app = app
        self._keys = keys
        self._activity = activity
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        with self._activity.going_on(), self._metrics.request() as outcome:

            async def observed(message: Message) -> None:
                if message["type"] == "http.response.start":
                    outcome.status = message["status"]
                await send(message)

            try:
                await self._admit(scope, receive, observed)
            finally:
                outcome.operation = state.get("operation", outcome.operation)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        caller: Caller | Refusal = Caller(None)
        if scope["path"].startswith(GUARDED):
            caller = _with_key(self._keys, headers) if self._keys else _without_key(headers)
        if isinstance(caller, Refusal):
            await _answer(caller, headers)(scope, receive, send)
        else:
            scope["state"]["caller"] = caller
            await self._app(scope, receive, send)


def _with_key(keys: Keys, headers: Headers) -> Caller | Refusal:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    caller = keys.caller(token.strip().encode("latin-1"))
    if caller is not None and scheme.lower() == "bearer":
        return caller
    message = "Unauthorized: send a key of the server's as Authorization: Bearer <key>"
    return Refusal(message, status=401, code=SERVER_ERROR)


def _without_key(headers: Headers) -> Caller | Refusal:
    origin = headers.get("origin")
    if _is_local(f"http://{headers.get('host', '')}") and (origin is None or _is_local(origin)):
        return Caller(None)
    message = "Forbidden: a server without a key serves only programs on its own machine"
    return Refusal(message, status=403, code=SERVER_ERROR)


def _is_local(url: str) -> bool:
    try:
        name = urlsplit(url).hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _answer(refusal: Refusal, headers: Headers) -> JSONResponse:
    body = error_envelope(request_id_of({}, headers), refusal.code, refusal.message)
    challenge = {"WWW-Authenticate": "Bearer"} if refusal.status == 401 else None
    return JSONResponse(body, status_code=refusal.status, headers=challenge)
