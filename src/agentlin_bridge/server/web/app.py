"""The server's application: its routes, and what every request passes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import version
from typing import Any

import anyio
from pydantic import SecretStr
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agentlin_bridge.server.execution.runs import Runs
from agentlin_bridge.server.protocol.request import MAX_PAGE
from agentlin_bridge.server.protocol.wire import Health
from agentlin_bridge.server.web.gate import Gate
from agentlin_bridge.server.web.http import HANDLERS
from agentlin_bridge.server.web.keys import Keys
from agentlin_bridge.server.web.metrics import CONTENT_TYPE, Metrics
from agentlin_bridge.server.web.openapi import openapi_document
from agentlin_bridge.server.web.operation import TEXT, Operation
from agentlin_bridge.server.web.rpc import RpcApi
from agentlin_bridge.server.web.sessions_api import SessionApi
from agentlin_bridge.server.web.tasks_api import TaskApi

logger = logging.getLogger(__name__)

VERSION = version("agentlin-bridge")
MAX_BODY = 16 * 1024 * 1024
"""Bytes of a request's body, unless said otherwise."""
HEALTH_TIMEOUT = 5
"""Seconds the database has to answer a health check."""


def create_app(
    runs: Runs,
    *,
    api_key: SecretStr | None = None,
    keys: Mapping[str, SecretStr] | None = None,
    max_body: int = MAX_BODY,
    max_page: int = MAX_PAGE,
) -> Starlette:
    """The ASGI application.

    Args:
        runs: entered by the caller, who also leaves it after the last request.
        api_key: a key that opens everything.
        keys: the key of each user; it opens what is that user's. Without any key everybody is let in.
        max_body: the largest request body, in bytes.
        max_page: the bytes of tasks on one page of a list.

    Raises:
        ConfigurationError: the keys cannot be used.
    """
    metrics = Metrics()
    tasks = TaskApi(runs, metrics, max_body=max_body, max_page=max_page)
    rpc = RpcApi(runs, tasks, max_body=max_body)
    sessions = SessionApi(runs, max_body=max_body)
    about = _About(runs, metrics, [*rpc.operations(), *sessions.operations(), *tasks.operations()])
    app = Starlette(
        routes=[route for operation in about.operations for route in operation.routes()],
        middleware=[Middleware(Gate, keys=Keys(api_key, keys), activity=runs.activity, metrics=metrics)],
        exception_handlers=HANDLERS,
    )
    app.router.redirect_slashes = False
    return app


class _About:
    """What the server says about itself."""

    def __init__(self, runs: Runs, metrics: Metrics, operations: list[Operation]) -> None:
        self._runs = runs
        self._metrics = metrics
        self.operations = [
            *operations,
            Operation(
                "health",
                "GET",
                "/healthz",
                self._health,
                "Whether the server and its database answer.",
                Health,
                others={503: Health},
            ),
            Operation(
                "metrics",
                "GET",
                "/metrics",
                self._counted,
                "Metrics for Prometheus.",
                TEXT,
                refusals=(401, 403, 500),
            ),
            Operation("openapi", "GET", "/openapi.json", self._documented, "This document.", None),
        ]

    @cached_property
    def _document(self) -> dict[str, Any]:
        return openapi_document(self.operations, VERSION)

    async def _health(self, _request: Request) -> Response:
        reached = False
        with anyio.move_on_after(HEALTH_TIMEOUT):
            try:
                await self._runs.store.ping()
                reached = True
            except SQLAlchemyError:
                logger.exception("the database does not answer")
        health = Health(
            status="ok" if reached else "unavailable",
            server="agentlin-bridge",
            version=VERSION,
            database="ok" if reached else "unavailable",
        )
        return JSONResponse(health.model_dump(), status_code=200 if reached else 503)

    async def _counted(self, _request: Request) -> Response:
        self._metrics.tasks(await self._runs.store.counts())
        return Response(self._metrics.text(), media_type=CONTENT_TYPE)

    async def _documented(self, _request: Request) -> Response:
        return JSONResponse(self._document)
