"""NLA Engine for tests: the documented task API on a real port, its quirks switchable.

A run gets on by one update each time somebody retrieves its task: nothing here depends on time.
"""

from __future__ import annotations

import copy
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Self
from uuid import uuid4

import anyio
import httpx
import uvicorn
from anyio.from_thread import start_blocking_portal
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.support.replay import listening

Json = dict[str, Any]
VARIABLE = "r8_variable_of_the_agent"
"""A provider's key among the agent's variables."""


@dataclass
class Run:
    """How one run goes.

    Attributes:
        updates: fields of the task that change, one update for each time it is retrieved; the last stands.
        reply: what becomes of the answer to its start. `lost`: the run is stored and the connection closed;
            `unstored`: closed before; a number: that status, the run stored; `html` and `no id`: 201 with
            something that is no task.
        is_stored: whether a start that is answered with a status of 400 or more has started the run after all.
        unlisted: so many listings do not show it yet.
        gate: holds the answer to its start.
    """

    updates: Sequence[Json] = ()
    reply: Literal["lost", "unstored", "html", "no id"] | int = 201
    is_stored: bool = True
    unlisted: int = 0
    gate: anyio.Event | None = None


def done(output: Any, *logs: str) -> Run:
    """A run that is complete when it is looked at for the second time."""
    return Run([{"logs": list(logs[:1])}, {"logs": list(logs), "output": output, "status": "complete"}])


def echo(agent_id: str, body: Json) -> Run:
    """What agents do unless a test says otherwise."""
    text = f"{agent_id}: {body['input'].get('prompt', '')}"
    return done({"answer": text}, "Writer: Running", f"Response: {text}")


