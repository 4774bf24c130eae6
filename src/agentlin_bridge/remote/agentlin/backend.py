"""The `agentlin` backend: Agentlin's task API, in both of its dialects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

from agentlin_bridge.errors import (
    SERVER_ERROR,
    TASK_NOT_CANCELABLE,
    TASK_NOT_PAUSABLE,
    RemoteError,
    RemoteProtocolError,
    ReplyLost,
    UnsupportedError,
)
from agentlin_bridge.remote.agentlin import documented, published
from agentlin_bridge.remote.agentlin.dialect import Dialect, probe
from agentlin_bridge.remote.agentlin.endpoint import Endpoint
from agentlin_bridge.remote.agentlin.faults import raise_error, read_task
from agentlin_bridge.remote.agentlin.frames import FrameReader
from agentlin_bridge.remote.agentlin.options import check_options, server_tools_off
from agentlin_bridge.remote.agentlin.transport import Transport
from agentlin_bridge.remote.backend import Capabilities, Continuation, Listener, StartRequest
from agentlin_bridge.remote.repeating import repeating
from agentlin_bridge.task import JsonrpcError, RemoteOutcome, TaskObject, TaskStatus

R = TypeVar("R", StartRequest, Continuation)

_PAGE = 100
_NEVER_STORED = (404, 405, 422)
"""Answers to a round that tell of another dialect than the one we took, and that stored nothing."""


class AgentlinBackend:
    """Runs tasks on an Agentlin deployment, or on whatever speaks its task API.

    Args:
        endpoint: where it is.
        name: the backend's name in settings and ledger.
        dialect: how it takes tool results; None finds out before the first task.
        client_id: sent with every task, if set (`AGENTLIN_CLIENT_ID`).
        user_id: whose tasks `list` asks for; the published server insists on one.
        server_tools: whether the agent may use its server's own tools; on the published server those are a
            shell, file access and a code interpreter.
        can_stream: whether rounds can be followed by event stream.
        can_hold: whether tasks can be paused and resumed; the published server only says so.
        notice: what hosts are told before they delegate.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        name: str = "agentlin",
        dialect: Dialect | None = None,
        client_id: str | None = None,
        user_id: str | None = None,
        server_tools: bool = True,
        can_stream: bool = True,
        can_hold: bool = False,
        notice: str = "",
    ) -> None:
        self.name = name
        self.notice = notice
        self.place = endpoint.place
        self.capabilities = Capabilities(stream=can_stream, pause=can_hold, resume=can_hold)
        self._server_tools = server_tools
        self._client_id = client_id
        self._user_id = user_id
        self._chosen = dialect
        self._learned: dict[str, str] = {}
        self._transport = Transport(endpoint, headers={"X-Client-ID": client_id} if client_id else {})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._transport.close()

    # Dialect ---------------------------------------------------------------------------------------------

    @property
    def notes(self) -> Mapping[str, str]:
        """The dialect by base URL."""
        return dict(self._learned)

    def recall(self, notes: Mapping[str, str]) -> None:
        known = {url: dialect for url, dialect in notes.items() if dialect in tuple(Dialect)}
        self._learned = {**known, **self._learned}

    async def _dialect(self) -> Dialect:
        if self._chosen is not None:
            return self._chosen
        url = await self._transport.base_url()
        if url not in self._learned:
            self._learned[url] = await repeating(probe, self._transport)
        return Dialect(self._learned[url])

    async def _is_another_dialect(self, used: Dialect, error: RemoteError) -> bool:
        """Whether a refusal is explained by the remote speaking another dialect by now; asks it again."""
        if self._chosen is not None or error.status not in _NEVER_STORED:
            return False
        self._learned.pop(await self._transport.base_url(), None)
        return await self._dialect() is not used

    def check_options(self, options: Mapping[str, Any]) -> None:
        check_options(options)

    def _safe(self, request: R) -> R:
        if self._server_tools or "allowed_tools" in request.options:
            return request
        allowed = server_tools_off([tool.name for tool in request.client_tools])
        return replace(request, options={**request.options, "allowed_tools": allowed})

    # Rounds ----------------------------------------------------------------------------------------------

    async def start(self, request: StartRequest, *, listener: Listener | None = None) -> TaskObject:
        request = self._safe(request)
        dialect = await self._dialect()
        try:
            return await self._start(dialect, request, listener)
        except RemoteError as error:
            if not await self._is_another_dialect(dialect, error):
                raise
        return await self._start(await self._dialect(), request, listener)

    async def _start(self, dialect: Dialect, request: StartRequest, listener: Listener | None) -> TaskObject:
        if dialect is Dialect.PUBLISHED:
            body = published.start_request(request, self._client_id)
            return await self._round(published.START_PATH, body, request, listener, dialect)
        return await self._round("/tasks", documented.start_body(request, self._client_id), request, listener, dialect)

    async def proceed(self, continuation: Continuation, *, listener: Listener | None = None) -> TaskObject:
        continuation = self._safe(continuation)
        dialect = await self._dialect()
        try:
            return await self._proceed(dialect, continuation, listener)
        except RemoteError as error:
            if not await self._is_another_dialect(dialect, error):
                raise
        return await self._proceed(await self._dialect(), continuation, listener)

    async def _proceed(self, dialect: Dialect, continuation: Continuation, listener: Listener | None) -> TaskObject:
        if dialect is Dialect.DOCUMENTED:
            if continuation.kind != "results":
                raise RemoteProtocolError(
                    f"The remote can no longer take a {continuation.kind}: it speaks another dialect by now.",
                    next_step="create the task again",
                )
            body = documented.results_body(continuation, self._client_id)
            return await self._round("/tasks", body, continuation, listener, dialect)
        if continuation.kind != "replay":
            # A server that has lost its memory would silently take the results into an empty session.
            await self.retrieve(continuation.previous_remote_id)
        body = published.rpc_request(continuation, self._client_id)
        return await self._round(published.RPC_PATH, body, continuation, listener, dialect)

    async def _round(
        self,
        path: str,
        body: Mapping[str, Any],
        request: StartRequest | Continuation,
        listener: Listener | None,
        dialect: Dialect,
    ) -> TaskObject:
        if request.stream:
            adopt = dialect is Dialect.DOCUMENTED
            task = await self._streamed(path, body, FrameReader(request.remote_id, adopt_id=adopt), listener)
        else:
            task = _task(*await self._transport.round(path, body))
        if dialect is Dialect.PUBLISHED and task.id != request.remote_id:
            return _of_subagent(task, request)
        return task

    async def _streamed(
        self, path: str, body: Mapping[str, Any], reader: FrameReader, listener: Listener | None
    ) -> TaskObject:
        try:
            async with self._transport.stream(path, body) as stream:
                if isinstance(stream, tuple):
                    return _task(*stream)
                async for chunk in stream:
                    for frame in reader.feed(chunk):
                        if frame.is_main and frame.event is not None and listener is not None:
                            listener(frame.event)
                    if reader.outcome is not None:
                        break
        except ReplyLost as error:
            error.remote_id = reader.main_id or None
            raise
        reader.close()
        if reader.outcome == "failed":
            raise_error({"error": (reader.error or JsonrpcError()).model_dump(), "id": reader.request_id}, 200)
        if reader.task is not None:
            return reader.task
        if reader.outcome == "ended":
            return await self.retrieve(reader.main_id)
        lost = ReplyLost(reader.problem, next_step="retrieve the task to see whether it runs")
        lost.remote_id = reader.main_id or None
        raise lost

    async def dies_with_its_stream(self) -> bool:
        return await self._dialect() is Dialect.PUBLISHED

    async def remedy(self, failed: TaskObject | None, tried: Sequence[str]) -> Literal["nudge", "replay"] | None:
        return published.remedy(failed, tried) if await self._dialect() is Dialect.PUBLISHED else None

    # Control ---------------------------------------------------------------------------------------------

    async def retrieve(self, remote_id: str) -> TaskObject:
        return await repeating(self._get, remote_id)

    async def _get(self, remote_id: str) -> TaskObject:
        return _task(*await self._transport.control("GET", _path(remote_id)))

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
            page = await repeating(self._page, params)
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
        headers = {"X-User-ID": self._user_id} if self._user_id else {}
        status, payload = await self._transport.control("GET", "/tasks", params=params, headers=headers)
        page = payload.get("result")
        if status >= 400 or not isinstance(page, list):
            raise_error(payload, status)
        return [read_task({"result": item}, status) for item in page if isinstance(item, dict)]

    async def cancel(self, remote_id: str, *, stream_closed: bool = False) -> RemoteOutcome:
        if stream_closed and await self._dialect() is Dialect.PUBLISHED:
            # Closing the stream is the only thing that stops a run there, and it does.
            return "stopped"
        outcome = await repeating(self._stop, "POST", f"{_path(remote_id)}/cancel")
        if outcome == "kept running" and await self._is_over(remote_id):
            return "stopped"
        return outcome

    async def delete(self, remote_id: str) -> RemoteOutcome:
        return await repeating(self._stop, "DELETE", _path(remote_id))

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
        return status is not None and (status.is_terminal or status is TaskStatus.INPUT_REQUIRED)

    async def pause(self, remote_id: str) -> TaskObject:
        return await repeating(self._moved, remote_id, "pause")

    async def resume(self, remote_id: str) -> TaskObject:
        return await repeating(self._moved, remote_id, "resume")

    async def _moved(self, remote_id: str, verb: str) -> TaskObject:
        status, payload = await self._transport.control("POST", f"{_path(remote_id)}/{verb}")
        try:
            return _task(status, payload)
        except RemoteError as error:
            if error.remote_code == TASK_NOT_PAUSABLE or status in (405, 501):
                raise UnsupportedError(
                    f"The remote cannot {verb} this task ({error.message}).",
                    next_step="cancel the task, or let it run",
                ) from error
            raise


def _path(remote_id: str) -> str:
    return f"/tasks/{quote(remote_id, safe='')}"


def _task(status: int, payload: Mapping[str, Any]) -> TaskObject:
    if status >= 400:
        raise_error(payload, status)
    return read_task(payload, status)


def _of_subagent(task: TaskObject, request: StartRequest | Continuation) -> TaskObject:
    """The published server answers with the task of a subagent that failed; ours stays `created` there for ever."""
    reason = task.error.message if task.error is not None else f"it is {task.status}"
    error = JsonrpcError(code=SERVER_ERROR, message=f"A subagent of the remote agent failed: {reason}")
    return TaskObject(id=request.remote_id, session_id=request.session_id, status=TaskStatus.FAILED, error=error)
