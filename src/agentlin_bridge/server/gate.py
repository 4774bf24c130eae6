"""What every request passes first: it is counted, and it has to show the key.

A server without a key is for programs on this machine. A web page in a browser is none, though the browser
can reach it: such a server refuses requests from other origins, and those that name another host.
"""

from __future__ import annotations

import hmac
import ipaddress
from urllib.parse import urlsplit

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from agentlin_bridge.errors import SERVER_ERROR
from agentlin_bridge.server.activity import Activity
from agentlin_bridge.server.refusals import Refusal
from agentlin_bridge.server.request import request_id_of
from agentlin_bridge.server.wire import error_envelope

GUARDED = "/v1/"


class Gate:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, *, api_key: SecretStr | None, activity: Activity) -> None:
        self._app = app
        self._api_key = api_key
        self._activity = activity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with self._activity.going_on():
            headers = Headers(scope=scope)
            refusal = None
            if scope["path"].startswith(GUARDED):
                refusal = _without_key(headers) if self._api_key is None else _with_key(self._api_key, headers)
            if refusal is None:
                await self._app(scope, receive, send)
            else:
                await _answer(refusal, headers)(scope, receive, send)


def _with_key(api_key: SecretStr, headers: Headers) -> Refusal | None:
    expected = api_key.get_secret_value().encode()
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if hmac.compare_digest(token.strip().encode("latin-1"), expected) and scheme.lower() == "bearer":
        return None
    message = "Unauthorized: send the server's key as Authorization: Bearer <key>"
    return Refusal(message, status=401, code=SERVER_ERROR)


def _without_key(headers: Headers) -> Refusal | None:
    origin = headers.get("origin")
    if _is_local(f"http://{headers.get('host', '')}") and (origin is None or _is_local(origin)):
        return None
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
