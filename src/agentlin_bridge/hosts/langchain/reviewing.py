"""Which calls of the remote agent need a person, and what the person may decide: the `interrupt_on` mapping.

It is that of LangChain's `HumanInTheLoopMiddleware`, which never sees what a remote agent calls.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agentlin_bridge import TaskBridge
from agentlin_bridge.delegation.client_tools import ClientTool
from agentlin_bridge.errors import InvalidRequestError
from agentlin_bridge.hosts.langchain.caller import Caller
from agentlin_bridge.hosts.langchain.questions import DECISIONS, REJECT, RESPOND, Question, unique_id
from agentlin_bridge.task import PendingCall, Task

InterruptOn = Mapping[str, bool | Mapping[str, Any]]
"""By tool name: True for all decisions, False for none, or LangChain's `InterruptOnConfig`."""

_ANSWERS = (RESPOND, REJECT)
"""The decisions about a call that nothing here executes."""


@dataclass(frozen=True, slots=True)
class _Review:
    """How the calls of one tool are reviewed."""

    allowed: tuple[str, ...] = DECISIONS
    description: str | Callable[..., str] | None = None
    when: Callable[..., bool] | None = None


class Reviews:
    """The reviews of one delegation's client tools.

    Args:
        interrupt_on: the mapping.
        tools: the client tools as they are offered, by the names the host gave them.

    Raises:
        InvalidRequestError: the mapping names no client tool, or allows no decision that can be carried out.
    """

    def __init__(self, interrupt_on: InterruptOn, tools: Mapping[str, ClientTool]) -> None:
        reviews = {name: _review(name, given) for name, given in interrupt_on.items() if given is not False}
        if unknown := [name for name in interrupt_on if name not in tools]:
            raise InvalidRequestError(
                f"interrupt_on names {', '.join(map(repr, unknown))}, which is no client tool here "
                f"({', '.join(tools) or 'there are none'}).",
                next_step="use the names of the client tools",
            )
        self._reviews = {tools[name].name: review for name, review in reviews.items()}
        self.tools = [self._reviewed(tool) for tool in tools.values()]

    def _reviewed(self, tool: ClientTool) -> ClientTool:
        review = self._reviews.get(tool.name)
        if review is None:
            return tool
        if tool.handler is None:
            if not set(review.allowed) & set(_ANSWERS):
                raise InvalidRequestError(
                    f"interrupt_on allows {', '.join(review.allowed)} for {tool.name!r}, which nothing here executes.",
                    next_step=f"allow {' or '.join(_ANSWERS)}, or give the tool a handler",
                )
            return tool
        return replace(tool, approval="required")

    @property
    def may_ask(self) -> list[str]:
        """The tools a person may be asked about."""
        return [tool.name for tool in self.tools if tool.handler is None or tool.approval == "required"]

    async def questions(self, bridge: TaskBridge, task: Task, caller: Caller) -> list[Question]:
        """What a person has to decide about a task's pending calls; empty where some need nobody, and now run."""
        reviews = [(call, self._reviews.get(call.name, _Review())) for call in task.pending]
        unasked = [
            call.call_id
            for call, review in reviews
            if call.approval_required and not await _needed(review, call, caller)
        ]
        if unasked:
            await bridge.approve(task.id, unasked)
            return []
        return [await _question(task, call, review, caller) for call, review in reviews]


def _review(name: str, given: bool | Mapping[str, Any]) -> _Review:
    if isinstance(given, bool):
        return _Review()
    allowed = given.get("allowed_decisions")
    if not isinstance(allowed, Collection) or isinstance(allowed, str) or not allowed or set(allowed) - set(DECISIONS):
        raise InvalidRequestError(
            f"interrupt_on for {name!r} has the allowed_decisions {allowed!r}.",
            next_step=f"give a list of: {', '.join(DECISIONS)}",
        )
    return _Review(tuple(dict.fromkeys(allowed)), given.get("description"), given.get("when"))


async def _question(task: Task, call: PendingCall, review: _Review, caller: Caller) -> Question:
    allowed = review.allowed
    if not call.approval_required:
        allowed = tuple(kind for kind in allowed if kind in _ANSWERS)
    question = Question(task.id, unique_id(task, call), call, allowed or _ANSWERS, "")
    if call.outcome_unknown:
        description = f"The process that ran {call.name} has ended; it may have done its work. What shall be reported?"
    elif callable(review.description):
        state = getattr(caller.runtime, "state", {})
        tool_call = _tool_call(question)
        description = str(await caller.run_in_thread(review.description, tool_call, state, caller.runtime))
    elif review.description is not None:
        description = review.description
    elif call.approval_required:
        description = f"The remote agent of task {task.id} wants {call.name} to be run here."
    else:
        description = f"The remote agent of task {task.id} asks for {call.name}, which a person has to answer."
    return replace(question, description=description)


async def _needed(review: _Review, call: PendingCall, caller: Caller) -> bool:
    if review.when is None:
        return True
    # The predicate is LangGraph's, and so is what it is asked with.
    from langgraph.prebuilt.tool_node import ToolCallRequest  # noqa: PLC0415

    tool_call = _tool_call(Question("", call.call_id, call, (), ""))
    state = getattr(caller.runtime, "state", {})
    request = ToolCallRequest(tool_call=tool_call, tool=None, state=state, runtime=caller.runtime)
    return bool(await caller.run_in_thread(review.when, request))


def _tool_call(question: Question) -> Any:
    return {
        "type": "tool_call",
        "id": question.call_id,
        "name": question.call.name,
        "args": question.arguments,
    }
