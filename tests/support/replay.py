"""Recorded answers of the published server (`tests/wire`), played back on a real port."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

WIRE = Path(__file__).parents[1] / "wire"
_NOT_REPLAYED = {"content-length", "date", "connection", "transfer-encoding", "server"}


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


def recorded(name: str) -> Answer:
    """The answer of a recording."""
    response = json.loads((WIRE / f"{name}.json").read_text(encoding="utf-8"))["response"]
    headers = {key: value for key, value in response["headers"] if key not in _NOT_REPLAYED}
    return Answer(response["status"], response["body"], headers)


@dataclass
class Seen:
    """A request that came in."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: Any


@dataclass
class Player:
    """Gives one answer after the other, the last one for ever."""

    answers: list[Answer]
    base_url: str = ""
    seen: list[Seen] = field(default_factory=list)

    async def _answer(self, request: Request) -> Response:
        raw = await request.body()
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        self.seen.append(Seen(request.method, path, dict(request.headers), json.loads(raw) if raw else None))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        body = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
        return Response(body, answer.status, {"content-type": "application/json", **answer.headers})


@asynccontextmanager
async def playing(*answers: Answer, certificate: Path | None = None) -> AsyncIterator[Player]:
    """Play answers back while entered; over TLS if there is a certificate."""
    listener = socket.create_server(("127.0.0.1", 0))
    scheme = "http" if certificate is None else "https"
    player = Player(list(answers), f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/v1")
    methods = ["GET", "POST", "DELETE"]
    app = Starlette(routes=[Route("/{path:path}", player._answer, methods=methods)])
    config = uvicorn.Config(
        app, lifespan="off", log_config=None, ws="none", timeout_graceful_shutdown=1, ssl_certfile=certificate
    )
    server = uvicorn.Server(config)
    server.capture_signals = nullcontext  # type: ignore[assignment,method-assign]  # pytest has its own handlers
    with listener, anyio.fail_after(20):
        async with listening(server, listener):
            yield player


@asynccontextmanager
async def listening(server: uvicorn.Server, listener: socket.socket) -> AsyncIterator[None]:
    """Run a server while entered. An error in the body comes out as it is, not in a group."""
    group = anyio.create_task_group()
    await group.__aenter__()
    group.start_soon(server.serve, [listener])
    try:
        yield
    finally:
        server.should_exit = True
        server.force_exit = True
        await group.__aexit__(None, None, None)