@dataclass
class NlaEngine:
    """Attributes:
    behave: how a run goes, by the agent and the body of its start.
    key: the only one that is let in.
    has_details: whether tasks have the fields that the document's class has and its examples have not.
    leaves_out: fields no task has.
    error_body: the shape of error bodies.
    failing: answers instead of the real ones, by `METHOD path`: a status, or `cut`; one by one, the last stays.
    tells_late: callbacks are sent one update late, so that they arrive out of order.
    """

    behave: Callable[[str, Json], Run] = echo
    key: str | None = "engine-key"
    has_details: bool = False
    leaves_out: frozenset[str] = frozenset()
    error_body: Literal["message", "html", "empty"] = "message"
    failing: dict[str, list[int | str]] = field(default_factory=dict)
    tells_late: bool = False
    agents: list[Json] = field(default_factory=list)
    tasks: dict[str, Json] = field(default_factory=dict)
    starts: list[Json] = field(default_factory=list)
    came: anyio.Event = field(default_factory=anyio.Event)
    looked: anyio.Event = field(default_factory=anyio.Event)
    started: anyio.Event = field(default_factory=anyio.Event)
    requests: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    base_url: str = ""
    _updates: dict[str, list[Json]] = field(default_factory=dict)
    _unlisted: dict[str, int] = field(default_factory=dict)
    _held: list[Json] = field(default_factory=list)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Self]:
        """Listen while entered."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        api = "/api/v1"
        app = Starlette(
            routes=[
                Route(f"{api}/task", self._list, methods=["GET"]),
                Route(f"{api}/task/{{id}}", self._retrieve, methods=["GET"]),
                Route(f"{api}/task/{{id}}", self._delete, methods=["DELETE"]),
                # As the engine's own handler does, this one ignores the verb.
                Route(f"{api}/workflow/{{id}}", self._start, methods=["GET", "POST"]),
                Route(f"{api}/agent", self._agents, methods=["GET"]),
            ]
        )
        config = uvicorn.Config(app, lifespan="off", log_config=None, ws="none", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        server.capture_signals = nullcontext  # type: ignore[assignment,method-assign]  # pytest has its own handlers
        with listener:
            async with listening(server, listener):
                yield self

    @contextmanager
    def serving(self) -> Iterator[Self]:
        """Serve it from a thread of its own."""
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(self.serve()):
            yield self

    def add(self, agent_id: str = "writer", **fields: Any) -> str:
        """A task that somebody else's start has made; its id."""
        return str(self._store(agent_id, {}, Run([]), fields)["id"])

    def count(self, request: str) -> int:
        """How often a request came: `GET /task`, `POST /workflow/writer`."""
        return self.requests.count(request)

    # The API ---------------------------------------------------------------------------------------------

    async def _start(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        body = await request.json()
        agent_id = request.path_params["id"]
        self.starts.append(body)
        self.started.set()
        if self.agents and all(agent["id"] != agent_id for agent in self.agents):
            return self._error(404, f"Agent {agent_id} not found")
        run = self.behave(agent_id, body)
        if run.reply == "unstored":
            return _cut()
        status = run.reply if isinstance(run.reply, int) else 201
        task = self._store(agent_id, body, run, {}) if status < 400 or run.is_stored else {}
        if run.gate is not None:
            await run.gate.wait()
        if run.reply == "lost":
            return _cut()
        if run.reply == "html":
            return Response("<html>started</html>", 201, media_type="text/html")
        if run.reply == "no id":
            return JSONResponse({"logs": [], "status": "running"}, 201)
        return JSONResponse(self._shown(task), status) if status < 400 else self._error(status, "The engine failed")

    async def _retrieve(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        task = self.tasks.get(request.path_params["id"])
        if task is None:
            return self._error(404, "Task not found")
        self.looked.set()
        await self._get_on(task)
        return JSONResponse(self._shown(task))

    async def _list(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        shown = [self._shown(task) for task_id, task in self.tasks.items() if not self._unlisted.get(task_id)]
        self._unlisted = {task_id: count - 1 for task_id, count in self._unlisted.items() if count > 1}
        return JSONResponse(shown)

    async def _delete(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        task = self.tasks.pop(request.path_params["id"], None)
        if task is None:
            return self._error(404, "Task not found")
        return _cut() if self._fails(f"{self.requests[-1]} late") else JSONResponse(self._shown(task))

    async def _agents(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        query = request.query_params.get("query")
        found = [agent for agent in self.agents if query is None or query in agent.get("description", "")]
        return JSONResponse(found if query is None else found[:5])

    # What it does ----------------------------------------------------------------------------------------

    def _refused(self, request: Request) -> Response | None:
        self.requests.append(f"{request.method} {request.url.path.removeprefix('/api/v1')}")
        self.headers.append(dict(request.headers))
        self.came.set()
        if self.key is not None and request.headers.get("apikey") != self.key:
            return self._error(401, "API key is invalid")
        answer = self._fails(self.requests[-1])
        if isinstance(answer, int):
            return self._error(answer, "Not today")
        if answer == "cut":
            return _cut()
        return None if answer is None else Response(answer, media_type="application/json")

    def _fails(self, request: str) -> int | str | None:
        answers = self.failing.get(request)
        if not answers:
            return None
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return answer or None

    def _store(self, agent_id: str, body: Json, run: Run, fields: Json) -> Json:
        task: Json = {"id": str(uuid4()), "logs": [], "output": {}, "status": "running"}
        if body.get("callback"):
            task["callback"] = body["callback"]
        if self.has_details:
            agent = {"id": agent_id, "name": "Writer", "variables": {"replicate": VARIABLE, **body.get("input", {})}}
            task |= {"name": "run", "agentId": agent_id, "userId": "u1", "agent": agent, "user": {"apikey": self.key}}
            task["createdAt"] = f"2026-01-01T00:00:{len(self.tasks):02}.000Z"
        task |= fields
        self.tasks[task["id"]] = task
        self._updates[task["id"]] = [dict(update) for update in run.updates]
        if run.unlisted:
            self._unlisted[task["id"]] = run.unlisted
        return task

    async def _get_on(self, task: Json) -> None:
        updates = self._updates.get(task["id"])
        if not updates:
            return
        task.update(updates.pop(0))
        if not task.get("callback"):
            return
        told = [copy.deepcopy(task)]
        if self.tells_late:
            told = [*told, *self._held] if not updates else []
            self._held = [copy.deepcopy(task), *self._held]
        async with httpx.AsyncClient(trust_env=False) as client:
            for update in told:
                with suppress(httpx.HTTPError):
                    await client.post(task["callback"], json=update)

    def _shown(self, task: Json) -> Json:
        return {name: value for name, value in task.items() if name not in self.leaves_out}

    def _error(self, status: int, message: str) -> Response:
        if self.error_body == "html":
            return Response(f"<html><h1>{message}</h1></html>", status, media_type="text/html")
        return Response("", status) if self.error_body == "empty" else JSONResponse({"message": message}, status)


def _cut() -> Response:
    """A reply that ends before its announced length: the client sees the connection break."""
    return StreamingResponse(iter([b"{"]), headers={"content-length": "1000"})
