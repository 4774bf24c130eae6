"""The loop around an agent: call its model, run the server's own tools, and again, until the client is wanted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import anyio
import stamina
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from agentlin_bridge.errors import SERVER_ERROR
from agentlin_bridge.server.agent import Agent, AgentFailure, Agents, Conversation, Step
from agentlin_bridge.server.execution import steps
from agentlin_bridge.server.execution.feed import Feed, Feeds
from agentlin_bridge.server.execution.steps import AGAIN, Entered, Outcome, Place
from agentlin_bridge.server.protocol.refusals import Refusal
from agentlin_bridge.server.records.history import request_of_turn
from agentlin_bridge.server.records.items import item_id
from agentlin_bridge.server.records.journal import Start
from agentlin_bridge.server.records.snapshot import row_of
from agentlin_bridge.server.records.store import Store
from agentlin_bridge.task import MessageItem, ReasoningItem, TaskObject, TextContentItem, ToolCallItem, ToolResultItem

logger = logging.getLogger(__name__)

_persistently = stamina.AsyncRetryingCaller(attempts=3, timeout=60, wait_initial=0.1, wait_max=1).on(OperationalError)
"""What a model said or a tool did is not lost because the database was busy for a moment."""


class Parked(Exception):
    """The server leaves: the round goes on at the next start, as another attempt."""


class Changed(Protocol):
    """Told of everything that is stored."""

    async def __call__(self, task_id: str, rest: bool, task: TaskObject | None = None) -> None:
        """Something about a task was stored: with `rest` its round may be over, and `task` is how it is now."""
        ...


@dataclass(eq=False)
class _Running:
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    over: anyio.Event = field(default_factory=anyio.Event)


class Rounds:
    """Rounds under way in this process.

    Args:
        output_limit: bytes that the output items of a task may have.
        changed: told of everything that is stored.
    """

    def __init__(
        self,
        store: Store,
        agents: Agents,
        feeds: Feeds,
        *,
        output_limit: int,
        executor: str,
        changed: Changed,
    ) -> None:
        self._store = store
        self._agents = agents
        self._feeds = feeds
        self._output_limit = output_limit
        self._executor = executor
        self._changed = changed
        self._running: dict[str, _Running] = {}
        self._stopping = False

    def is_running(self, task_id: str) -> bool:
        """Whether a round of the task is under way here."""
        return task_id in self._running

    async def left(self, task_id: str) -> None:
        """Wait until no round of a task is under way here."""
        while (running := self._running.get(task_id)) is not None:
            await running.over.wait()

    async def quiet(self) -> None:
        """Wait until no round is under way here."""
        for task_id in list(self._running):
            await self.left(task_id)

    def abandon(self, task_id: str) -> None:
        """Stop what runs of a task, in the middle of a step if need be."""
        running = self._running.get(task_id)
        if running is not None:
            running.scope.cancel()

    def stop(self) -> None:
        """Leave everything that runs to the next start."""
        self._stopping = True
        for running in self._running.values():
            running.scope.cancel()

    async def round(self, start: Start) -> bool:
        """Run a round. Called by the engine, and again after a crash: what is recorded is then passed over.

        Returns:
            Whether it came to its own end, and was not ended from outside.
        """
        if self._is_leaving():
            raise Parked
        with self._registered(start.task_id) as scope, scope:
            return await self._go(start) and not scope.cancel_called
        if self._is_leaving():
            raise Parked
        return False

    @contextmanager
    def _registered(self, task_id: str) -> Iterator[anyio.CancelScope]:
        running = self._running[task_id] = _Running()
        try:
            yield running.scope
        finally:
            if self._running.get(task_id) is running:
                del self._running[task_id]
            running.over.set()

    def _is_leaving(self) -> bool:
        return self._stopping

    async def _go(self, start: Start) -> bool:
        at = Place(start.task_id, start.attempt, start.base)
        outcome = await self._settle(at) if at.step else AGAIN
        while not outcome.over:
            if outcome.own:
                await self._call_all(at, outcome.own)
                outcome = await self._settle(at)
            else:
                at = Place(at.task_id, at.attempt, at.step + 1)
                outcome = await self._step(at)
        return not outcome.gone

    async def _settle(self, at: Place) -> Outcome:
        outcome = await self._store.write(partial(steps.settle, at=at, executor=self._executor))
        await self._changed(at.task_id, outcome.over)
        return outcome

    async def _step(self, at: Place) -> Outcome:
        entered: Entered | Outcome | None
        entered = await self._store.read(partial(steps.look_step, at=at, executor=self._executor))
        if entered is None:
            entered = await self._store.write(partial(steps.enter_step, at=at, executor=self._executor))
            await self._changed(at.task_id, False)
        if isinstance(entered, Outcome):
            return entered
        try:
            agent, made = await self._made(at, entered)
        except AgentFailure as failure:
            return await self._fail(at, failure.message, failure.code)
        except Exception as error:
            logger.exception("task %s: the agent failed", at.task_id)
            name = type(error).__name__
            return await self._fail(at, f"The agent failed with {name}; the server's log says more.")
        work = partial(
            steps.record_step,
            at=at,
            made=made,
            is_own=_ownership(agent, entered),
            limit=self._output_limit,
            seen=_call_ids(entered.conversation),
        )
        with anyio.CancelScope(shield=True):  # what the model said is paid for
            outcome = await _persistently(self._store.write, work)
        await self._changed(at.task_id, outcome.over, outcome.task)
        return outcome

    async def _made(self, at: Place, entered: Entered) -> tuple[Agent, Step]:
        try:
            agent = self._agents.pick(entered.conversation.request)
        except Refusal as refusal:
            raise AgentFailure(refusal.message, code=refusal.code) from None
        if entered.taken_steps >= agent.max_steps:
            raise AgentFailure(
                f"The agent {agent.name!r} called its model {agent.max_steps} times for one message, which is its "
                "limit, without coming to an answer. Ask for less at once, or raise its max_steps."
            )
        with self._feeds.using(at.task_id) as feed:
            return agent, await agent.step(entered.conversation, _Voice(feed, at, self._output_limit))

    async def _fail(self, at: Place, message: str, code: int = SERVER_ERROR) -> Outcome:
        outcome = await self._store.write(partial(steps.fail, at=at, message=message, code=code))
        await self._changed(at.task_id, True)
        return outcome

    async def _call_all(self, at: Place, calls: tuple[ToolCallItem, ...]) -> None:
        async with anyio.create_task_group() as group:
            for call in calls:
                group.start_soon(self._call, at, call)

    async def _call(self, at: Place, call: ToolCallItem) -> None:
        agent = await self._store.read(lambda connection: _agent_of(connection, self._agents, at.task_id))
        if agent is None:
            return
        try:
            result = await agent.call(call)
        except Exception as error:
            logger.exception("task %s: the tool %s failed", at.task_id, call.name)
            name = type(error).__name__
            result = ToolResultItem(call_id=call.call_id, message_content=[TextContentItem(text=f"ERROR: {name}")])
        result = result.model_copy(update={"call_id": call.call_id, "status": "completed"})
        with anyio.CancelScope(shield=True):  # what the tool did cannot be undone
            work = partial(steps.record_result, at=at, result=result, limit=self._output_limit)
            await _persistently(self._store.write, work)
        await self._changed(at.task_id, False)


class _Voice:
    """Tells listeners what a model says in one step, as deltas of its first message and its first reasoning."""

    def __init__(self, feed: Feed, at: Place, limit: int) -> None:
        self._feed = feed
        self._at = at
        self._left = limit
        self._begun: set[str] = set()

    def text(self, delta: str) -> None:
        """The next piece of the message."""
        self._say("msg", MessageItem(role="assistant"), "task.text.delta", delta)

    def reasoning(self, delta: str) -> None:
        """The next piece of what the model thinks."""
        self._say("rs", ReasoningItem(), "task.reasoning_text.delta", delta)

    def _say(self, kind: str, item: MessageItem | ReasoningItem, event: str, delta: str) -> None:
        self._left -= len(delta)
        if self._left < 0 or not delta:
            return
        own_id = item_id(kind, self._at.task_id, self._at.step)
        if kind not in self._begun:
            self._begun.add(kind)
            begun = item.model_copy(update={"id": own_id, "status": "in_progress"})
            shown = begun.model_dump(mode="json", exclude_none=True)
            self._feed.say("task.output_item.added", item=shown, agent_step=self._at.step)
        self._feed.say(event, item_id=own_id, delta=delta, content_index=0, agent_step=self._at.step)


def _ownership(agent: Agent, entered: Entered) -> Callable[[Mapping[str, Any]], bool]:
    """The calls of the server's tools, but for those at which the client wants the run to stop.

    A call that nobody can run is the agent's to answer, too.
    """
    stops = entered.conversation.request.get("stop_tools") or ()

    def is_own(call: Mapping[str, Any]) -> bool:
        return call.get("status") == "incomplete" or (call["name"] not in stops and agent.owns(call["name"]))

    return is_own


def _call_ids(conversation: Conversation) -> set[str]:
    return {item.call_id for round_ in conversation.rounds for item in round_.items if isinstance(item, ToolCallItem)}


def _agent_of(connection: Connection, agents: Agents, task_id: str) -> Agent | None:
    row = row_of(connection, task_id)
    return agents.pick(request_of_turn(connection, row)) if row is not None else None
