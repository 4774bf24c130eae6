"""What all handlers need of a request, and how errors are answered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import ParamSpec, TypeVar, cast

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ExceptionHandler

from agentlin_bridge.errors import INTERNAL_ERROR, SERVER_ERROR
from agentlin_bridge.server.protocol.refusals import Refusal
from agentlin_bridge.server.protocol.request import request_id_of
from agentlin_bridge.server.protocol.wire import RequestId, error_envelope
from agentlin_bridge.server.web.keys import Caller

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

LARGE = 16 * 1024
"""Bytes of JSON from which on reading and writing it would keep other requests waiting."""
AT_ONCE = 2
"""Large pieces of JSON that are worked on at the same time; more would only take turns."""

_working: RunVar[CapacityLimiter] = RunVar("_working")


async def read_body(request: Request, limit: int) -> bytes:
    """The request's body.

    Raises:
        Refusal: it has more bytes than the limit, or did not come completely.
    """
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise Refusal(f"The body is larger than {limit} bytes", status=413)
    except ClientDisconnect:
        raise Refusal("The body did not arrive completely") from None
    return bytes(body)


async def aside(size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a function returns, called on a worker thread if what it works on is large."""
    if size < LARGE:
        return work(*args, **kwargs)
    limiter = _working.get(None)
    if limiter is None:
        limiter = CapacityLimiter(AT_ONCE)
        _working.set(limiter)
    return await to_thread.run_sync(partial(work, *args, **kwargs), limiter=limiter)


def user_of(request: Request) -> str | None:
    """Whose tasks the request may see; None for all."""
    caller: Caller = request.state.caller
    return caller.user


def request_id(request: Request) -> RequestId | None:
    """What the answer's envelope is told apart by; a JSON-RPC request that cannot be read has none."""
    if not hasattr(request.state, "request_id"):
        request.state.request_id = request_id_of({}, request.headers)
    known: RequestId | None = request.state.request_id
    return known


def _error(
    request: Request, status: int, code: int, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    return JSONResponse(error_envelope(request_id(request), code, message), status_code=status, headers=headers)


async def _refused(request: Request, error: Exception) -> Response:
    refusal = cast(Refusal, error)
    return _error(request, refusal.status, refusal.code, refusal.message)


async def _no_route(request: Request, error: Exception) -> Response:
    wrong = cast(HTTPException, error)
    return _error(request, wrong.status_code, SERVER_ERROR, f"{wrong.detail}: {request.url.path}", wrong.headers)


async def _broken(request: Request, _bug: Exception) -> Response:
    return _error(request, 500, INTERNAL_ERROR, "The server failed on this request; its log says more")


async def _unreachable(request: Request, error: Exception) -> Response:
    logger.error("the database does not answer", exc_info=error)
    return _error(request, 503, SERVER_ERROR, "The server cannot reach its database; try again later")


HANDLERS: Mapping[type[Exception], ExceptionHandler] = {
    Refusal: _refused,
    HTTPException: _no_route,
    OperationalError: _unreachable,
    Exception: _broken,
}
"""How errors are answered."""
