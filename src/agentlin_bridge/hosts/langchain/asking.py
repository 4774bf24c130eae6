"""Asking the person behind a graph, by LangGraph's `interrupt`, what nobody on the host's side can decide.

A graph that is resumed runs the interrupted task again from its start, and each `interrupt` in it returns the
answers given so far, one after the other, to whoever calls it first. Several delegations may run in one task
of the graph, so the answers are gathered for all of them, and each finds its own by the ids they name. An
interrupt ends the task with all that runs in it, so nobody raises one while another delegation beside it is
still at work.

All of this runs on the portal's thread.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain

from agentlin_bridge import TaskBridge
from agentlin_bridge.errors import InvalidRequestError
from agentlin_bridge.hosts.langchain.caller import Caller, is_graph_control
from agentlin_bridge.hosts.langchain.questions import (
    APPROVE,
    EDIT,
    Decision,
    Question,
    decisions_in,
    is_named,
    names,
    problem_with,
    request_of,
    result_of_decision,
)
from agentlin_bridge.hosts.langchain.standing import Standing
from agentlin_bridge.task import Task

_ASKED = "langgraph_answers_before"
"""In a task's metadata: how many answers the graph had when a question was first asked, by call id."""

Decided = list[tuple[Question, Decision]]


@dataclass(eq=False, slots=True)
class _Member:
    """A delegation. `asks` has its open questions while it can do nothing else."""

    asks: Sequence[Question] = ()
    look: asyncio.Event = field(default_factory=asyncio.Event)


class _Gathering:
    """The delegations that run in one task of a graph, and the answers that task was resumed with.

    Attributes:
        request: what the graph is being interrupted with, once it is known that it has to be.
    """

    def __init__(self) -> None:
        self.members: set[_Member] = set()
        self.was_shared = False
        self.answers: list[list[Decision]] = []
        self.request: Mapping[str, object] | None = None

    @property
    def questions(self) -> list[Question]:
        return sorted(chain.from_iterable(member.asks for member in self.members), key=lambda each: each.task_id)

    def tell(self) -> None:
        """Have everybody look again once nothing happens any more without an answer."""
        if all(member.asks for member in self.members):
            for member in self.members:
                member.look.set()

    def decided(self, questions: Sequence[Question], *, by_task: bool) -> tuple[Decided, str]:
        """The decisions that name one of these questions, the newest of each; or what is wrong with it."""
        found: dict[Question, Decision] = {}
        for decision in chain.from_iterable(self.answers):
            found |= {question: decision for question in questions if names(decision, question, by_task=by_task)}
        return _usable(found)

    def decided_loosely(self, member: _Member) -> Decided:
        """Decisions that name no task but a call that only one of all open questions is about."""
        uses = Counter(question.call_id for question in self.questions)
        return self.decided([each for each in member.asks if uses[each.call_id] == 1], by_task=False)[0]


def _usable(found: Mapping[Question, Decision]) -> tuple[Decided, str]:
    problems = {question: problem_with(decision, question) for question, decision in found.items()}
    usable = [(question, decision) for question, decision in found.items() if not problems[question]]
    return usable, " ".join(filter(None, problems.values()))


_gatherings: dict[tuple[str, str], _Gathering] = {}


