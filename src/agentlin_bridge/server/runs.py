"""Runs: the server owns them, requests only wait for them."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from weakref import WeakValueDictionary

import anyio
from anyio.abc import TaskGroup

from agentlin_bridge.errors import SERVER_ERROR
from agentlin_bridge.server.activity import Activity
from agentlin_bridge.server.agent import Agent
from agentlin_bridge.server.refusals import Refusal, unknown_task
from agentlin_bridge.server.request import CreateRequest
from agentlin_bridge.server.store import Store
from agentlin_bridge.server.wire import numbered
from agentlin_bridge.task import JsonrpcError, TaskObject

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Run:
    task_id: str
    turn: anyio.Lock
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    over: anyio.Event = field(default_factory=anyio.Event)


class Runs:
    """The runs of one server: an async context manager that takes up what an earlier process left undone.

    In one session one run is under way at a time; the others are queued in the order they came.
    """

    def __init__(self, store: Store, agent: Agent, *, activity: Activity | None = None) -> None:
        self.store = store
        self.agent = agent
        self.activity = activity or Activity()
        self._runs: dict[str, _Run] = {}
        self._turns: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()
        self._accepting = anyio.Lock()
        self._stopping = False
        self._exit = AsyncExitStack()
        self._group: TaskGroup

    async def __aenter__(self) -> Self:
        unfinished = await self.store.unfinished()
        self._group = await self._exit.enter_async_context(anyio.create_task_group())
        for task_id, session_id in unfinished:
            self._start(task_id, session_id)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self.stop()
        return bool(await self._exit.__aexit__(kind, error, traceback))

    def stop(self) -> None:
        """Leave everything that runs to the next start, and release those who wait for it."""
        self._stopping = True
        for run in self._runs.values():
            run.scope.cancel()

    async def create(self, request: CreateRequest) -> TaskObject:
        """Accept a request and wait until its run ends: with an answer, a failure or tool calls.

        Raises:
            Refusal: it cannot be served, or the server stops before the run has ended.
        """
        async with self._accepting:  # runs start in the order in which they were accepted
            self._refuse_when_stopping()
            accepted = await self.store.accept(request)
            if accepted.to_run:
                self._start(accepted.task_id, accepted.session_id)
        run = self._runs.get(accepted.task_id)
        if run is not None:
            await run.over.wait()
            self._refuse_when_stopping()
        return await self.retrieve(accepted.task_id)

    async def retrieve(self, task_id: str) -> TaskObject:
        """The task as it is now.

        Raises:
            Refusal: it is unknown.
        """
        task = await self.store.retrieve(task_id)
        if task is None:
            raise unknown_task()
        return task

    async def cancel(self, task_id: str) -> TaskObject:
        """Cancel a task and stop its run; see `Store.cancel`."""
        task = await self.store.cancel(task_id)
        self._abandon(task_id)
        return task

    async def delete(self, task_id: str) -> TaskObject:
        """Forget a task, stopping what of its turn still runs; see `Store.delete`."""
        task, stopped = await self.store.delete(task_id)
        for stopped_id in stopped:
            self._abandon(stopped_id)
        return task

    def _refuse_when_stopping(self) -> None:
        if self._stopping:
            raise Refusal(
                "The server is stopping. An accepted task goes on when it starts again: retrieve it then.",
                status=503,
                code=SERVER_ERROR,
            )

    def _start(self, task_id: str, session_id: str) -> None:
        turn = self._turns.get(session_id)
        if turn is None:
            turn = self._turns[session_id] = anyio.Lock()
        run = self._runs[task_id] = _Run(task_id, turn)
        self._group.start_soon(self._run, run)

    def _abandon(self, task_id: str) -> None:
        run = self._runs.pop(task_id, None)
        if run is not None:
            run.over.set()
            run.scope.cancel()

    async def _run(self, run: _Run) -> None:
        with self.activity.going_on():
            try:
                with run.scope:
                    async with run.turn:
                        await self._take_turn(run.task_id)
            except Exception:
                logger.exception("task %s: its run could not be recorded", run.task_id)
            finally:
                if self._runs.get(run.task_id) is run:
                    del self._runs[run.task_id]
                run.over.set()

    async def _take_turn(self, task_id: str) -> None:
        conversation = await self.store.begin(task_id)
        if conversation is None:
            return
        try:
            output = numbered(task_id, await self.agent.turn(conversation))
        except Exception as error:
            logger.exception("task %s: the agent failed", task_id)
            message = f"The agent {self.agent.name!r} failed with {type(error).__name__}; the server's log says more"
            await self.store.fail(task_id, JsonrpcError(code=SERVER_ERROR, message=message))
        else:
            await self.store.finish(task_id, output)
