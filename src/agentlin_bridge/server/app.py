"""The server's routes: Agentlin's task API under /v1."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, cast

from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agentlin_bridge.errors import INTERNAL_ERROR, SERVER_ERROR
from agentlin_bridge.server.gate import Gate
from agentlin_bridge.server.refusals import TASK_NOT_PAUSABLE, Refusal
from agentlin_bridge.server.request import read_create, read_json, read_list_query, request_id_of
from agentlin_bridge.server.runs import Runs
from agentlin_bridge.server.wire import control_envelope, envelope, error_envelope, task_json

VERSION = version("agentlin-bridge")
MAX_BODY = 16 * 1024 * 1024
"""Bytes of a request's body, unless said otherwise."""


def create_app(runs: Runs, *, api_key: SecretStr | None = None, max_body: int = MAX_BODY) -> Starlette:
    """The ASGI application.

    Args:
        runs: entered by the caller, who also leaves it after the last request.
        api_key: what every request under /v1 has to show; None lets everybody in.
        max_body: the largest request body, in bytes.
    """
    api = _TaskApi(runs, max_body)
    routes = [Route("/healthz", _health, methods=["GET"])]
    for slash in ("", "/"):
        routes += [
            Route(f"/v1/tasks{slash}", api.create, methods=["POST"]),
            Route(f"/v1/tasks{slash}", api.list, methods=["GET"]),
            Route(f"/v1/tasks/{{task_id}}{slash}", api.retrieve, methods=["GET"]),
            Route(f"/v1/tasks/{{task_id}}{slash}", api.delete, methods=["DELETE"]),
            Route(f"/v1/tasks/{{task_id}}/cancel{slash}", api.cancel, methods=["POST"]),
            Route(f"/v1/tasks/{{task_id}}/pause{slash}", api.cannot_pause, methods=["POST"]),
            Route(f"/v1/tasks/{{task_id}}/resume{slash}", api.cannot_pause, methods=["POST"]),
        ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Gate, api_key=api_key, activity=runs.activity)],
        exception_handlers={Refusal: _refused, HTTPException: _no_route, Exception: _broken},
    )
    app.router.redirect_slashes = False
    return app


class _TaskApi:
    def __init__(self, runs: Runs, max_body: int) -> None:
        self._runs = runs
        self._max_body = max_body

    async def create(self, request: Request) -> Response:
        body = read_json(await self._body(request))
        request.state.request_id = request_id = request_id_of(body, request.headers)
        task = await self._runs.create(read_create(body, request.headers, request_id))
        return JSONResponse(envelope(request_id, task_json(task)))

    async def list(self, request: Request) -> Response:
        params = request.query_params
        query = read_list_query(params, params.getlist("status") + params.getlist("status[]"))
        tasks, more = await self._runs.store.page(query)
        answer = envelope(_request_id(request), [task_json(task) for task in tasks])
        return JSONResponse({**answer, "has_more": more})

    async def retrieve(self, request: Request) -> Response:
        task = await self._runs.retrieve(request.path_params["task_id"])
        return JSONResponse(envelope(_request_id(request), task_json(task)))

    async def delete(self, request: Request) -> Response:
        task = await self._runs.delete(request.path_params["task_id"])
        return JSONResponse(envelope(_request_id(request), task_json(task)))

    async def cancel(self, request: Request) -> Response:
        task = await self._runs.cancel(request.path_params["task_id"])
        return JSONResponse(control_envelope(_request_id(request), task))

    async def cannot_pause(self, request: Request) -> Response:
        await self._runs.retrieve(request.path_params["task_id"])
        raise Refusal("The task cannot be paused by this server yet", status=404, code=TASK_NOT_PAUSABLE)

    async def _body(self, request: Request) -> bytes:
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > self._max_body:
                    raise Refusal(f"The body is larger than {self._max_body} bytes", status=413)
        except ClientDisconnect:
            raise Refusal("The body did not arrive completely") from None
        return bytes(body)


def _request_id(request: Request) -> str:
    known: str | None = getattr(request.state, "request_id", None)
    return known or request_id_of({}, request.headers)


async def _health(_request: Request) -> Response:
    return JSONResponse({"status": "ok", "server": "agentlin-bridge", "version": VERSION})


def _error(
    request: Request, status: int, code: int, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    body: dict[str, Any] = error_envelope(_request_id(request), code, message)
    return JSONResponse(body, status_code=status, headers=headers)


async def _refused(request: Request, error: Exception) -> Response:
    refusal = cast(Refusal, error)
    return _error(request, refusal.status, refusal.code, refusal.message)


async def _no_route(request: Request, error: Exception) -> Response:
    wrong = cast(HTTPException, error)
    return _error(request, wrong.status_code, SERVER_ERROR, f"{wrong.detail}: {request.url.path}", wrong.headers)


async def _broken(request: Request, _bug: Exception) -> Response:
    return _error(request, 500, INTERNAL_ERROR, "The server failed on this request; its log says more")
