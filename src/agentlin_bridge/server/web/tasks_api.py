"""The task API's routes: /v1/tasks and what is below it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from anyio import to_thread
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agentlin_bridge.server.execution.runs import Runs
from agentlin_bridge.server.protocol.bodies import OTHER_ID, TASK_ID, CreateBody, EventParams, ListParams, checked
from agentlin_bridge.server.protocol.refusals import unknown_task
from agentlin_bridge.server.protocol.request import (
    CreateRequest,
    read_create,
    read_json,
    read_list_query,
    request_id_of,
)
from agentlin_bridge.server.protocol.wire import (
    ControlAnswer,
    RequestId,
    TaskEnvelope,
    TaskListEnvelope,
    control_answer,
    envelope,
    task_json,
)
from agentlin_bridge.server.web.http import aside, read_body, request_id, user_of
from agentlin_bridge.server.web.metrics import Metrics
from agentlin_bridge.server.web.operation import EVENT_STREAM, Operation
from agentlin_bridge.server.web.sessions_api import stored_session
from agentlin_bridge.server.web.streaming import event_stream, read_position
from agentlin_bridge.task import TaskObject

_EVERY = (400, 401, 403, 500, 503)
_OF_A_TASK = (401, 403, 404, 500, 503)
_IDS = {
    f"X-{name.title()}-ID": {
        "type": "string",
        "pattern": TASK_ID if name == "task" else OTHER_ID,
        "description": meaning,
    }
    for name, meaning in (
        ("task", "`task_id`, where the body has none."),
        ("session", "`session_id`, where the body has none."),
        ("user", "`user_id`, where the body has none."),
        ("client", "`client_id`, where the body has none."),
        ("request", "The id of the answer's envelope, where the body has none."),
    )
}
_POSITION = {"Last-Event-ID": {"type": "string", "pattern": "^[0-9]{0,9}$", "description": "As `after`."}}


class TaskApi:
    """The handlers, for one server."""

    def __init__(self, runs: Runs, metrics: Metrics, *, max_body: int, max_page: int) -> None:
        self._runs = runs
        self._metrics = metrics
        self._max_body = max_body
        self._max_page = max_page

    def operations(self) -> list[Operation]:
        """What this API can do."""
        task = "/v1/tasks/{task_id}"
        return [
            Operation(
                "create_task",
                "POST",
                "/v1/tasks",
                self.create,
                "Begin a turn, or continue one with tool results; answered when the round is over, or by event stream.",
                TaskEnvelope,
                body=CreateBody,
                headers=_IDS,
                streams=True,
                refusals=(*_EVERY, 404, 409, 413, 422),
            ),
            Operation(
                "list_tasks",
                "GET",
                "/v1/tasks",
                self.list_tasks,
                "List tasks, newest first.",
                TaskListEnvelope,
                query=ListParams,
                refusals=_EVERY,
            ),
            Operation(
                "retrieve_task",
                "GET",
                task,
                self.retrieve,
                "A task as it is now.",
                TaskEnvelope,
                refusals=_OF_A_TASK,
            ),
            Operation(
                "delete_task",
                "DELETE",
                task,
                self.delete,
                "Delete a task; what of its turn still runs is canceled. Answered with the task as it was.",
                TaskEnvelope,
                refusals=_OF_A_TASK,
            ),
            *(
                Operation(
                    f"{verb}_task",
                    "POST",
                    f"{task}/{verb}",
                    handler,
                    summary,
                    ControlAnswer,
                    refusals=(*_OF_A_TASK, 409),
                )
                for verb, handler, summary in (
                    ("cancel", self.cancel, "Cancel a task."),
                    ("pause", self.pause, "Let a task rest after what it is doing."),
                    ("resume", self.resume, "Let a paused task go on."),
                )
            ),
            Operation(
                "follow_task",
                "GET",
                f"{task}/events",
                self.events,
                "What happened to a task and happens until its round is over, from any event on.",
                EVENT_STREAM,
                query=EventParams,
                headers=_POSITION,
                streams=True,
                refusals=(*_OF_A_TASK, 400),
            ),
        ]

    async def create(self, request: Request) -> Response:
        """POST /v1/tasks."""
        raw = await read_body(request, self._max_body)
        body = await aside(len(raw), read_json, raw)
        request.state.request_id = known_as = request_id_of(body, request.headers)
        create = await aside(len(raw), read_create, body, request.headers, known_as, owner=user_of(request))
        return await self.begin(create, known_as)

    async def begin(self, create: CreateRequest, known_as: RequestId) -> Response:
        """Serve a create request, however it came."""
        if create.session_id is not None:
            stored = await stored_session(self._runs.store, create.owner, create.session_id)
            create = replace(create, session_id=stored)
        if not create.stream:
            return JSONResponse(envelope(known_as, task_json(await self._runs.create(create), create.owner)))
        return event_stream(await self._runs.stream(create), known_as, create.owner, self._metrics)

    async def list_tasks(self, request: Request) -> Response:
        """GET /v1/tasks."""
        params = checked(ListParams, _list_fields(request.query_params))
        return await self.page(params, user_of(request), request_id(request))

    async def page(self, params: ListParams, owner: str | None, known_as: RequestId | None) -> Response:
        """Serve a list request, however it came."""
        query = read_list_query(params, owner=owner, max_bytes=self._max_page)
        if query.session_id is not None:
            stored = await stored_session(self._runs.store, owner, query.session_id)
            query = replace(query, session_id=stored)
        tasks, more = await self._runs.store.page(query)
        # Putting many tasks into JSON takes a while.
        return await to_thread.run_sync(_page_answer, known_as, tasks, more, owner)

    async def retrieve(self, request: Request) -> Response:
        """GET /v1/tasks/{task_id}."""
        user = user_of(request)
        task = await self._runs.retrieve(_task_id(request), user=user)
        return JSONResponse(envelope(_known(request), task_json(task, user)))

    async def delete(self, request: Request) -> Response:
        """DELETE /v1/tasks/{task_id}."""
        user = user_of(request)
        task = await self._runs.delete(_task_id(request), user=user)
        return JSONResponse(envelope(_known(request), task_json(task, user)))

    async def cancel(self, request: Request) -> Response:
        """POST /v1/tasks/{task_id}/cancel."""
        return await self._controlled(request, self._runs.cancel)

    async def pause(self, request: Request) -> Response:
        """POST /v1/tasks/{task_id}/pause."""
        return await self._controlled(request, self._runs.pause)

    async def resume(self, request: Request) -> Response:
        """POST /v1/tasks/{task_id}/resume."""
        return await self._controlled(request, self._runs.resume)

    @staticmethod
    async def _controlled(request: Request, act: Callable[[str, str | None], Awaitable[TaskObject]]) -> Response:
        user = user_of(request)
        task = await act(_task_id(request), user)
        return JSONResponse(control_answer(_known(request), task, user))

    async def events(self, request: Request) -> Response:
        """GET /v1/tasks/{task_id}/events."""
        return await self.follow(_task_id(request), read_position(request), user_of(request), _known(request))

    async def follow(self, task_id: str, after: int, owner: str | None, known_as: RequestId) -> Response:
        """Serve an event stream, however it was asked for."""
        await self._runs.retrieve(task_id, user=owner)
        return event_stream(self._runs.follow(task_id, after=after, user=owner), known_as, owner, self._metrics)


def _page_answer(known_as: RequestId | None, tasks: Sequence[TaskObject], more: bool, user: str | None) -> Response:
    shown = [task_json(task, user) for task in tasks]
    return JSONResponse({"jsonrpc": "2.0", "id": known_as, "has_more": more, "result": shown})


def _known(request: Request) -> RequestId:
    return request_id(request) or ""


def _task_id(request: Request) -> str:
    return possible_id(request.path_params["task_id"])


def possible_id(task_id: str) -> str:
    """The id, if a task can have it: databases do not take every string.

    Raises:
        Refusal: none can.
    """
    if not re.fullmatch(OTHER_ID, task_id):
        raise unknown_task()
    return task_id


def _list_fields(given: QueryParams) -> dict[str, Any]:
    """The query's fields. Lists come as `status=a&status=b` or as `status[]=a&status[]=b`."""
    fields: dict[str, Any] = {key: value for key, value in given.items() if key in ListParams.model_fields}
    return {**fields, "status": given.getlist("status") + given.getlist("status[]")}
