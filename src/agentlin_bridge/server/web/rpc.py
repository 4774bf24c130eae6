"""The JSON-RPC route of the published server: POST /v1/tasks/agent.

Errors have the HTTP status they have on the other routes. Clients find out by it that they may use those: the
published server, which takes tool results on this route only, answers 200 whatever the error.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agentlin_bridge.server.execution.runs import Runs
from agentlin_bridge.server.protocol.bodies import (
    ListParams,
    RpcCreateParams,
    RpcListParams,
    RpcRequest,
    RpcTaskParams,
    checked,
)
from agentlin_bridge.server.protocol.refusals import INVALID_REQUEST, METHOD_NOT_FOUND, PUSH_UNSUPPORTED, Refusal
from agentlin_bridge.server.protocol.request import read_create, read_json
from agentlin_bridge.server.protocol.wire import RpcAnswer, envelope, task_json
from agentlin_bridge.server.web.http import aside, read_body, user_of
from agentlin_bridge.server.web.operation import Operation
from agentlin_bridge.server.web.tasks_api import TaskApi, possible_id
from agentlin_bridge.task import TaskObject

_IDS = {"id": "task_id", "session_id": "session_id", "user_id": "user_id"}

Method = Callable[["Call"], Awaitable[Response]]


class Call:
    """One JSON-RPC request, with what came along with it."""

    def __init__(self, asked: RpcRequest, request: Request, size: int) -> None:
        self.id = asked.id
        self.size = size
        self.method = asked.method
        self.params = asked.params
        self.headers: Mapping[str, str] = request.headers
        self.user = user_of(request)

    def task(self) -> RpcTaskParams:
        """The task it is about."""
        params = checked(RpcTaskParams, self.params)
        possible_id(params.id)
        return params


class RpcApi:
    """The route's handler, for one server."""

    def __init__(self, runs: Runs, tasks: TaskApi, *, max_body: int) -> None:
        self._tasks = tasks
        self._max_body = max_body
        self._methods: dict[str, Method] = {
            "tasks/create": self._create,
            "tasks/createSubscribe": self._create,
            "tasks/list": self._list,
            "tasks/resubscribe": self._resubscribe,
            "tasks/pushNotification/set": _no_push,
            "tasks/pushNotification/get": _no_push,
            "tasks/get": _on_task(runs.retrieve),
            "tasks/cancel": _on_task(runs.cancel),
            "tasks/pause": _on_task(runs.pause),
            "tasks/resume": _on_task(runs.resume),
            "tasks/delete": _on_task(runs.delete),
        }

    def operations(self) -> list[Operation]:
        """What this API can do."""
        names = ", ".join(name for name in self._methods if "push" not in name)
        return [
            Operation(
                "json_rpc",
                "POST",
                "/v1/tasks/agent",
                self.answer,
                f"JSON-RPC 2.0. Methods: {names}.",
                RpcAnswer,
                body=RpcRequest,
                streams=True,
                refusals=(400, 401, 403, 404, 409, 413, 422, 500, 501, 503),
            )
        ]

    async def answer(self, request: Request) -> Response:
        """POST /v1/tasks/agent."""
        request.state.request_id = None
        raw = await read_body(request, self._max_body)
        body = await aside(len(raw), read_json, raw)
        known_as = body.get("id")
        if isinstance(known_as, str | int) and not isinstance(known_as, bool):
            request.state.request_id = known_as
        try:
            asked = checked(RpcRequest, body)
        except Refusal as refusal:
            raise Refusal(refusal.message, code=INVALID_REQUEST) from None
        method = self._methods.get(asked.method)
        if method is None:
            known = ", ".join(self._methods)
            raise Refusal(f"There is no method {asked.method!r}; known are {known}", status=404, code=METHOD_NOT_FOUND)
        return await method(Call(asked, request, len(raw)))

    async def _create(self, call: Call) -> Response:
        params = checked(RpcCreateParams, call.params)
        body = {**params.payload, "stream": call.method == "tasks/createSubscribe"}
        body |= {known: value for name, known in _IDS.items() if (value := getattr(params, name)) is not None}
        create = await aside(call.size, read_create, body, call.headers, str(call.id), owner=call.user)
        if create.session_id is not None and not (create.results or create.is_nudge):
            # On the published server this has no effect here: clients name a task that it has lost.
            create = replace(create, previous_task_id=None)
        return await self._tasks.begin(create, call.id)

    async def _list(self, call: Call) -> Response:
        given = checked(RpcListParams, call.params).model_dump(exclude_none=True)
        if isinstance(given.get("status"), str):
            given["status"] = [given["status"]]
        return await self._tasks.page(checked(ListParams, given), call.user, call.id)

    async def _resubscribe(self, call: Call) -> Response:
        params = call.task()
        return await self._tasks.follow(params.id, params.after, call.user, call.id)


def _on_task(act: Callable[..., Awaitable[TaskObject]]) -> Method:
    async def method(call: Call) -> Response:
        task = await act(call.task().id, user=call.user)
        return JSONResponse(envelope(call.id, task_json(task, call.user)))

    return method


async def _no_push(call: Call) -> Response:
    raise Refusal(
        "This server sends no push notifications; follow the task with tasks/resubscribe",
        status=501,
        code=PUSH_UNSUPPORTED,
    )
