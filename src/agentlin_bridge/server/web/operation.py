"""One operation of the API: what routes it, and what the OpenAPI document says about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agentlin_bridge.server.protocol.wire import ErrorAnswer

EVENT_STREAM = "text/event-stream"
TEXT = "text/plain"

Handler = Callable[[Request], Awaitable[Response]]

REASONS = {
    400: "The request is not as it has to be. Nothing was changed.",
    401: "No key, or a wrong one.",
    403: "The server has no key, and the request does not come from its own machine.",
    404: "There is no such task.",
    409: "The request contradicts what the task is.",
    413: "The body is too large.",
    422: "The request asks for something that does not exist here.",
    500: "The server failed; its log says why.",
    501: "This server does not do that.",
    503: "The server is stopping, or cannot reach its database. What was accepted goes on when it is back.",
}


@dataclass(frozen=True)
class Operation:
    """What a client can ask for.

    Attributes:
        id: its name in the document and in the metrics.
        path: with `{task_id}` where a task is named.
        body: what the client sends.
        query: its query parameters.
        headers: its header parameters, each with its schema.
        answer: what it is answered with, if all is well: a model, the media type of what is no JSON, or None for
            any JSON object.
        streams: whether it is, or can be, answered with an event stream.
        refusals: statuses it is refused with.
        others: other statuses it is answered with.
    """

    id: str
    method: str
    path: str
    handler: Handler
    summary: str
    answer: type[BaseModel] | str | None
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    headers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    streams: bool = False
    refusals: tuple[int, ...] = ()
    others: Mapping[int, type[BaseModel]] = field(default_factory=dict)

    def routes(self) -> list[Route]:
        """Its routes: paths of the task API may end in a slash."""
        paths = [self.path, f"{self.path}/"] if self.path.startswith("/v1/") else [self.path]
        return [Route(path, self._handle, methods=[self.method]) for path in paths]

    @property
    def is_about_a_task(self) -> bool:
        """Whether its path names a task."""
        return "{task_id}" in self.path

    def models(self) -> Mapping[int, type[BaseModel]]:
        """The models of its JSON answers."""
        well = {200: self.answer} if isinstance(self.answer, type) else {}
        return {**well, **dict.fromkeys(self.refusals, ErrorAnswer), **self.others}

    async def _handle(self, request: Request) -> Response:
        request.state.operation = self.id
        return await self.handler(request)
