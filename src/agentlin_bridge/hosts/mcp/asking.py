"""Questions that only a person may decide: the remote agent's `ask_user`, and approvals of what the bridge runs.

A question reaches the person as an elicitation. Until 2025-11-25 the server asks while the call waits; since
2026-07-28 the call ends with the questions and comes again with the answers, and the state that travels in
between says which task they belong to. What nobody answered stays pending.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mcp_types import ElicitRequest, ElicitRequestFormParams, ElicitResult

from agentlin_bridge.delegation.bridge import TaskBridge
from agentlin_bridge.errors import AlreadyAnswered, UnknownCall
from agentlin_bridge.hosts.approvals import TOO_LONG, cited, shown_arguments
from agentlin_bridge.hosts.text import one_line
from agentlin_bridge.task import PendingCall, Task, ToolCallItem, ToolResult

A_PERSON_NEEDS = 1.0
"""Seconds: a decline that comes faster is the host's own, which then asked nobody."""
QUESTION_CHARS = 2_000
"""Characters of a remote agent's question; an approval shows all, or is not asked for."""

ASK_USER: dict[str, Any] = {
    "name": "ask_user",
    "description": "Ask the person on whose behalf this task runs. Only for what that person alone can decide or "
    "know. Answers in text.",
    "parameters": {
        "type": "object",
        "properties": {"question": {"type": "string", "description": "One clear question, with what it is about"}},
        "required": ["question"],
    },
}
OFFERED: dict[str, Any] = {"asks_user": True}
"""The metadata of tasks that carry our `ask_user`; another tool of that name is the host's own."""

FOR_THE_USER = "ask your user and submit what they say"
NO_WAY = "this host cannot put it to a person"
DISMISSED = "the person closed the question without deciding"
NOT_SHOWN = "the host declined at once and did not ask anyone"
UNANSWERED = "nobody decided in time"

_ANSWER_FORM = {
    "type": "object",
    "properties": {"answer": {"type": "string", "title": "Your answer"}},
    "required": ["answer"],
}
_APPROVAL_FORM: dict[str, Any] = {"type": "object", "properties": {}}


@dataclass(frozen=True, slots=True)
class Question:
    """A pending call that a person has to decide.

    Attributes:
        key: stands for this very call; the same call_id with other arguments, or again, has another.
    """

    task_id: str
    call: PendingCall
    key: str

    @property
    def unaskable(self) -> str:
        """Why no person can decide it from what could be shown; empty if one can."""
        return TOO_LONG if self.call.approval_required and shown_arguments(self.call) is None else ""

    @property
    def request(self) -> ElicitRequestFormParams:
        """What the person reads and fills in."""
        if self.call.approval_required:
            message = (
                f"A remote agent wants to run the tool {one_line(self.call.name, 100)} here. Accepting runs it, "
                f"declining refuses it. The arguments, which that agent chose:\n{shown_arguments(self.call)}"
            )
            return ElicitRequestFormParams(message=message, requested_schema=_APPROVAL_FORM)
        asked = json.loads(self.call.arguments)["question"]
        message = f"A remote agent that works on a task of yours asks (its own words):\n{_cited_in_part(asked)}"
        return ElicitRequestFormParams(message=message, requested_schema=_ANSWER_FORM)

    @property
    def as_input_request(self) -> ElicitRequest:
        """The same as part of a result."""
        return ElicitRequest(params=self.request)


def questions(task: Task) -> Iterator[Question]:
    """The pending calls of a task that are for a person."""
    for call in task.pending:
        if call.approval_required or is_for_the_user(task, call):
            yield Question(task.id, call, _key(task, call))


def open_questions(task: Task, undecided: Collection[str]) -> list[Question]:
    """What a person can be asked now.

    Args:
        task: the task.
        undecided: keys of questions that were asked and not decided.
    """
    return [question for question in questions(task) if question.key not in undecided and not question.unaskable]


def is_for_the_user(task: Task, call: PendingCall) -> bool:
    """Whether a call is one of our `ask_user`."""
    return call.name == ASK_USER["name"] and bool(task.metadata.get("asks_user"))


def _key(task: Task, call: PendingCall) -> str:
    times = sum(isinstance(item, ToolCallItem) and item.call_id == call.call_id for item in task.output)
    said = json.dumps([task.id, call.call_id, call.name, call.arguments, times, call.approval_required])
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def _cited_in_part(text: str) -> str:
    if len(text) > QUESTION_CHARS:
        text = f"{text[:QUESTION_CHARS]}\n[cut: {len(text)} characters in all]"
    return cited(text)


async def settle(bridge: TaskBridge, question: Question, result: ElicitResult, took: float) -> str:
    """Act on what the person did; what remains to be said about the call when they decided nothing.

    Args:
        bridge: has the task.
        question: still the same pending call.
        result: from the host.
        took: seconds from question to result.
    """
    if result.action == "cancel":
        return DISMISSED
    if result.action == "decline" and took < A_PERSON_NEEDS:
        return NOT_SHOWN
    call_id = question.call.call_id
    try:
        if result.action == "decline":
            await bridge.submit(question.task_id, {call_id: _refusal(question.call)})
        elif question.call.approval_required:
            await bridge.approve(question.task_id, [call_id])
        elif isinstance(answer := (result.content or {}).get("answer"), str):
            await bridge.submit(question.task_id, {call_id: answer})
        else:
            return UNANSWERED
    except (AlreadyAnswered, UnknownCall):
        # Somebody else was first.
        return ""
    return ""


def _refusal(call: PendingCall) -> ToolResult:
    if call.approval_required:
        return ToolResult.error("The user refused to let this tool run. Nothing was executed.")
    return ToolResult.error("The user declined to answer.")


@dataclass(frozen=True, slots=True)
class Asked:
    """What travels with questions in a result, and comes back with the answers.

    Attributes:
        at: when they were asked, in seconds since the epoch.
        rounds: how often this call has asked.
        keys: of the questions.
        undecided: by key, what was asked before and not decided.
    """

    task_id: str
    at: float
    rounds: int
    keys: tuple[str, ...]
    undecided: Mapping[str, str]

    def dump(self) -> str:
        """As text; the SDK seals it."""
        return json.dumps([self.task_id, self.at, self.rounds, self.keys, dict(self.undecided)])

    @classmethod
    def load(cls, state: str) -> Asked:
        """From the text; the SDK has checked that it is ours."""
        task_id, at, rounds, keys, undecided = json.loads(state)
        return cls(task_id, at, rounds, tuple(keys), undecided)
