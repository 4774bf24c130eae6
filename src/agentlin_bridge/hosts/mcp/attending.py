"""Staying with a task while a host's call waits: until it is over, the host's model is needed, or time is up.

What a person has to decide is put to the person meanwhile, where the client can.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import anyio
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, ClientCapabilities, ElicitResult, InputRequiredResult
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from agentlin_bridge.delegation.bridge import TaskBridge
from agentlin_bridge.hosts.mcp import asking
from agentlin_bridge.hosts.mcp.asking import Asked, Question
from agentlin_bridge.hosts.mcp.serving import Ctx, serving
from agentlin_bridge.hosts.mcp.waiting import Waiting
from agentlin_bridge.task import Task, TaskStatus

ROUNDS = 8
"""How often one call asks by its result; the SDK's client gives up after ten."""

Answer = CallToolResult | InputRequiredResult


def task_asked_about(ctx: Ctx) -> str | None:
    """The task of a call that comes again with a person's answers; nothing else of it must be done twice."""
    return None if ctx.request_state is None else Asked.load(ctx.request_state).task_id


async def attend(ctx: Ctx, bridge: TaskBridge, task: Task, seconds: float, *, offset: int = 0) -> Answer:
    """Stay with a task for so many seconds; what the host is to be told then."""
    attending = _Attending(ctx, bridge, seconds)
    return await attending.until_told(task, offset)


class _Attending:
    def __init__(self, ctx: Ctx, bridge: TaskBridge, seconds: float) -> None:
        self._ctx = ctx
        self._bridge = bridge
        self._lingering = serving(ctx).lingering
        self._seconds = seconds
        granted = seconds if self._lingering is None else min(seconds, self._lingering.patience)
        self._waiting = Waiting(ctx, bridge, granted)
        self._before = None if ctx.request_state is None else Asked.load(ctx.request_state)
        self._undecided = dict(self._before.undecided) if self._before else {}

    async def until_told(self, task: Task, offset: int) -> Answer:
        if self._before is not None:
            task = await self._hear(task, self._before)
        while True:
            task = await self._waiting.wait(task)
            open_ = asking.open_questions(task, self._undecided)
            if not open_ or not self._waiting.left or not shows_forms(self._ctx.client_capabilities):
                break
            if self._ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
                task = await self._ask(open_[0])
            elif (asked := self._before.rounds + 1 if self._before else 1) <= ROUNDS:
                return self._with_questions(task, open_, asked)
            else:
                break
        self._leave_behind(task, offset)
        remarks = remarks_on(task, self._undecided, can_ask=shows_forms(self._ctx.client_capabilities))
        return serving(self._ctx).results.task(task, offset=offset, remarks=remarks)

    def _leave_behind(self, task: Task, offset: int) -> None:
        """Note a task that this call would have waited for, had it not to be short."""
        lingering = self._lingering
        if lingering is not None and self._seconds > lingering.patience and goes_on(task):
            lingering.task = task
            lingering.offset = offset

    async def _ask(self, question: Question) -> Task:
        request = question.request
        asked_at = anyio.current_time()
        result = None
        try:
            with serving(self._ctx).waits.waiting(), anyio.move_on_after(self._waiting.left):
                result = await self._ctx.session.elicit_form(
                    request.message, request.requested_schema, related_request_id=self._ctx.request_id
                )
        except MCPError:
            self._undecided[question.key] = asking.NO_WAY
        else:
            await self._settle(question, result, anyio.current_time() - asked_at)
        return await self._bridge.retrieve(question.task_id)

    def _with_questions(self, task: Task, open_: list[Question], rounds: int) -> InputRequiredResult:
        keys = tuple(question.key for question in open_)
        return InputRequiredResult(
            input_requests={question.key: question.as_input_request for question in open_},
            request_state=Asked(task.id, time.time(), rounds, keys, self._undecided).dump(),
        )

    async def _hear(self, task: Task, asked: Asked) -> Task:
        """Take the answers that came with the call; those to questions no longer open have had their effect."""
        took = time.time() - asked.at
        for question in asking.questions(task):
            if question.key in asked.keys:
                result = (self._ctx.input_responses or {}).get(question.key)
                await self._settle(question, result if isinstance(result, ElicitResult) else None, took)
        return await self._bridge.retrieve(task.id)

    async def _settle(self, question: Question, result: ElicitResult | None, took: float) -> None:
        remark = asking.UNANSWERED
        if result is not None:
            remark = await asking.settle(self._bridge, question, result, took)
        if remark:
            self._undecided[question.key] = remark


def goes_on(task: Task) -> bool:
    """Whether a task is neither over nor held, and asks nothing of the host."""
    return not (task.status.is_terminal or task.status is TaskStatus.PAUSED or task.pending)


def remarks_on(task: Task, undecided: Mapping[str, str], *, can_ask: bool) -> dict[str, str]:
    """What the model should know about calls that are for a person, by call_id.

    Args:
        task: the task.
        undecided: by the question's key, why the person decided nothing.
        can_ask: whether the client can ask one.
    """
    remarks = {}
    for question in asking.questions(task):
        why = undecided.get(question.key) or question.unaskable or ("" if can_ask else asking.NO_WAY)
        what = "" if question.call.approval_required else asking.FOR_THE_USER
        if remark := "; ".join(part for part in (why, what) if part):
            remarks[question.call.call_id] = remark
    return remarks


def shows_forms(capabilities: ClientCapabilities | None) -> bool:
    """Whether a client shows forms to a person. One that names no mode means forms."""
    elicitation = capabilities.elicitation if capabilities else None
    return elicitation is not None and (elicitation.form is not None or elicitation.url is None)
