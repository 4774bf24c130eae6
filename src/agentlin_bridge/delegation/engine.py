"""What carries tasks on in one process, whoever they belong to: the open ledger and backend, and their drives."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import TaskGroup

from agentlin_bridge.delegation.backends import Backends
from agentlin_bridge.delegation.changes import Changes
from agentlin_bridge.delegation.client_tools import ClientTool, ToolLike, as_client_tools
from agentlin_bridge.delegation.drives import Drives
from agentlin_bridge.delegation.driving import TaskDriver
from agentlin_bridge.delegation.finding import find
from agentlin_bridge.delegation.ledger import reading, writing
from agentlin_bridge.delegation.ledger.ledger import Ledger
from agentlin_bridge.delegation.ledger.records import (
    ApprovalState,
    CallRecord,
    CallState,
    NewTask,
    RoundState,
    TaskRecord,
)
from agentlin_bridge.delegation.limits import Limits
from agentlin_bridge.delegation.outcome import as_task
from agentlin_bridge.delegation.own_tools import OWN_TOOLS, OwnTools, sources_of
from agentlin_bridge.delegation.requests import Origin
from agentlin_bridge.delegation.watching import ProgressBoard
from agentlin_bridge.errors import BridgeError, InvalidRequestError, RemoteError, RemoteNotFound
from agentlin_bridge.remote.backend import TaskBackend
from agentlin_bridge.task import Task

logger = logging.getLogger(__name__)


class Engine:
    """Carries tasks on while it is open, for one or more bridges. An async context manager.

    Args:
        backends: who runs the tasks.
        ledger: where they are on record.
        limits: bounds on time, size and concurrency.
        client_tools: bound by name to every task.
        own_tools: offered with every task and run here.
    """

    def __init__(
        self,
        backends: Backends,
        ledger: Ledger,
        limits: Limits,
        client_tools: Iterable[ToolLike] = (),
        own_tools: OwnTools | None = None,
    ) -> None:
        self.backends = backends
        self.ledger = ledger
        self.limits = limits
        self.changes = Changes(ledger)
        self.board = ProgressBoard(backends, ledger, self.changes.announce)
        self._tools = as_client_tools(client_tools)
        self._own = own_tools
        self._bound: dict[str, Mapping[str, ClientTool]] = {}
        handlers = anyio.CapacityLimiter(limits.concurrent_handlers)
        self._drivers = {
            backend.name: TaskDriver(
                backend,
                ledger,
                limits,
                board=self.board,
                handlers=handlers,
                tools=self._tools_of,
                announce=self.changes.announce,
                equip=self._equip,
            )
            for backend in backends
        }
        self.drives = Drives(self.changes, over=self._let_go)
        self._stack = AsyncExitStack()
        self._group: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.ledger)
            for backend in self.backends:
                backend.recall(await self.ledger.read(reading.notes_of, backend.name))
            await stack.enter_async_context(self.backends)
            if self._own is not None:
                await stack.enter_async_context(self._own)
            self._stack = stack.pop_all()
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self.changes.run, self.drives.stop)
        self._group.start_soon(self.board.run)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            group = self.open_group()
            group.cancel_scope.cancel()
            # The body's own error is not the group's: it must reach the caller as it is.
            await group.__aexit__(None, None, None)
        finally:
            self._group = None
            await self._stack.aclose()

    async def equipped(self, new: NewTask) -> NewTask:
        """A new task with the tools run here, beside those it has: a host's tool goes before one of that name."""
        backend = self.backends.having(new)
        if self._own is None or backend is None or not backend.capabilities.client_tools:
            return new
        given = list(new.client_tools or ())
        names = {tool.name for tool in given}
        added = {name: own for name, own in (await self._own.offered()).items() if name not in names}
        if not added:
            return new
        sources = {name: own.source for name, own in added.items()}
        return replace(
            new,
            client_tools=[*given, *(own.tool.definition for own in added.values())],
            metadata={**new.metadata, OWN_TOOLS: sources},
        )

    def open_group(self) -> TaskGroup:
        """The group the drives run in.

        Raises:
            BridgeError: the engine is not open.
        """
        if self._group is None:
            raise BridgeError("The bridge is not open.", next_step="use it inside `async with`")
        return self._group

    def carry_on(self, record: TaskRecord, tools: Mapping[str, ClientTool] | None = None) -> None:
        """Have the task driven here with these tools, unless it is over, or some other place's."""
        if not record.status.is_terminal and self.backends.having(record) is not None:
            if tools:
                self._bound[record.id] = {**self._bound.get(record.id, {}), **tools}
            self.drives.carry_on(record.id, self._drivers[record.backend], self.open_group())

    async def load(self, origin: Origin, task_id: str, *, deleted: bool = False, to_change: bool = False) -> TaskRecord:
        """The record of a task of the origin's principal; one that is out of time is ended.

        Args:
            origin: whose task it has to be.
            task_id: our id, or that of any of its remote tasks.
            deleted: whether a tombstone counts.
            to_change: whether it is going to be changed.

        Raises:
            TaskNotFound: there is none.
            InvalidRequestError: it shall be changed, and was given to another remote than this engine's.
        """
        record = await find(self.ledger, origin, task_id, deleted=deleted)
        if to_change:
            self.backend_of(record)
        if not record.status.is_terminal and time.time() >= record.deadline_at:
            self.carry_on(record)
        return record

    def backend_of(self, record: TaskRecord) -> TaskBackend:
        """The backend that has a task.

        Raises:
            InvalidRequestError: it was given to another remote than this engine's.
        """
        backend = self.backends.having(record)
        if backend is None:
            here = ", ".join(f"{backend.name} at {backend.place}" for backend in self.backends)
            raise InvalidRequestError(
                f"Task {record.id} was given to {record.backend} at {record.place}, and this bridge is set up for "
                f"{here}.",
                next_step="use a bridge with the settings the task was created with",
            )
        return backend

    async def view(self, record: TaskRecord) -> Task:
        """The task as a host sees it, given what this process works on."""
        handled = {name for name, tool in self._tools_of(record.id).items() if tool.handler is not None}
        if self._own is not None:
            handled |= {name for name, source in sources_of(record).items() if self._own.has(source)}
        abandoned = await self._abandoned(record)
        if abandoned:
            # The record may be older than the look at who works on what: only a fresh one proves it.
            fresh = await self.ledger.read(reading.load, record.id)
            record = record if fresh is None else fresh
            abandoned = await self._abandoned(record)
        return as_task(record, handled=handled, abandoned=abandoned)

    async def stop(self, record: TaskRecord) -> None:
        """End all that is done for a task that is over on our side, and tell the remote."""
        await self.drives.end(record.id)
        self._let_go(record.id)
        if record.current.state is RoundState.SETTLED:
            # Between two rounds nothing runs.
            await self.ledger.write(writing.record_outcome, record.id, "stopped")
            return
        await self._drivers[record.backend].stop_remote(record)

    async def delete_remote(self, record: TaskRecord) -> None:
        """Delete all remote tasks of a task, and record what that did."""
        for round_ in record.rounds:
            try:
                outcome = await self.backend_of(record).delete(round_.remote_id)
            except RemoteNotFound:
                outcome = "stopped"
            except RemoteError as error:
                logger.warning("deleting %s remotely: %s", round_.remote_id, error)
                outcome = "kept running"
            await self.ledger.write(writing.record_outcome, record.id, outcome)

    def unbind(self, task_id: str) -> None:
        """Forget the handlers that were bound to a task: they keep alive whatever they close over."""
        self._bound.pop(task_id, None)

    def _let_go(self, task_id: str) -> None:
        self.unbind(task_id)
        self.board.forget(task_id)

    async def _equip(self, task: TaskRecord, call: CallRecord) -> None:
        source = sources_of(task).get(call.name)
        if call.approval is ApprovalState.REQUIRED:
            # Whatever becomes of its source meanwhile, the call is the person's.
            return
        if source is not None and self._own is not None and self._own.has(source):
            tool = await self._own.find(call.name, source)
            self._bound[task.id] = {**self._bound.get(task.id, {}), call.name: tool}

    def _tools_of(self, task_id: str) -> Mapping[str, ClientTool]:
        return {**self._tools, **self._bound.get(task_id, {})}

    async def _abandoned(self, record: TaskRecord) -> set[str]:
        """The started calls of the current round that nobody works on any more."""
        found = set()
        for call in record.current.calls if record.rounds else ():
            if call.state is CallState.STARTED and call.owner is not None:
                if call.owner == self.ledger.instance:
                    works = self._drivers[record.backend].is_executing(record.id, record.current.seq, call.call_id)
                else:
                    works = await self.ledger.is_alive(call.owner)
                if not works:
                    found.add(call.call_id)
        return found
