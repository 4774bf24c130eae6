"""The extension `io.modelcontextprotocol/tasks`: a call that takes long becomes an MCP task.

An MCP task stands for one tool call, of which a task of ours may have several. It completes with what that call
would have returned: once our task is over, paused, or has tool calls for the host's model. All there is to know
about it stands with our task in the ledger, so that it survives the server, is found by every process on the
ledger, and exists for nobody but its principal.

Specification: https://modelcontextprotocol.github.io/ext-tasks/specification/2026-07-28/tasks.html
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from mcp.server.context import CallNext, HandlerResult
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver import require_client_extension
from mcp.shared.exceptions import MCPError
from mcp_types import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolRequestParams,
    ElicitResult,
    RequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import Field, ValidationError

from agentlin_bridge.delegation.bridge import TaskBridge
from agentlin_bridge.errors import BridgeError, TaskNotFound
from agentlin_bridge.hosts.mcp import asking
from agentlin_bridge.hosts.mcp.asking import A_PERSON_NEEDS, Question
from agentlin_bridge.hosts.mcp.attending import goes_on, remarks_on, shows_forms
from agentlin_bridge.hosts.mcp.calling import in_words
from agentlin_bridge.hosts.mcp.serving import Lingering, RawCtx
from agentlin_bridge.task import Task, TaskStatus

TASKS = "io.modelcontextprotocol/tasks"

SOON = 2.0
"""Seconds a call waits itself, so that what is quick needs no polling."""
LIFETIME = 48 * 3600
"""Seconds an MCP task can be asked about, and a person can think about a question: as long as a task takes by
default, and a day more."""
POLL_EVERY = 1.0
"""Seconds clients are asked to leave between two looks."""

_MCP_TASK = "mcp_task:"
_QUESTION = "mcp_question:"


class TaskParams(RequestParams):
    """Names an MCP task."""

    task_id: str = Field(alias="taskId")


class UpdateParams(TaskParams):
    """Brings answers to its input requests."""

    input_responses: dict[str, Any] = Field(alias="inputResponses")


@dataclass(frozen=True, slots=True)
class _Found:
    """An MCP task.

    Attributes:
        name: of its entry in the metadata of our task.
        created_at: in seconds since the epoch.
        offset: where in the answer its result starts.
        completed: whether a client was told that it is over, which then stays so.
    """

    bridge: TaskBridge
    task: Task
    name: str
    created_at: float
    offset: int
    completed: bool

    @property
    def id(self) -> str:
        return f"{self.task.id}.{self.name.removeprefix(_MCP_TASK)}"

    @property
    def entry(self) -> dict[str, Any]:
        return {"created_at": self.created_at, "offset": self.offset, "completed": self.completed}

    @property
    def undecided(self) -> dict[str, str]:
        """By the question's key, why a person decided nothing."""
        return {
            name.removeprefix(_QUESTION): entry["remark"]
            for name, entry in self.task.metadata.items()
            if name.startswith(_QUESTION) and entry["remark"]
        }

    @property
    def questions(self) -> list[Question]:
        """What a person has still to decide."""
        return asking.open_questions(self.task, self.undecided)


