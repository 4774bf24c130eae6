"""A remote for tests: the documented task API on a real port, with a scripted agent and switchable faults."""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Self

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.support.replay import listening

Json = dict[str, Any]


def message(text: str) -> Json:
    return {"type": "message", "role": "assistant", "message_content": [{"type": "text", "text": text}]}


def call(call_id: str, name: str, arguments: Json | str) -> Json:
    shown = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"type": "tool_call", "call_id": call_id, "name": name, "arguments": shown}


@dataclass
class Turn:
    """How one round ends.

    `fault` says what happens to the reply: "unsent" drops the request before it counts, "lost" runs it and
    drops the reply, "garbage" answers 200 with HTML, a number answers with that status (the task is not
    created). `gate` holds the round until it is set.
    """

    output: list[Json] = field(default_factory=list)
    status: str | None = None
    error: Json | None = None
    fault: str | int | None = None
    gate: anyio.Event | None = None
    fields: Json = field(default_factory=dict)


Agent = Callable[[Json], Turn | Awaitable[Turn]]


def results_of(body: Mapping[str, Any]) -> dict[str, str]:
    """The tool results a request carries, by call_id, as text."""
    return {
        item["call_id"]: "".join(part["text"] for part in item["message_content"] if "text" in part)
        for item in body.get("thought_messages", [])
    }


@dataclass
class ScriptedRemote:
    """The task API with an agent that is a function of the request."""

    agent: Agent
    key: str | None = None
    cancelable: bool = True
    refuse: int = 0
    before_create: Callable[[], Awaitable[None]] | None = None
    posts: list[Json] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    tasks: dict[str, Json] = field(default_factory=dict)
    posted: anyio.Event = field(default_factory=anyio.Event)
    base_url: str = ""

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Self]:
        """Listen while entered; entered again meanwhile, it is the same remote."""
        if self.base_url:
            yield self
            return
        listener = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        app = Starlette(
            routes=[
                Route("/v1/tasks", self._create, methods=["POST"]),
                Route("/v1/tasks", self._list, methods=["GET"]),
                Route("/v1/tasks/{id}", self._retrieve, methods=["GET"]),
                Route("/v1/tasks/{id}", self._delete, methods=["DELETE"]),
                Route("/v1/tasks/{id}/cancel", self._cancel, methods=["POST"]),
                Route("/v1/tasks/{id}/pause", self._pause, methods=["POST"]),
                Route("/v1/tasks/{id}/resume", self._resume, methods=["POST"]),
            ]
        )
        config = uvicorn.Config(app, lifespan="off", log_config=None, ws="none", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        server.capture_signals = nullcontext  # type: ignore[assignment,method-assign]  # pytest has its own handlers
        with listener:
            async with listening(server, listener):
                try:
                    yield self
                finally:
                    self.base_url = ""

    def _refused(self, request: Request) -> Response | None:
        self.requests.append(f"{request.method} {request.url.path.removeprefix('/v1')}")
        self.headers.append(dict(request.headers))
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return JSONResponse({"detail": "invalid key"}, 401)
        return None

    async def _create(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        if self.refuse:
            self.refuse -= 1
            return JSONResponse({"message": "try later"}, 429)
        body = await request.json()
        if self.before_create is not None:
            await self.before_create()
        self.posts.append(body)
        self.posted.set()
        turn = self.agent(body)
        if not isinstance(turn, Turn):
            turn = await turn
        if turn.fault == "unsent":
            return _cut()
        if isinstance(turn.fault, int):
            return JSONResponse({"success": False, "message": "scripted failure", "data": None}, turn.fault)
        task = {
            "object": "task",
            "id": body["task_id"],
            "session_id": body["session_id"],
            "user_id": body["user_id"],
            "created_at": int(time.time()),
            "status": "working",
            "output": [],
        }
        self.tasks[task["id"]] = task
        if turn.gate is not None:
            await turn.gate.wait()
        waits = any(item["type"] == "tool_call" for item in turn.output)
        if task["status"] == "working":
            task["status"] = turn.status or ("input-required" if waits else "completed")
            task["output"] = turn.output
            if turn.error is not None:
                task["error"] = turn.error
            task.update(turn.fields)
        if turn.fault == "lost":
            return _cut()
        if turn.fault == "garbage":
            return Response("<html>not what you expected</html>", media_type="text/html")
        return self._envelope(task)

    async def _retrieve(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        task = self.tasks.get(request.path_params["id"])
        return _unknown() if task is None else self._envelope(task)

    async def _list(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        return JSONResponse({"jsonrpc": "2.0", "id": "req_1", "result": list(self.tasks.values())})

    async def _cancel(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        task = self.tasks.get(request.path_params["id"])
        if task is None:
            return _unknown(404)
        if not self.cancelable:
            return JSONResponse({"code": -32002, "message": "Task cannot be canceled", "data": None}, 404)
        if task["status"] == "working":
            task["status"] = "canceled"
        return self._envelope(task)

    async def _pause(self, request: Request) -> Response:
        return self._held(request, "working", "paused")

    async def _resume(self, request: Request) -> Response:
        return self._held(request, "paused", "working")

    def _held(self, request: Request, before: str, after: str) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        task = self.tasks.get(request.path_params["id"])
        if task is None or task["status"] != before:
            return JSONResponse({"code": -32009, "message": f"Task is not {before}", "data": None}, 404)
        task["status"] = after
        return self._envelope(task)

    async def _delete(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        task = self.tasks.pop(request.path_params["id"], None)
        return _unknown() if task is None else self._envelope(task)

    def _envelope(self, task: Json) -> Response:
        return JSONResponse({"jsonrpc": "2.0", "id": f"req_{secrets.token_hex(4)}", "result": task})


def _unknown(status: int = 200) -> Response:
    return JSONResponse(
        {"jsonrpc": "2.0", "id": "req_1", "error": {"code": -32001, "message": "Task not found"}}, status
    )


def _cut() -> Response:
    """A reply that ends before its announced length: the client sees the connection break."""
    return StreamingResponse(iter([b"{"]), headers={"content-length": "1000"})