class Asker:
    """Puts the open questions of one delegation to the person, and carries out the decisions.

    Args:
        caller: in whose context the graph is interrupted.
        standing: where in the graph the call stands.
    """

    def __init__(self, caller: Caller, standing: Standing) -> None:
        self._caller = caller
        self._standing = standing
        self._member = _Member()
        self._gathering = _Gathering()

    @contextmanager
    def taking_part(self) -> Iterator[None]:
        """Be one of the delegations of the graph's task."""
        graph_task = self._standing.graph_task
        gathering = self._gathering = _gatherings.setdefault(graph_task, _Gathering())
        gathering.members.add(self._member)
        gathering.was_shared |= len(gathering.members) > 1
        try:
            yield
        finally:
            gathering.members.discard(self._member)
            gathering.tell()
            if not gathering.members and _gatherings.get(graph_task) is gathering:
                del _gatherings[graph_task]

    async def settle(self, bridge: TaskBridge, task: Task, questions: Sequence[Question]) -> None:
        """Carry out decisions about a task's pending calls, or interrupt the graph to get some.

        Raises:
            GraphInterrupt: there are none yet.
        """
        self._listen()
        decided, problem = self._decided(task, questions)
        if not decided:
            self._member.asks = questions
            decided = await self._when_all_ask()
            self._member.asks = () if decided else questions
        if decided:
            failed, problem = await _carry_out(bridge, task, decided)
            if len(failed) < len(decided):
                # What was decided is done first. What was not is asked again then.
                return
            self._member.asks = failed
            await self._when_all_ask()
        await self._interrupt(bridge, task, problem)

    def _listen(self) -> None:
        """Take in the answers that the graph's task was resumed with and nobody has taken yet."""
        try:
            while True:
                self._gathering.answers.append(decisions_in(self._caller.call(_interrupted, {})))
        except Exception as error:
            # Nothing was said yet: interrupting is for when it is known what to ask.
            if not is_graph_control(error):
                raise

    def _decided(self, task: Task, questions: Sequence[Question]) -> tuple[Decided, str]:
        if not self._is_alone:
            return self._gathering.decided(questions, by_task=True)
        answers = self._gathering.answers
        asked: Mapping[str, int] = task.metadata.get(_ASKED, {})
        is_answered = all(asked.get(question.call_id, len(answers)) < len(answers) for question in questions)
        if not is_answered or any(map(is_named, answers[-1])):
            decided, problem = self._gathering.decided(questions, by_task=False)
            return decided, problem or ("No decision names one of these calls." if is_answered else "")
        if len(answers[-1]) != len(questions):
            return (
                [],
                f"There are {len(questions)} calls to decide on; the last answer had {len(answers[-1])} decisions.",
            )
        return _usable(dict(zip(questions, answers[-1], strict=True)))

    @property
    def _is_alone(self) -> bool:
        return self._standing.is_alone and not self._gathering.was_shared

    async def _when_all_ask(self) -> Decided:
        """Wait until nothing else goes on beside us; then, decisions about our questions that can be told to be."""
        while True:
            self._gathering.tell()
            await self._member.look.wait()
            self._member.look.clear()
            await asyncio.sleep(0)
            if self._gathering.request is not None:
                return []
            if decided := self._gathering.decided_loosely(self._member):
                return decided
            others = self._gathering.members - {self._member}
            if all(other.asks for other in others) and not any(map(self._gathering.decided_loosely, others)):
                return []

    async def _interrupt(self, bridge: TaskBridge, task: Task, problem: str) -> None:
        gathering = self._gathering
        if gathering.request is None:
            gathering.request = request_of(gathering.questions, problem)
            # The next run of the graph's task starts anew, even while this one is still leaving.
            _gatherings.pop(self._standing.graph_task, None)
        if self._is_alone:
            asked = {question.call_id: len(gathering.answers) for question in self._member.asks}
            await bridge.annotate(task.id, {_ASKED: {**asked, **task.metadata.get(_ASKED, {})}})
        self._caller.call(_interrupted, gathering.request)


def _interrupted(request: Mapping[str, object]) -> object:
    # There is a graph, so there is LangGraph.
    from langgraph.types import interrupt  # noqa: PLC0415

    return interrupt(request)


async def _carry_out(bridge: TaskBridge, task: Task, decided: Decided) -> tuple[list[Question], str]:
    """Approve and answer what was decided; what that cannot be done for, and why."""
    failed: list[Question] = []
    problems: list[str] = []
    for question, decision in decided:
        call_id = question.call.call_id
        try:
            if decision["type"] == APPROVE:
                await bridge.approve(task.id, [call_id])
            elif decision["type"] == EDIT:
                await bridge.approve(task.id, {call_id: decision["edited_action"]["args"]})
            else:
                await bridge.submit(task.id, {call_id: result_of_decision(decision, question)})
        except InvalidRequestError as error:
            failed.append(question)
            problems.append(str(error))
    return failed, " ".join(problems)