class TasksExtension(Extension):
    """MCP tasks on tasks of ours.

    Args:
        soon: seconds a call waits itself.
    """

    identifier = TASKS

    def __init__(self, soon: float) -> None:
        self._soon = soon

    def methods(self) -> Sequence[MethodBinding]:
        """`tasks/get`, `tasks/update` and `tasks/cancel`."""
        versions = frozenset(MODERN_PROTOCOL_VERSIONS)
        return [
            MethodBinding("tasks/get", TaskParams, self._get, versions),
            MethodBinding("tasks/update", UpdateParams, self._update, versions),
            MethodBinding("tasks/cancel", TaskParams, self._cancel, versions),
        ]

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: RawCtx, call_next: CallNext
    ) -> HandlerResult:
        """Let a call of a client that knows MCP tasks leave its task behind."""
        if not _knows_tasks(ctx):
            return await call_next(ctx)
        lingering = Lingering(self._soon)
        result = await call_next(replace(ctx, lifespan_context=replace(ctx.lifespan_context, lingering=lingering)))
        if lingering.task is None:
            return result
        found = await _begin(await ctx.lifespan_context.bridge_of_caller(), lingering.task, lingering.offset)
        return {"resultType": "task", **_described(found, "working")}

    async def _get(self, ctx: RawCtx, params: TaskParams) -> HandlerResult:
        found = await _find(ctx, params.task_id)
        if found.task.status is TaskStatus.CANCELED and not found.completed:
            return _described(found, "cancelled")
        if not found.completed and found.questions and shows_forms(ctx.session.client_capabilities):
            await _note_asked(found)
            requests = {
                question.key: question.as_input_request.model_dump(by_alias=True, mode="json", exclude_none=True)
                for question in found.questions
            }
            return {**_described(found, "input_required"), "inputRequests": requests}
        if not found.completed and goes_on(found.task):
            return _described(found, "working")
        if not found.completed and not found.task.status.is_terminal:
            # Our task will go on, this one must not.
            await found.bridge.annotate(found.task.id, {found.name: {**found.entry, "completed": True}})
        can_ask = shows_forms(ctx.session.client_capabilities)
        result = ctx.lifespan_context.results.task(
            found.task, offset=found.offset, remarks=remarks_on(found.task, found.undecided, can_ask=can_ask)
        )
        dumped = result.model_dump(by_alias=True, mode="json", exclude_none=True)
        return {**_described(found, "completed"), "result": {"resultType": "complete", **dumped}}

    async def _update(self, ctx: RawCtx, params: UpdateParams) -> HandlerResult:
        found = await _find(ctx, params.task_id)
        if found.completed:
            return {}
        answered = [question for question in found.questions if question.key in params.input_responses]
        results = [(question, _elicited(params.input_responses[question.key])) for question in answered]
        for question, result in results:
            asked = found.task.metadata.get(_QUESTION + question.key)
            took = A_PERSON_NEEDS if asked is None else time.time() - asked["at"]
            try:
                remark = await asking.settle(found.bridge, question, result, took)
            except BridgeError as error:
                raise MCPError(INVALID_PARAMS, in_words(error)) from error
            if remark:
                noted = {_QUESTION + question.key: {"at": time.time(), "remark": remark}}
                await found.bridge.annotate(found.task.id, noted)
        return {}

    async def _cancel(self, ctx: RawCtx, params: TaskParams) -> HandlerResult:
        found = await _find(ctx, params.task_id)
        if not found.completed:
            await found.bridge.cancel(found.task.id)
        return {}


def _knows_tasks(ctx: RawCtx) -> bool:
    capabilities = ctx.session.client_capabilities
    declared = capabilities.extensions if capabilities else None
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS and TASKS in (declared or {})


async def _begin(bridge: TaskBridge, task: Task, offset: int) -> _Found:
    found = _Found(bridge, task, f"{_MCP_TASK}{secrets.token_hex(8)}", time.time(), offset, False)
    return replace(found, task=await bridge.annotate(task.id, {found.name: found.entry}))


async def _find(ctx: RawCtx, mcp_task_id: str) -> _Found:
    """The MCP task of that id, of the request's principal.

    Raises:
        MCPError: there is none, or the client does not know MCP tasks.
    """
    require_client_extension(ctx, TASKS)
    _check_name(ctx, mcp_task_id)
    task_id, _, nonce = mcp_task_id.rpartition(".")
    try:
        bridge = await ctx.lifespan_context.bridge_of_caller()
        task = await bridge.retrieve(task_id)
    except TaskNotFound as error:
        raise _unknown() from error
    except BridgeError as error:
        raise MCPError(INTERNAL_ERROR, in_words(error)) from error
    name = f"{_MCP_TASK}{nonce}"
    entry = task.metadata.get(name)
    if not isinstance(entry, Mapping) or time.time() > entry["created_at"] + LIFETIME:
        raise _unknown()
    return _Found(bridge, task, name, **entry)


def _unknown() -> MCPError:
    return MCPError(INVALID_PARAMS, "There is no such MCP task, or its time is over.")


def _check_name(ctx: RawCtx, mcp_task_id: str) -> None:
    """What proxies route by has to be what is asked for; the SDK checks it only for methods it knows."""
    if ctx.request is None:
        return
    named = ctx.request.headers.get("mcp-name")
    if named != mcp_task_id:
        raise MCPError(HEADER_MISMATCH, "The header Mcp-Name is not the taskId of the request.")


async def _note_asked(found: _Found) -> None:
    now = time.time()
    names = [_QUESTION + question.key for question in found.questions]
    fresh = {name: {"at": now, "remark": ""} for name in names if name not in found.task.metadata}
    if fresh:
        await found.bridge.annotate(found.task.id, fresh)


def _elicited(response: object) -> ElicitResult:
    try:
        return ElicitResult.model_validate(response)
    except ValidationError as error:
        raise MCPError(INVALID_PARAMS, "An input response is no result of an elicitation.") from error


def _described(found: _Found, status: str) -> dict[str, Any]:
    created = datetime.fromtimestamp(found.created_at, UTC)
    return {
        "taskId": found.id,
        "status": status,
        "createdAt": created.isoformat(),
        "lastUpdatedAt": max(created, found.task.updated_at).isoformat(),
        "ttlMs": LIFETIME * 1000,
        "pollIntervalMs": int(POLL_EVERY * 1000),
    }
