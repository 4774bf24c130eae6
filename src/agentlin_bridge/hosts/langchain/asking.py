"""Asking the person behind a graph, by LangGraph's `interrupt`, what nobody on the host's side can decide.

A graph that is resumed runs the interrupted task again from its start, and each `interrupt` in it returns the
answers given so far, one after the other, to whoever calls it first. Several delegations may run in one task
of the graph, so the answers are gathered for all of them, and each finds its own by the ids they name. Without
ids, only an answer that came after a question was put can be meant for it. An interrupt ends the task with all
that runs in it, so nobody raises one while another delegation beside it is still at work.

All of this runs on the portal's thread.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, product

from agentlin_bridge import TaskBridge
from agentlin_bridge.errors import InvalidRequestError
from agentlin_bridge.hosts.langchain.graph_task import GraphTask
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

_ASKED = "langgraph_asked"
"""In a task's metadata, by call id: how many answers the graph's task had when it was interrupted to ask."""
_TAKEN = "langgraph_answers_taken"
"""In a task's metadata: how many answers were taken in for it."""

Decided = list[tuple[Question, Decision]]


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the graph's task was resumed with.

    Attributes:
        number: how many there were before it.
        is_plain: whether it came with no interrupt's id. LangGraph gives such a one to the next question once
            more if the graph is run again without an answer.
    """

    number: int
    is_plain: bool
    decisions: list[Decision]


@dataclass(eq=False, slots=True)
class _Member:
    """A delegation.

    Attributes:
        asks: its open questions, while it can do nothing else.
        asked: what it was interrupted for last, and how many answers there were then.
        is_ready: whether the graph can be interrupted, as far as this one is concerned.
    """

    asks: Sequence[Question] = ()
    asked: Mapping[str, int] = field(default_factory=dict)
    is_ready: bool = False
    look: asyncio.Event = field(default_factory=asyncio.Event)

    def may_mean(self, answer: _Answer, question: Question) -> bool:
        """Whether an answer came after the question was put, so that it may be about it without naming its task."""
        return question.call_id in self.asked and answer.number >= self.asked[question.call_id]


class _Gathering:
    """The delegations that run in one task of a graph, and the answers that task was resumed with.

    Attributes:
        count: the answers that the graph's task has, whoever took them.
        request: what the graph is being interrupted with, once it is known that it has to be.
        all_ready: set when it may be: the first interrupt can end all that still runs beside it.
    """

    def __init__(self) -> None:
        self.members: set[_Member] = set()
        self.was_shared = False
        self.answers: list[_Answer] = []
        self.count = 0
        self.request: Mapping[str, object] | None = None
        self.all_ready = asyncio.Event()

    @property
    def questions(self) -> list[Question]:
        return sorted(chain.from_iterable(member.asks for member in self.members), key=lambda each: each.task_id)

    def tell(self) -> None:
        """Have everybody look again once nothing happens any more without an answer."""
        if all(member.asks for member in self.members):
            for member in self.members:
                member.look.set()
        if all(member.is_ready for member in self.members):
            self.all_ready.set()

    def decided(self, member: _Member, questions: Sequence[Question], *, loosely: bool) -> tuple[Decided, str]:
        """The decisions that name one of these questions, the newest of each; or what is wrong with it.

        Args:
            member: whose questions they are.
            questions: the questions.
            loosely: whether a decision need not name the task.
        """
        found: dict[Question, Decision] = {}
        for answer in self.answers:
            for decision, question in product(answer.decisions, questions):
                unnamed = loosely and member.may_mean(answer, question)
                if names(decision, question, by_task=not unnamed):
                    found[question] = decision
        return _usable(found)

    def decided_loosely(self, member: _Member) -> Decided:
        """Decisions that name no task but a call that only one of all open questions is about."""
        uses = Counter(question.call_id for question in self.questions)
        own = [question for question in member.asks if uses[question.call_id] == 1]
        return self.decided(member, own, loosely=True)[0]


def _usable(found: Mapping[Question, Decision]) -> tuple[Decided, str]:
    problems = {question: problem_with(decision, question) for question, decision in found.items()}
    usable = [(question, decision) for question, decision in found.items() if not problems[question]]
    return usable, " ".join(filter(None, problems.values()))


_gatherings: dict[tuple[str, str], _Gathering] = {}


class Asker:
    """Puts the open questions of one delegation to the person, and carries out the decisions.

    Args:
        graph: the graph's task, in the caller's context.
        standing: where in the graph the call stands.
    """

    def __init__(self, graph: GraphTask, standing: Standing) -> None:
        self._graph = graph
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

    def pass_over(self, task: Task) -> None:
        """Take the answers again that an earlier run of the graph's task took for this task.

        Else the next to ask in the same place, such as the node itself, would get them.
        """
        self._take(int(task.metadata.get(_TAKEN, 0)) - len(self._gathering.answers))

    async def settle(self, bridge: TaskBridge, task: Task, questions: Sequence[Question]) -> None:
        """Carry out decisions about a task's pending calls, or interrupt the graph to get some.

        Raises:
            GraphInterrupt: there are none yet.
        """
        member = self._member
        if self._take(None):
            await bridge.annotate(task.id, {_TAKEN: len(self._gathering.answers)})
        member.asked = task.metadata.get(_ASKED, {})
        decided, problem = self._decided(questions)
        if not decided:
            member.asks = questions
            decided = await self._when_all_ask()
            member.asks = () if decided else questions
        if decided:
            done, problem = await _carry_out(bridge, task, decided)
            if done:
                # It is done first. What else is open is asked about then.
                return
            member.asks = questions
            await self._when_all_ask()
        await self._interrupt(bridge, task, problem)

    def _take(self, most: int | None) -> bool:
        """Take in the answers that nobody has taken yet, or so many of them; whether there were any."""
        before = len(self._gathering.answers)
        while (most is None or most > 0) and (given := self._graph.next_answer()) is not None:
            answer = _Answer(given.number, given.is_plain, decisions_in(given.value))
            self._gathering.answers.append(answer)
            most = None if most is None else most - 1
        self._gathering.count = self._graph.count_of_answers()
        return len(self._gathering.answers) > before

    def _decided(self, questions: Sequence[Question]) -> tuple[Decided, str]:
        gathering, member = self._gathering, self._member
        if not self._is_alone:
            return gathering.decided(member, questions, loosely=False)
        newest = gathering.answers[-1] if gathering.answers else None
        if newest is None or not all(member.may_mean(newest, question) for question in questions):
            return gathering.decided(member, questions, loosely=True)
        if any(map(is_named, newest.decisions)):
            decided, problem = gathering.decided(member, questions, loosely=True)
            return decided, problem or "No decision names one of these calls."
        if newest.is_plain and newest.number and not self._graph.can_forget:
            return [], "Name the call_id in each decision, or resume by the interrupt's id."
        shown = list(member.asked)
        if len(newest.decisions) != len(shown):
            given = len(newest.decisions)
            return [], f"There were {len(shown)} calls to decide on; the last answer had {given} decisions."
        by_position = dict(zip(shown, newest.decisions, strict=True))
        return _usable({question: by_position[question.call_id] for question in questions})

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
            if gathering.count:
                await self._graph.forget_plain_answer()
        await bridge.annotate(task.id, {_ASKED: {each.call_id: gathering.count for each in self._member.asks}})
        self._member.is_ready = True
        gathering.tell()
        await gathering.all_ready.wait()
        self._graph.interrupt(gathering.request)


async def _carry_out(bridge: TaskBridge, task: Task, decided: Decided) -> tuple[bool, str]:
    """Approve and answer what was decided; whether any of it could be done, and why the rest could not."""
    done = False
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
            done = True
        except InvalidRequestError as error:
            problems.append(str(error))
    return done, " ".join(problems)
