"""`TaskBridge`: delegate tasks, answer their tool calls, wait for their answers."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self, Unpack

import anyio
from anyio.abc import TaskGroup
from pydantic_core import PydanticSerializationError

from agentlin_bridge.delegation.answering import as_result, size_of
from agentlin_bridge.delegation.changes import Changes
from agentlin_bridge.delegation.client_tools import ClientTool, ToolLike, as_client_tools
from agentlin_bridge.delegation.drives import Drives
from agentlin_bridge.delegation.driving import TaskDriver
from agentlin_bridge.delegation.finding import LOCAL, find
from agentlin_bridge.delegation.ledger import reading, writing
from agentlin_bridge.delegation.ledger.ledger import Ledger
from agentlin_bridge.delegation.ledger.records import CallState, NewTask, RoundState, TaskRecord
from agentlin_bridge.delegation.limits import Limits
from agentlin_bridge.delegation.outcome import as_task
from agentlin_bridge.delegation.requests import Origin, RequestFields, TaskRequest, prepare
from agentlin_bridge.delegation.watching import ProgressBoard
from agentlin_bridge.errors import (
    BridgeError,
    ConfigurationError,
    InvalidRequestError,
    RemoteError,
    RemoteNotFound,
)
from agentlin_bridge.events import Progress
from agentlin_bridge.events.progress import TEXT_LIMIT
from agentlin_bridge.remote.backend import Capabilities, TaskBackend
from agentlin_bridge.task import Task, TaskStatus, ToolResult

logger = logging.getLogger(__name__)

_PAGE = 50


class TaskBridge:
    """Delegates tasks to a backend and keeps them in a ledger. Use it as an async context manager.

    Leaving it stops following the tasks, not the tasks: another bridge on the same ledger carries them on.

    Args:
        backend: who runs the tasks.
        ledger: the path of the ledger, or a ledger.
        principal: whose tasks these are; another principal's do not exist here.
        client_tools: bound by name to every task, also to those an earlier process created.
        agents: agent profiles: options by the name that `create(agent=...)` takes.
        limits: bounds on time, size and concurrency.
        user_id: sent to the remote as its user id.
        stream: whether to follow rounds by event stream, where the backend can. A stream shows text as it
            comes; on the published server it also makes a run stoppable, and a lost one kills the run.
    """

    _factory: ClassVar[Callable[..., TaskBridge] | None] = None

    def __init__(
        self,
        backend: TaskBackend,
        *,
        ledger: Ledger | str | Path,
        principal: str = LOCAL,
        client_tools: Iterable[ToolLike] = (),
        agents: Mapping[str, Mapping[str, Any]] | None = None,
        limits: Limits | None = None,
        user_id: str | None = None,
        stream: bool = False,
    ) -> None:
        self._limits = limits or Limits()
        self._backend = backend
        self._ledger = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
        self._origin = Origin(principal, backend, self._limits, user_id or principal, stream, agents or {})
        self._tools = as_client_tools(client_tools)
        self._bound: dict[str, Mapping[str, ClientTool]] = {}
        self._changes = Changes(self._ledger)
        self._board = ProgressBoard(backend, self._ledger, self._changes.announce)
        self._driver = TaskDriver(
            backend,
            self._ledger,
            self._limits,
            board=self._board,
            tools=self._tools_of,
            announce=self._changes.announce,
        )
        self._drives = Drives(self._driver, self._changes, over=self._let_go)
        self._stack = AsyncExitStack()
        self._group: TaskGroup | None = None

    @classmethod
    def register_factory(cls, factory: Callable[..., TaskBridge]) -> None:
        """Tell `from_env` how to build a bridge; `agentlin_bridge.wiring` does."""
        cls._factory = factory

    @classmethod
    def from_env(cls, *, principal: str = LOCAL, client_tools: Iterable[ToolLike] = ()) -> TaskBridge:
        """A bridge as the environment and the configuration file describe it.

        Raises:
            ConfigurationError: they contradict each other or are half set.
        """
        if cls._factory is None:
            raise ConfigurationError(
                "Nothing has registered a way to build a bridge.", next_step="import TaskBridge from agentlin_bridge"
            )
        return cls._factory(principal=principal, client_tools=client_tools)

    def __reduce__(self) -> str:
        raise TypeError("A TaskBridge keeps its key and its connections to itself and cannot be pickled.")

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._ledger)
            self._backend.recall(await self._ledger.read(reading.notes_of, self._backend.name))
            await stack.enter_async_context(self._backend)
            self._stack = stack.pop_all()
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._changes.run, self._drives.stop)
        self._group.start_soon(self._board.run)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            group = self._open_group()
            group.cancel_scope.cancel()
            # The body's own error is not the group's: it must reach the caller as it is.
            await group.__aexit__(None, None, None)
        finally:
            self._group = None
            await self._stack.aclose()

    @property
    def capabilities(self) -> Capabilities:
        """What the backend can really do."""
        return self._backend.capabilities

    @property
    def notice(self) -> str:
        """What a host must know about the backend before it delegates; empty if nothing."""
        return self._backend.notice

    # Creating --------------------------------------------------------------------------------------------

    async def create(
        self,
        instructions: str,
        *,
        client_tools: Sequence[ToolLike] = (),
        attachments: Sequence[Any] = (),
        agent: str | None = None,
        continue_task: str | None = None,
        output_schema: Mapping[str, Any] | None = None,
        request_id: str | None = None,
        deadline: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        stream: bool | None = None,
    ) -> Task:
        """Delegate a task and return at once. The arguments are those of `TaskRequest`.

        Raises:
            InvalidRequestError: the arguments cannot be used; nothing was created.
            RequestConflict: the request_id has created a task with other arguments.
        """
        request = TaskRequest(
            instructions=instructions,
            client_tools=client_tools,
            attachments=attachments,
            agent=agent,
            continue_task=continue_task,
            output_schema=output_schema,
            request_id=request_id,
            deadline=deadline,
            metadata=metadata,
            options=options,
            stream=stream,
        )
        return await self._create(*prepare(request, self._origin))

    async def _create(self, new: NewTask, tools: Mapping[str, ClientTool]) -> Task:
        self._open_group()
        if new.continue_task is not None:
            new = await self._continuing(new, new.continue_task)
        record, _ = await self._ledger.write(writing.create_task, new, owner=self._ledger.instance)
        self._carry_on(record, tools)
        return await self._view(record)

    async def _continuing(self, new: NewTask, earlier_id: str) -> NewTask:
        earlier = await self._load(earlier_id)
        if not earlier.status.is_terminal:
            raise InvalidRequestError(
                f"Task {earlier_id} is still {earlier.status.value}; its session takes one task at a time.",
                next_step="wait for it, or cancel it",
            )
        return replace(new, session_id=earlier.session_id, previous_remote_id=earlier.current.remote_id)

    async def run(
        self,
        instructions: str,
        *,
        timeout: float | None = None,
        **request: Unpack[RequestFields],
    ) -> Task:
        """`create`, answer its calls, and `wait` at most `timeout` seconds.

        Cancelling the call cancels the task; the end of the timeout does not.

        Raises:
            InvalidRequestError: the arguments cannot be used; nothing was created.
        """
        prepared = prepare(TaskRequest(instructions, **request), self._origin)
        return await self._run(*prepared, timeout=timeout)

    async def _run(self, new: NewTask, tools: Mapping[str, ClientTool], *, timeout: float | None) -> Task:
        task = await self._create(new, tools)
        try:
            return await self.wait(task.id, timeout=timeout)
        except anyio.get_cancelled_exc_class():
            # Nobody else knows its id.
            with anyio.CancelScope(shield=True):
                await self.cancel(task.id)
            raise

    async def run_many(
        self,
        requests: Iterable[str | TaskRequest | Mapping[str, Any]],
        *,
        max_concurrency: int = 8,
        timeout: float | None = None,
    ) -> list[Task]:
        """Run several tasks, at most `max_concurrency` at once; their results stand in order.

        Args:
            requests: instructions, `TaskRequest`s, or their fields as dicts. All are checked before any runs.
            max_concurrency: tasks running at once.
            timeout: seconds each may take before it is returned as it stands.

        Raises:
            InvalidRequestError: one of them cannot be used; nothing was created.
            ExceptionGroup: a fault of ours; the tasks that were running are canceled.
        """
        if max_concurrency < 1:
            raise InvalidRequestError(f"max_concurrency is {max_concurrency}.", next_step="use 1 or more")
        prepared = [prepare(_as_request(request), self._origin) for request in requests]
        done: list[Task | None] = [None] * len(prepared)
        limiter = anyio.CapacityLimiter(max_concurrency)

        async def one(place: int) -> None:
            async with limiter:
                done[place] = await self._run(*prepared[place], timeout=timeout)

        async with anyio.create_task_group() as group:
            for place in range(len(prepared)):
                group.start_soon(one, place)
        return [task for task in done if task is not None]

    # Waiting and answering -------------------------------------------------------------------------------

    async def wait(self, task_id: str, *, timeout: float | None = None, client_tools: Sequence[ToolLike] = ()) -> Task:
        """Wait until a task is over, time is up, or only calls without a handler remain.

        Args:
            task_id: the task.
            timeout: seconds; None waits as long as it takes.
            client_tools: handlers to bind to the task, by name.

        Raises:
            TaskNotFound: there is no such task.
        """
        record = await self._load(task_id)
        self._carry_on(record, as_client_tools(client_tools))
        with self._changes.watching(record.id), anyio.move_on_after(timeout):
            while True:
                changed = self._changes.next(record.id)
                record = await self._load(record.id)
                if record.status.is_terminal or record.id not in self._drives:
                    break
                await changed.wait()
        if (fault := self._drives.take_fault(record.id)) is not None:
            raise fault
        return await self._view(await self._load(record.id))

    async def submit(self, task_id: str, results: Mapping[str, Any]) -> Task:
        """Give results for pending calls, by call_id; partial answers are fine.

        It returns once they are on record; delivery follows. All of them are taken, or none. Repeating a
        result changes nothing.

        Args:
            task_id: the task.
            results: each a string, a `ToolResult`, content items, or anything that can be JSON.

        Raises:
            TaskNotFound: there is no such task.
            UnknownCall: it has no such call.
            AlreadyAnswered: the call has another result.
            InvalidRequestError: there is no result, or one is too large.
        """
        if not results:
            raise InvalidRequestError("There are no results.", next_step="give a result for each pending call_id")
        given = {call_id: as_result(value) for call_id, value in results.items()}
        for call_id, result in given.items():
            self._check_result(call_id, result)
        record = await self._load(task_id, to_change=True)
        record = await self._ledger.write(writing.submit, record.id, given)
        self._changes.announce(record.id)
        self._carry_on(record)
        return await self._view(record)

    async def approve(self, task_id: str, call_ids: Collection[str]) -> Task:
        """A person has approved pending calls with `approval_required`; they are executed.

        Approving twice changes nothing. To refuse, submit an error result.

        Raises:
            TaskNotFound: there is no such task.
            UnknownCall: one of them does not wait for approval; none was approved.
        """
        record = await self._load(task_id, to_change=True)
        record = await self._ledger.write(writing.approve, record.id, list(call_ids))
        self._changes.announce(record.id)
        self._carry_on(record)
        return await self._view(record)

    def _check_result(self, call_id: str, result: ToolResult) -> None:
        try:
            (call_id + result.model_dump_json()).encode()
        except (UnicodeEncodeError, PydanticSerializationError) as error:
            raise InvalidRequestError(
                f"The result for {call_id!r} holds text that is not Unicode. Nothing was stored.",
                next_step="correct the text and submit it again",
            ) from error
        if (size := size_of(result)) > self._limits.result_chars:
            raise InvalidRequestError(
                f"The result for {call_id!r} has {size:,} characters; the limit is {self._limits.result_chars:,}. "
                "Nothing was stored and the call is still pending.",
                next_step="submit a shorter one: the part that matters, or a summary",
            )

    # Looking ---------------------------------------------------------------------------------------------

    async def retrieve(self, task_id: str) -> Task:
        """A task as it stands.

        Raises:
            TaskNotFound: there is no such task.
        """
        record = await self._load(task_id)
        self._carry_on(record)
        return await self._view(record)

    async def list(
        self, *, status: TaskStatus | str | Collection[TaskStatus | str] | None = None, limit: int | None = None
    ) -> AsyncIterator[Task]:
        """Tasks in the ledger, newest first.

        Args:
            status: only those with this status, or one of these.
            limit: at most so many.

        Raises:
            InvalidRequestError: a status does not exist.
        """
        wanted = None if status is None else _statuses(status)
        left = limit
        after: tuple[float, str] | None = None
        while left is None or left > 0:
            size = _PAGE if left is None else min(_PAGE, left)
            page = await self._ledger.read(
                reading.page, self._origin.principal, statuses=wanted, after=after, size=size
            )
            for record in page:
                yield await self._view(record)
            if len(page) < size:
                return
            after = (page[-1].created_at, page[-1].id)
            left = None if left is None else left - len(page)

    async def events(self, task_id: str) -> AsyncIterator[Progress]:
        """How a task gets on: its progress now, and at every change, until it is over or the host has to act.

        Events are told as they come where the task is followed by stream; otherwise it is looked at every
        second while somebody listens here.

        Raises:
            TaskNotFound: there is no such task.
        """
        record = await self._load(task_id)
        self._carry_on(record)
        shown: Progress | None = None
        with self._changes.watching(record.id), self._board.watching(record.id):
            while True:
                changed = self._changes.next(record.id)
                task = await self._view(await self._load(record.id))
                progress = replace(self._board.progress(record.id), status=task.status)
                if task.answer is not None:
                    progress = replace(progress, text=task.answer[-TEXT_LIMIT:])
                if progress != shown:
                    shown = progress
                    yield progress
                if task.status.is_terminal or task.pending or record.id not in self._drives:
                    break
                await changed.wait()
        if (fault := self._drives.take_fault(record.id)) is not None:
            raise fault

    # Ending ----------------------------------------------------------------------------------------------

    async def cancel(self, task_id: str) -> Task:
        """Cancel a task: for the host at once, then remotely. `Task.remote` says what that really did.

        Cancelling a task that is over changes nothing.

        Raises:
            TaskNotFound: there is no such task.
        """
        record = await self._load(task_id, to_change=True)
        canceled = await self._ledger.write(writing.finish, record.id, TaskStatus.CANCELED, None)
        with anyio.CancelScope(shield=True):
            # As it is now: another process may have sent a round meanwhile.
            record = await self._load(record.id)
            is_ours = record.status in (TaskStatus.CANCELED, TaskStatus.EXPIRED)
            if canceled or (is_ours and record.remote_outcome is None):
                await self._drives.end(record.id)
                self._let_go(record.id)
                await self._tell_remote(record)
        return await self._view(await self._load(record.id))

    async def delete(self, task_id: str) -> Task:
        """Cancel a task if it runs, and delete it here and remotely. Repeating it gives the first answer.

        Raises:
            TaskNotFound: there is no such task.
        """
        record = await self._load(task_id, deleted=True, to_change=True)
        if not record.is_deleted:
            await self.cancel(record.id)
            record = await self._load(record.id)
            for round_ in record.rounds:
                await self._delete_remote(record.id, round_.remote_id)
            await self._ledger.write(writing.bury, record.id)
        return await self._view(await self._load(record.id, deleted=True))

    async def _tell_remote(self, record: TaskRecord) -> None:
        round_ = record.current
        if round_.state is RoundState.SETTLED:
            # Between two rounds nothing runs.
            await self._ledger.write(writing.record_outcome, record.id, "stopped")
            return
        await self._driver.stop_remote(record)

    async def _delete_remote(self, task_id: str, remote_id: str) -> None:
        try:
            outcome = await self._backend.delete(remote_id)
        except RemoteNotFound:
            outcome = "stopped"
        except RemoteError as error:
            logger.warning("deleting %s remotely: %s", remote_id, error)
            outcome = "kept running"
        await self._ledger.write(writing.record_outcome, task_id, outcome)

    # Inside ----------------------------------------------------------------------------------------------

    def _open_group(self) -> TaskGroup:
        if self._group is None:
            raise BridgeError("The bridge is not open.", next_step="use it inside `async with`")
        return self._group

    def _let_go(self, task_id: str) -> None:
        # Handlers keep alive whatever they close over.
        self._bound.pop(task_id, None)
        self._board.forget(task_id)

    def _tools_of(self, task_id: str) -> Mapping[str, ClientTool]:
        return {**self._tools, **self._bound.get(task_id, {})}

    def _carry_on(self, record: TaskRecord, tools: Mapping[str, ClientTool] | None = None) -> None:
        """Have the task driven by this bridge with these tools, unless it is over, or some other place's."""
        if not record.status.is_terminal and self._is_at_home(record):
            if tools:
                self._bound[record.id] = {**self._bound.get(record.id, {}), **tools}
            self._drives.carry_on(record.id, self._open_group())

    def _is_at_home(self, record: TaskRecord) -> bool:
        return (record.backend, record.place) == (self._backend.name, self._backend.place)

    async def _load(self, task_id: str, *, deleted: bool = False, to_change: bool = False) -> TaskRecord:
        record = await find(self._ledger, self._origin, task_id, deleted=deleted)
        if to_change and not self._is_at_home(record):
            raise InvalidRequestError(
                f"Task {record.id} was given to {record.backend} at {record.place}, and this bridge is set up for "
                f"{self._backend.name} at {self._backend.place}.",
                next_step="use a bridge with the settings the task was created with",
            )
        if not record.status.is_terminal and time.time() >= record.deadline_at:
            self._carry_on(record)
        return record

    async def _view(self, record: TaskRecord) -> Task:
        handled = {name for name, tool in self._tools_of(record.id).items() if tool.handler is not None}
        abandoned = await self._abandoned(record)
        if abandoned:
            # The record may be older than the look at who works on what: only a fresh one proves it.
            fresh = await self._ledger.read(reading.load, record.id)
            record = record if fresh is None else fresh
            abandoned = await self._abandoned(record)
        return as_task(record, handled=handled, abandoned=abandoned)

    async def _abandoned(self, record: TaskRecord) -> set[str]:
        """The started calls of the current round that nobody works on any more."""
        found = set()
        for call in record.current.calls if record.rounds else ():
            if call.state is CallState.STARTED and call.owner is not None:
                if call.owner == self._ledger.instance:
                    works = self._driver.is_executing(record.id, record.current.seq, call.call_id)
                else:
                    works = await self._ledger.is_alive(call.owner)
                if not works:
                    found.add(call.call_id)
        return found


def _as_request(given: str | TaskRequest | Mapping[str, Any]) -> TaskRequest:
    if isinstance(given, TaskRequest):
        return given
    if isinstance(given, str):
        return TaskRequest(given)
    try:
        return TaskRequest(**given)
    except TypeError as error:
        raise InvalidRequestError(
            f"A request cannot be used: {error}.", next_step="use the fields of TaskRequest"
        ) from error


def _statuses(given: TaskStatus | str | Collection[TaskStatus | str]) -> list[TaskStatus]:
    wanted = [given] if isinstance(given, str) else list(given)
    try:
        return [TaskStatus(status) for status in wanted]
    except ValueError as error:
        raise InvalidRequestError(
            f"{error}.", next_step=f"use one of: {', '.join(status.value for status in TaskStatus)}"
        ) from error
