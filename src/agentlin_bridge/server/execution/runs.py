"""Runs: the server owns them, requests only wait for them."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import TaskGroup
from sqlalchemy.exc import SQLAlchemyError

from agentlin_bridge.errors import SERVER_ERROR
from agentlin_bridge.server.activity import Activity
from agentlin_bridge.server.agent import Agents
from agentlin_bridge.server.execution import endings, steps
from agentlin_bridge.server.execution.audience import Audience
from agentlin_bridge.server.execution.endings import Ended
from agentlin_bridge.server.execution.engine import Engine, beside
from agentlin_bridge.server.execution.feed import Happening
from agentlin_bridge.server.execution.housekeeping import Housekeeping
from agentlin_bridge.server.execution.intake import Accepted, Intake
from agentlin_bridge.server.execution.rounds import Parked, Rounds
from agentlin_bridge.server.execution.steps import Place
from agentlin_bridge.server.execution.takeover import Alone, Peers, adopt, retry
from agentlin_bridge.server.protocol.refusals import Refusal, unknown_task
from agentlin_bridge.server.protocol.request import CreateRequest
from agentlin_bridge.server.records.journal import UNDER_WAY, Start, queued_beside, release, start_of
from agentlin_bridge.server.records.snapshot import RESTING, row_of
from agentlin_bridge.server.records.store import Store
from agentlin_bridge.task import TaskObject, TaskStatus

logger = logging.getLogger(__name__)

LEAVING = 5
"""Seconds that running steps get to notice that the server leaves."""


@dataclass(frozen=True)
class RunOptions:
    """How tasks are run.

    Attributes:
        expires_in: seconds a task has unless its request says otherwise; None is for ever.
        retention: seconds for which ended tasks are kept; None is for ever.
        output_limit: bytes that the output items of one task may have.
    """

    expires_in: float | None = None
    retention: float | None = None
    output_limit: int = 16 * 1024 * 1024


class Runs:
    """The runs of one server: an async context manager that takes up what an earlier process left undone.

    In one session one run is under way at a time; the others are queued in the order they came.
    """

    def __init__(
        self,
        store: Store,
        agents: Agents,
        *,
        activity: Activity | None = None,
        peers: Peers | None = None,
        options: RunOptions | None = None,
    ) -> None:
        self.store = store
        self.agents = agents
        self.activity = activity or Activity()
        options = options or RunOptions()
        self._peers = peers or Alone()
        self._executor = self._peers.executor
        self._audience = Audience(store)
        self._feeds = self._audience.feeds
        self._intake = Intake(self._executor, options.expires_in)
        self._rounds = Rounds(
            store,
            agents,
            self._feeds,
            output_limit=options.output_limit,
            executor=self._executor,
            changed=self._audience.tell,
        )
        self._engine = Engine(beside(store.engine.url), self._executor, self)
        self._housekeeping = Housekeeping(store, self._engine, options.retention, self._has_expired)
        self._queued = True
        self._times_queued = 0
        self._stopping = False
        self._exit = AsyncExitStack()
        self._group: TaskGroup
        self._starts, self._to_start = anyio.create_memory_object_stream[Start](math.inf)
        self._failed, self._to_retry = anyio.create_memory_object_stream[Start](math.inf)

    async def __aenter__(self) -> Self:
        try:
            with self.activity.going_on():
                await self._open()
        except BaseException as error:
            await self._exit.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def _open(self) -> None:
        self._exit.callback(self._to_start.close)
        self._exit.callback(self._starts.close)
        self._exit.callback(self._to_retry.close)
        self._exit.callback(self._failed.close)
        for agent in self.agents:
            await self._exit.enter_async_context(agent)
        await self._engine.open()
        self._exit.push_async_callback(self._engine.close)
        self._group = await self._exit.enter_async_context(anyio.create_task_group())
        self._group.start_soon(self._start_all)
        self._group.start_soon(self._retry_all)
        self._group.start_soon(self._housekeeping.keep)
        await self._adopt(own=True)
        self._group.start_soon(self._peers.watch, self._heard, self._adopt)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self.stop()
        with anyio.move_on_after(LEAVING, shield=True):
            await self._rounds.quiet()
        self._group.cancel_scope.cancel()
        return bool(await self._exit.__aexit__(kind, error, traceback))

    def stop(self) -> None:
        """Leave everything that runs to the next start, and release those who wait for it."""
        self._stopping = True
        self._rounds.stop()
        for feed in self._feeds.all():
            self._feeds.close(feed.task_id)

    async def stream(self, request: CreateRequest) -> AsyncGenerator[Happening, None]:
        """Accept a request, and tell what happens to its task, from its creation until its round is over.

        Nothing said in a run that begins with the request is left out. The telling ends early as in `follow`.

        Raises:
            Refusal: it cannot be served.
        """
        happenings = self._streamed(request)
        # With the first event the request is accepted: what is wrong with it is known before an answer begins.
        first = await anext(happenings, None)
        return _with_rest(first, happenings)

    async def _streamed(self, request: CreateRequest) -> AsyncGenerator[Happening, None]:
        with self._feeds.using(request.task_id) as feed, feed.listening() as position:
            accepted = await self._accept(request)
            if accepted.task_id == request.task_id:
                happenings = self._audience.listen(feed, position, missed=not accepted.is_new)
            else:
                happenings = self._audience.follow(accepted.task_id, 0)
            async with aclosing(happenings):
                async for happening in happenings:
                    yield happening

    async def create(self, request: CreateRequest) -> TaskObject:
        """Accept a request and wait until its round is over: with an answer, a failure, tool calls or a pause.

        Raises:
            Refusal: it cannot be served, or the server stops before the round is over.
        """
        with self._feeds.using(request.task_id) as feed:
            rest = feed.rest
            accepted = await self._accept(request)
            if accepted.to_run:
                await rest.wait()
                if feed.task is not None and feed.task.status in RESTING:
                    return feed.task
            return await self.settled(accepted.task_id, request.owner)

    async def settled(self, task_id: str, user: str | None = None) -> TaskObject:
        """Wait until a task's round is over.

        Raises:
            Refusal: the task is unknown, or the server stops before the round is over.
        """
        with self._feeds.using(task_id) as feed:
            while True:
                rest = feed.rest
                task = await self.retrieve(task_id, user)
                if task.status in RESTING or (feed.gone and not self._stopping):
                    return task
                self._refuse_when_stopping()
                await rest.wait()

    async def follow(self, task_id: str, *, after: int = 0, user: str | None = None) -> AsyncGenerator[Happening, None]:
        """What happened to a task after the event of a number, and what happens until its round is over.

        It ends early when the server stops or the task is deleted.

        Raises:
            Refusal: the task is unknown.
        """
        self._refuse_when_stopping()
        await self.retrieve(task_id, user)
        async with aclosing(self._audience.follow(task_id, after)) as happenings:
            async for happening in happenings:
                yield happening

    async def retrieve(self, task_id: str, user: str | None = None) -> TaskObject:
        """The task as it is now.

        Args:
            user: whose tasks are looked at; None is everybody's.

        Raises:
            Refusal: it is unknown.
        """
        task = await self.store.retrieve(task_id, user)
        if task is None:
            raise unknown_task()
        return task

    async def cancel(self, task_id: str, user: str | None = None) -> TaskObject:
        """Cancel a task and stop its run, even in the middle of a step; see `endings.cancel`."""
        return await self._ended(await self.store.write(partial(endings.cancel, task_id=task_id, user=user)), task_id)

    async def delete(self, task_id: str, user: str | None = None) -> TaskObject:
        """Forget a task, stopping what of its turn still runs; see `endings.forget`."""
        ended = await self.store.write(partial(endings.forget, task_id=task_id, user=user))
        self._feeds.close(task_id)
        return await self._ended(ended, task_id)

    async def pause(self, task_id: str, user: str | None = None) -> TaskObject:
        """Let a task stop before its next step; see `endings.pause`."""
        return await self._ended(await self.store.write(partial(endings.pause, task_id=task_id, user=user)), task_id)

    async def resume(self, task_id: str, user: str | None = None) -> TaskObject:
        """Let a paused task go on; see `endings.resume`."""
        self._refuse_when_stopping()
        work = partial(endings.resume, task_id=task_id, user=user, executor=self._executor)
        ended, start = await self.store.write(work)
        self._queued = True
        self._times_queued += 1
        if start is not None:
            self._starts.send_nowait(start)  # which changes nothing if it has not noticed the pause
        return await self._ended(ended, task_id)

    def _refuse_when_stopping(self) -> None:
        if self._stopping:
            raise Refusal(
                "The server is stopping. An accepted task goes on when it starts again: retrieve it then.",
                status=503,
                code=SERVER_ERROR,
            )

    async def _accept(self, request: CreateRequest) -> Accepted:
        self._refuse_when_stopping()
        if not request.results and not request.is_nudge:
            # What it asks of its agent is refused now rather than when its turn comes.
            self.agents.pick(request.body)
        # Whoever asks may leave: what was accepted is started all the same.
        with anyio.CancelScope(shield=True):
            accepted = await self.store.write(partial(self._intake.accept, request=request))
            if accepted.expires_at is not None:
                self._housekeeping.expect(accepted.expires_at)
            self._queued |= accepted.is_queued
            self._times_queued += accepted.is_queued
            try:
                # Listeners know of the task before its agent can say anything.
                await self._audience.tell(accepted.task_id, False)
            finally:
                if accepted.to_run:
                    self._starts.send_nowait(Start(accepted.task_id, 1, 0))
        for task_id in accepted.dropped:
            await self._audience.tell(task_id, True)
        return accepted

    async def _ended(self, ended: Ended, task_id: str) -> TaskObject:
        with anyio.CancelScope(shield=True):
            for stopped, executor in ended.inside:
                if executor == self._executor:
                    await self._stop(stopped)
            for changed in {task_id, *ended.stopped}:
                await self._audience.tell(changed, True)
            if ended.session_id is not None and not ended.inside:
                await self._release(ended.session_id)
        return ended.task

    async def _stop(self, task_id: str) -> None:
        """A task was ended from outside while this process had it in hand."""
        if self._rounds.is_running(task_id):
            self._rounds.abandon(task_id)
        else:
            await self._leave(task_id)

    async def _stop_surely(self, task_id: str) -> None:
        delay = 1.0
        while not self._stopping:
            try:
                await self._stop(task_id)
            except SQLAlchemyError as error:
                logger.warning("task %s: that it was left is not on record: %s", task_id, type(error).__name__)
                await anyio.sleep(delay)
                delay = min(2 * delay, 30.0)
            else:
                return

    async def _leave(self, task_id: str) -> None:
        start = await self.store.write(partial(endings.leave, task_id=task_id, executor=self._executor))
        if start is not None:
            self._starts.send_nowait(start)

    async def _has_expired(self, task_id: str) -> None:
        ended = await self.store.write(partial(endings.expire, task_id=task_id))
        if ended is not None:
            await self._ended(ended, task_id)

    async def _release(self, session_id: str) -> None:
        start = await self.store.write(partial(release, session_id=session_id, executor=self._executor))
        if start is not None:
            self._starts.send_nowait(start)

    async def _start_all(self) -> None:
        # Rounds start from here, where no other round is under way: the engine would take one for a part of it.
        async for start in self._to_start:
            self._group.start_soon(self._run, start)

    async def _run(self, start: Start) -> None:
        try:
            await self._engine.run(start)
        except Parked:
            pass
        except Exception:
            logger.exception("task %s: the engine gave up its round", start.task_id)
            self._failed.send_nowait(start)

    async def _retry_all(self) -> None:
        async for start in self._to_retry:
            self._group.start_soon(self._again, start)

    async def _again(self, start: Start) -> None:
        """Run a round under another attempt, or let go of one that is over, as soon as the database takes that."""
        delay = 1.0
        with self.activity.going_on():
            while not self._stopping:
                await anyio.sleep(delay)
                delay = min(2 * delay, 30.0)
                try:
                    again = await self.store.write(partial(retry, start=start, executor=self._executor))
                    if again is None:
                        await self._leave(start.task_id)
                        await self._release_beside(start.task_id)
                except SQLAlchemyError:
                    continue
                if again is not None:
                    self._starts.send_nowait(again)
                return

    async def round(self, start: Start) -> None:
        """One round, from the engine; see `Rounds.round`."""
        with self.activity.going_on():
            try:
                await self._round(start)
            except SQLAlchemyError:
                # Whoever called: a round that was taken over is run again like any other.
                logger.exception("task %s: the database gave up its round", start.task_id)
                self._failed.send_nowait(start)

    async def _round(self, start: Start) -> None:
        came_to_its_end = False
        try:
            came_to_its_end = await self._rounds.round(start)
        except Parked:
            raise
        except Exception:
            logger.exception("task %s: its round could not be recorded", start.task_id)
            await self._give_up(start)
        if not came_to_its_end:
            await self._leave(start.task_id)
        if (self._queued or not self._peers.alone) and not self._stopping:
            await self._release_beside(start.task_id)

    async def _release_beside(self, task_id: str) -> None:
        times = self._times_queued
        session_id, others = await self.store.read(partial(queued_beside, task_id=task_id))
        if not others and times == self._times_queued:
            self._queued = False  # only now: rounds that ended meanwhile had to look as well
        if session_id is not None:
            await self._release(session_id)

    async def _give_up(self, start: Start) -> None:
        message = "The server could not record what the agent did; its log says more. Create the task again."
        at = Place(start.task_id, start.attempt, 0)
        await self.store.write(partial(steps.fail, at=at, message=message))
        await self._audience.tell(start.task_id, True)

    async def _heard(self, task_id: str, asked: bool) -> None:
        """Another process has changed a task; `asked` if it had to leave the rest to this one."""
        if asked or self._rounds.is_running(task_id) or self._feeds.get(task_id) is not None:
            row = await self.store.read(partial(row_of, task_id=task_id))
            over = row is None or TaskStatus(row.status).is_terminal
            if over and (asked or self._rounds.is_running(task_id)):
                self._group.start_soon(self._stop_surely, task_id)
            elif row is not None and asked and row.status in UNDER_WAY and row.executor == self._executor:
                self._starts.send_nowait(start_of(row))
            if row is None:
                self._feeds.close(task_id)
        await self._audience.tell(task_id, True)

    async def _adopt(self, *, own: bool = False) -> None:
        """Take up what nobody runs though it should be run."""
        async with self._peers.deciding() as live:
            starts = await adopt(self.store, self._engine, self._executor, live, own=own)
        for start in starts:
            self._starts.send_nowait(start)


async def _with_rest(
    first: Happening | None, happenings: AsyncGenerator[Happening, None]
) -> AsyncGenerator[Happening, None]:
    async with aclosing(happenings):
        if first is not None:
            yield first
        async for happening in happenings:
            yield happening
