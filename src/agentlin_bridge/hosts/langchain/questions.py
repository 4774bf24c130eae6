"""Questions to the person behind a graph, and their answers, in the shapes of LangChain's human in the loop.

A request adds `task_id` and `call_id` to each of its actions, and a decision names them again: positions say
nothing where several delegations ask in one breath, or where a graph runs again what it was asked before.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentlin_bridge.task import PendingCall, Task, TextContentItem, ToolCallItem, ToolResult

DESCRIPTION_CHARS = 4_000

APPROVE, EDIT, REJECT, RESPOND = "approve", "edit", "reject", "respond"
DECISIONS = (APPROVE, EDIT, REJECT, RESPOND)

Decision = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """One pending call, as a person is asked about it.

    Attributes:
        call_id: the call's id, made unique in its task: a remote agent may use one again in a later round.
        allowed: the decisions that can be made.
    """

    task_id: str
    call_id: str
    call: PendingCall
    allowed: tuple[str, ...]
    description: str

    @property
    def arguments(self) -> dict[str, Any]:
        """What the remote agent wants the tool called with."""
        try:
            arguments = json.loads(self.call.arguments or "{}")
        except ValueError:
            arguments = None
        return arguments if isinstance(arguments, dict) else {"arguments": self.call.arguments}


def unique_id(task: Task, call: PendingCall) -> str:
    """The call's id, with a number from its second use in the task on."""
    used = Counter(item.call_id for item in task.output if isinstance(item, ToolCallItem))[call.call_id]
    return call.call_id if used <= 1 else f"{call.call_id}#{used}"


def request_of(questions: Iterable[Question], problem: str = "") -> dict[str, Any]:
    """What a graph is interrupted with: LangChain's `HITLRequest`, and what was wrong with the last answer."""
    asked = list(questions)
    request: dict[str, Any] = {
        "action_requests": [
            {
                "name": question.call.name,
                "args": question.arguments,
                "description": question.description[:DESCRIPTION_CHARS],
                "task_id": question.task_id,
                "call_id": question.call_id,
            }
            for question in asked
        ],
        "review_configs": [
            {"action_name": question.call.name, "allowed_decisions": list(question.allowed)} for question in asked
        ],
    }
    return {**request, "problem": problem} if problem else request


def decisions_in(answer: object) -> list[Decision]:
    """The decisions in what a graph was resumed with: a `HITLResponse`, a list, or a single decision."""
    if isinstance(answer, Mapping):
        answer = answer.get("decisions", [answer])
    found = answer if isinstance(answer, Sequence) and not isinstance(answer, str | bytes) else []
    return [decision for decision in found if isinstance(decision, Mapping)]


def is_named(decision: Decision) -> bool:
    """Whether a decision says which call it is about."""
    return "call_id" in decision


def names(decision: Decision, question: Question, *, by_task: bool) -> bool:
    """Whether a decision is about this question.

    Args:
        decision: the decision.
        question: the question.
        by_task: whether it has to name the task too.
    """
    task_id = decision.get("task_id", None if by_task else question.task_id)
    return bool(decision.get("call_id") == question.call_id and task_id == question.task_id)


def problem_with(decision: Decision, question: Question) -> str:
    """Why a decision cannot be carried out; empty if it can."""
    kind = decision.get("type")
    if kind not in question.allowed:
        return f"{kind!r} is no decision about {question.call_id}; use one of: {', '.join(question.allowed)}."
    if kind == RESPOND and not isinstance(decision.get("message"), str):
        return f"The respond decision about {question.call_id} needs a message, a text."
    if kind == EDIT:
        action = decision.get("edited_action")
        if not isinstance(action, Mapping) or not isinstance(action.get("args"), Mapping):
            return f"The edit decision about {question.call_id} needs edited_action with name and args."
        if action.get("name", question.call.name) != question.call.name:
            return f"The edit decision about {question.call_id} must keep the tool {question.call.name!r}."
    return ""


def result_of_decision(decision: Decision, question: Question) -> ToolResult:
    """What the remote agent is told when the call is not executed: a person's answer, or refusal."""
    message = decision.get("message")
    if decision["type"] == RESPOND:
        return ToolResult(content=[TextContentItem(text=str(message))])
    reason = f" The reason: {message}" if message else " Do not call it like that again."
    done = "it may have been executed" if question.call.outcome_unknown else "nothing was executed"
    return ToolResult.error(f"A person refused the call of {question.call.name}, and {done}.{reason}")
