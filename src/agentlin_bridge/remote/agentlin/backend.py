"""The `agentlin` backend: the documented task API.

Sources: the task API documents and the published client `agentlin_client` 1.14.0. How tool results go back
is in no document; `ToolResultItem`s in `thought_messages` of the same session are what the client's types
ask for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import stamina

from agentlin_bridge.errors import (
    TASK_NOT_CANCELABLE,
    RemoteError,
    RemoteUnavailable,
    ReplyLost,
    UnsupportedError,
)
from agentlin_bridge.remote.agentlin.endpoint import Endpoint
from agentlin_bridge.remote.agentlin.faults import raise_error, read_task
from agentlin_bridge.remote.agentlin.transport import Transport
from agentlin_bridge.remote.backend import Capabilities, Continuation, StartRequest, ToolDefinition
from agentlin_bridge.task import RemoteOutcome, TaskObject, TaskStatus

_RESERVED = frozenset(
    {
        "client_tools",
        "previous_task_id",
        "request_id",
        "session_id",
        "stream",
        "structured_output",
        "task_id",
        "thought_messages",
        "user_id",
        "user_message_content",
    }
)
_PAGE = 100

_repeating = stamina.AsyncRetryingCaller(attempts=3, timeout=10, wait_initial=0.1, wait_max=1).on(
    (RemoteUnavailable, ReplyLost)
)
"""For requests that may be sent again without a second effect."""


class AgentlinBackend:
    """Runs tasks on an Agentlin deployment, or on whatever speaks its task API.

    Args:
        endpoint: where it is.
        name: the backend's name in settings and ledger.
        client_id: sent with every task, if set (`AGENTLIN_CLIENT_ID`).
        notice: what hosts are told before they delegate.
    """

    def __init__(
        self, endpoint: Endpoint, *, name: str = "agentlin", client_id: str | None = None, notice: str = ""
    ) -> None:
        self.name = name
        self.notice = notice
        self.capabilities = Capabilities()
        self.reserved_options = _RESERVED
        self._client_id = client_id
        self._transport = Transport(endpoint, headers={"X-Client-ID": client_id} if client_id else {})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._transport.close()

    async def start(self, request: StartRequest) -> TaskObject:
        body = self._body(request, user_message_content=[_wire(item) for item in request.content])
        if request.previous_remote_id is not None:
            body["previous_task_id"] = request.previous_remote_id
        return await self._round(body)

    async def proceed(self, continuation: Continuation) -> TaskObject:
        body = self._body(
            continuation,
            user_message_content=[],
            previous_task_id=continuation.previous_remote_id,
            thought_messages=[_wire(result) for result in continuation.results],
        )
        return await self._round(body)

    def _body(self, request: StartRequest | Continuation, **fields: Any) -> dict[str, Any]:
        body: dict[str, Any] = {
            **request.options,
            "stream": False,
            "task_id": request.remote_id,
            "session_id": request.session_id,
            "user_id": request.user_id,
            **fields,
        }
        if self._client_id:
            body.setdefault("client_id", self._client_id)
        if request.client_tools:
            body["client_tools"] = [_wire_tool(tool) for tool in request.client_tools]
        if request.output_schema is not None:
            body["structured_output"] = dict(request.output_schema)
        return body

    async def _round(self, body: Mapping[str, Any]) -> TaskObject:
        status, payload = await self._transport.round("/tasks", body)
        return _task(status, payload)

    async def retrieve(self, remote_id: str) -> TaskObject:
        return await _repeating(self._get, remote_id)

    async def _get(self, remote_id: str) -> TaskObject:
        return _task(*await self._transport.control("GET", f"/tasks/{remote_id}"))

    async def list(
        self, *, session_id: str | None = None, status: TaskStatus | None = None
    ) -> AsyncIterator[TaskObject]:
        params: dict[str, Any] = {"limit": _PAGE}
        if session_id is not None:
            params["session_id"] = session_id
        if status is not None:
            params["status"] = status.value
        seen: set[str] = set()
        while True:
            page = await _repeating(self._page, params)
            fresh = [task for task in page if task.id not in seen]
            for task in fresh:
                seen.add(task.id)
                # The published server combines filters with OR, so they are applied here again.
                if (session_id is None or task.session_id == session_id) and status in (None, task.status):
                    yield task
            # Cursors are inclusive on the published server: a page without anything new is the end.
            if not fresh or len(page) < _PAGE:
                return
            params["starting_after"] = page[-1].id

    async def _page(self, params: Mapping[str, Any]) -> Sequence[TaskObject]:
        status, payload = await self._transport.control("GET", "/tasks", params=params)
        page = payload.get("result")
        if status >= 400 or not isinstance(page, list):
            raise_error(payload, status)
        return [read_task({"result": item}, status) for item in page if isinstance(item, dict)]

    async def cancel(self, remote_id: str) -> RemoteOutcome:
        outcome = await _repeating(self._stop, "POST", f"/tasks/{remote_id}/cancel")
        if outcome == "kept running" and await self._is_over(remote_id):
            return "stopped"
        return outcome

    async def delete(self, remote_id: str) -> RemoteOutcome:
        return await _repeating(self._stop, "DELETE", f"/tasks/{remote_id}")

    async def _stop(self, method: str, path: str) -> RemoteOutcome:
        status, payload = await self._transport.control(method, path)
        if status in (405, 501):
            return "unsupported"
        try:
            _task(status, payload)
        except RemoteError as error:
            if error.remote_code == TASK_NOT_CANCELABLE:
                return "kept running"
            raise
        return "stopped"

    async def _is_over(self, remote_id: str) -> bool:
        status = (await self.retrieve(remote_id)).status
        return status is not None and status.is_terminal

    async def pause(self, remote_id: str) -> TaskObject:
        raise UnsupportedError("This backend cannot pause tasks.", next_step="cancel the task, or let it run")

    async def resume(self, remote_id: str) -> TaskObject:
        raise UnsupportedError("This backend cannot resume tasks.", next_step="create a new task")


def _task(status: int, payload: Mapping[str, Any]) -> TaskObject:
    if status >= 400:
        raise_error(payload, status)
    return read_task(payload, status)


def _wire(item: Any) -> dict[str, Any]:
    fields: dict[str, Any] = item.model_dump(mode="json", exclude_none=True)
    return fields


def _wire_tool(tool: ToolDefinition) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)},
    }
