"""`TaskBridge`: delegate tasks, answer their tool calls, wait for their answers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Literal, Self, TypedDict, Unpack

import anyio
from pydantic import SecretStr
from pydantic_core import PydanticSerializationError

from agentlin_bridge.delegation.answering import as_result, edited_arguments, size_of
from agentlin_bridge.delegation.backends import Backends
from agentlin_bridge.delegation.client_tools import ClientTool, ToolLike, as_client_tools
from agentlin_bridge.delegation.engine import Engine
from agentlin_bridge.delegation.finding import LOCAL
from agentlin_bridge.delegation.ledger import reading, writing
from agentlin_bridge.delegation.ledger.ledger import Ledger
from agentlin_bridge.delegation.ledger.records import NewTask, RoundState, TaskRecord
from agentlin_bridge.delegation.limits import Limits
from agentlin_bridge.delegation.own_tools import OwnTools
from agentlin_bridge.delegation.requests import Origin, RequestFields, TaskRequest, as_json, prepare
from agentlin_bridge.errors import ConfigurationError, InvalidRequestError, UnsupportedError
from agentlin_bridge.events import Progress
from agentlin_bridge.events.progress import TEXT_LIMIT
from agentlin_bridge.remote.backend import Capabilities, TaskBackend
from agentlin_bridge.task import Task, TaskStatus, ToolResult

logger = logging.getLogger(__name__)

_PAGE = 50


class SettingsFields(TypedDict, total=False):
    """Settings as keyword arguments: the deployment, its key, `agentlin` or `embedded`, the ledger's path."""

    base_url: str
    api_key: SecretStr
    backend: str
    ledger: str


class TaskBridge:
    """Delegates tasks to a backend and keeps them in a ledger. Use it as an async context manager.

    Leaving it stops following the tasks, not the tasks: another bridge on the same ledger carries them on.

    Args:
        backend: who runs the tasks.
        more_backends: what agent profiles can name as their `backend` besides.
        ledger: the path of the ledger, or a ledger.
        principal: whose tasks these are; another principal's do not exist here.
        client_tools: bound by name to every task, also to those an earlier process created.
        own_tools: offered with every task and run by the bridge.
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
        more_backends: Sequence[TaskBackend] = (),
        ledger: Ledger | str | Path,
        principal: str = LOCAL,
        client_tools: Iterable[ToolLike] = (),
        own_tools: OwnTools | None = None,
        agents: Mapping[str, Mapping[str, Any]] | None = None,
        limits: Limits | None = None,
        user_id: str | None = None,
        stream: bool = False,
    ) -> None:
        limits = limits or Limits()
        ledger = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
        backends = Backends(backend, more_backends, agents or {})
        self._engine = Engine(backends, ledger, limits, client_tools, own_tools)
        self._user_id = user_id
        self._origin = Origin(principal, backends, limits, user_id or principal, stream)

    def acting_for(self, principal: str) -> TaskBridge:
        """A bridge for another principal, which sees only that one's tasks.

        It shares what this one has open, lives as long, and must not be entered or left itself.
        """
        other = TaskBridge.__new__(type(self))
        other._engine = self._engine
        other._user_id = self._user_id
        other._origin = replace(self._origin, principal=principal, user_id=self._user_id or principal)
        return other

    @classmethod
    def register_factory(cls, factory: Callable[..., TaskBridge]) -> None:
        """Tell `from_env` how to build a bridge; `agentlin_bridge.wiring` does."""
        cls._factory = factory

    @classmethod
    def from_env(
        cls, *, principal: str = LOCAL, client_tools: Iterable[ToolLike] = (), **settings: Unpack[SettingsFields]
    ) -> TaskBridge:
        """A bridge as the environment and the configuration file describe it.

        Args:
            principal: whose tasks these are.
            client_tools: bound by name to every task.
            settings: in place of what the environment says.

        Raises:
            ConfigurationError: they contradict each other or are half set.
        """
        if cls._factory is None:
            raise ConfigurationError(
                "Nothing has registered a way to build a bridge.", next_step="import TaskBridge from agentlin_bridge"
            )
        return cls._factory(principal=principal, client_tools=client_tools, **settings)

    def __reduce__(self) -> str:
        raise TypeError("A TaskBridge keeps its key and its connections to itself and cannot be pickled.")

    async def __aenter__(self) -> Self:
        await self._engine.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._engine.__aexit__(kind, error, traceback)

    @property
    def capabilities(self) -> Capabilities:
        """What can really be done, by at least one of the backends; `capabilities_of` is about one of them."""
        return self._engine.backends.capabilities

    def capabilities_of(self, agent: str | None) -> Capabilities:
        """What the backend of an agent profile can really do.

        Raises:
            InvalidRequestError: there is no such profile.
        """
        return self._engine.backends.chosen(agent)[0].capabilities

    @property
    def notice(self) -> str:
        """What a host must know about the default backend before it delegates; empty if nothing."""
        return self._engine.backends.default.notice

    def notice_of(self, agent: str | None) -> str:
        """What a host must know about the backend of an agent profile. Raises like `capabilities_of`."""
        return self._engine.backends.chosen(agent)[0].notice

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

        Cancelled before the task is on record, it creates none; later, it still returns it.

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
        self._engine.open_group()
        new = await self._engine.equipped(new)
        if new.continue_task is not None:
            new = await self._continuing(new, new.continue_task)
        # Cancelled now, nobody would know the task's id.
        with anyio.CancelScope(shield=True):
            record, _ = await self._engine.ledger.write(writing.create_task, new, owner=self._engine.ledger.instance)
            self._engine.carry_on(record, tools)
            task: Task = await self._engine.view(record)
        return task

    async def _continuing(self, new: NewTask, earlier_id: str) -> NewTask:
        earlier = await self._engine.load(self._origin, earlier_id)
        if not earlier.status.is_terminal:
            raise InvalidRequestError(
                f"Task {earlier_id} is still {earlier.status.value}; its session takes one task at a time.",
                next_step="wait for it, or cancel it",
            )
        if (earlier.backend, earlier.place) != (new.backend, new.place):
            raise InvalidRequestError(
                f"Task {earlier_id} was given to {earlier.backend} at {earlier.place}; {new.backend} at {new.place} "
                "knows nothing of it.",
                next_step="name an agent of the same backend, or say in the instructions what it needs to know",
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
        """Wait until a task is over or paused, time is up, or only calls without a handler remain.

        Args:
            task_id: the task.
            timeout: seconds; None waits as long as it takes.
            client_tools: handlers to bind to the task, by name.

        Raises:
            TaskNotFound: there is no such task.
        """
        record = await self._engine.load(self._origin, task_id)
        self._engine.carry_on(record, as_client_tools(client_tools))
        with self._engine.changes.watching(record.id), anyio.move_on_after(timeout):
            while True:
                changed = self._engine.changes.next(record.id)
                record = await self._engine.load(self._origin, record.id)
                if _is_held(record) or record.id not in self._engine.drives:
                    break
                await changed.wait()
        if (fault := self._engine.drives.take_fault(record.id)) is not None:
            raise fault
        return await self._engine.view(await self._engine.load(self._origin, record.id))

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
        record = await self._engine.load(self._origin, task_id, to_change=True)
        record = await self._engine.ledger.write(writing.submit, record.id, given)
        self._engine.changes.announce(record.id)
        self._engine.carry_on(record)
        return await self._engine.view(record)

    async def approve(self, task_id: str, calls: Collection[str] | Mapping[str, Mapping[str, Any] | None]) -> Task:
        """A person has approved pending calls with `approval_required`; they are executed.

        Approving twice changes nothing. To refuse, submit an error result.

        Args:
            task_id: the task.
            calls: their call_ids; as a mapping, with the arguments the person wants instead of those asked for,
                or None. The remote agent is told of them with the result.

        Raises:
            TaskNotFound: there is no such task.
            UnknownCall: one of them does not wait for approval; none was approved.
            InvalidRequestError: arguments do not fit the tool's schema; none was approved.
        """
        record = await self._engine.load(self._origin, task_id, to_change=True)
        wanted = calls if isinstance(calls, Mapping) else dict.fromkeys(calls)
        record = await self._engine.ledger.write(writing.approve, record.id, edited_arguments(record, wanted))
        self._engine.changes.announce(record.id)
        self._engine.carry_on(record)
        return await self._engine.view(record)

    def _check_result(self, call_id: str, result: ToolResult) -> None:
        try:
            (call_id + result.model_dump_json()).encode()
        except (UnicodeEncodeError, PydanticSerializationError) as error:
            raise InvalidRequestError(
                f"The result for {call_id!r} holds text that is not Unicode. Nothing was stored.",
                next_step="correct the text and submit it again",
            ) from error
        limit = self._engine.limits.result_chars
        if (size := size_of(result)) > limit:
            raise InvalidRequestError(
                f"The result for {call_id!r} has {size:,} characters; the limit is {limit:,}. "
                "Nothing was stored and the call is still pending.",
                next_step="submit a shorter one: the part that matters, or a summary",
            )

    def unbind(self, task_id: str) -> None:
        """Forget the handlers that were bound to a task; its calls are pending until some are bound again."""
        self._engine.unbind(task_id)

    async def annotate(self, task_id: str, metadata: Mapping[str, Any]) -> Task:
        """Add to a task's metadata; keys it has already are replaced.

        Raises:
            TaskNotFound: there is no such task.
            InvalidRequestError: the metadata cannot be written as JSON.
        """
        record = await self._engine.load(self._origin, task_id)
        added = as_json("metadata", metadata)
        return await self._engine.view(await self._engine.ledger.write(writing.annotate, record.id, added))

    # Looking ---------------------------------------------------------------------------------------------

    async def retrieve(self, task_id: str) -> Task:
        """A task as it stands.

        Raises:
            TaskNotFound: there is no such task.
        """
        record = await self._engine.load(self._origin, task_id)
        self._engine.carry_on(record)
        return await self._engine.view(record)

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
            page = await self._engine.ledger.read(
                reading.page, self._origin.principal, statuses=wanted, after=after, size=size
            )
            for record in page:
                yield await self._engine.view(record)
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
        record = await self._engine.load(self._origin, task_id)
        self._engine.carry_on(record)
        shown: Progress | None = None
        with self._engine.changes.watching(record.id), self._engine.board.watching(record.id):
            while True:
                changed = self._engine.changes.next(record.id)
                task = await self._engine.view(await self._engine.load(self._origin, record.id))
                progress = replace(self._engine.board.progress(record.id), status=task.status)
                if task.answer is not None:
                    progress = replace(progress, text=task.answer[-TEXT_LIMIT:])
                if progress != shown:
                    shown = progress
                    yield progress
                if task.status.is_terminal or task.pending or record.id not in self._engine.drives:
                    break
                await changed.wait()
        if (fault := self._engine.drives.take_fault(record.id)) is not None:
            raise fault

    # Holding ---------------------------------------------------------------------------------------------

    async def pause(self, task_id: str) -> Task:
        """Pause a task: the remote run is, and nothing new is started for it. `wait` returns.

        Pausing a paused task changes nothing. Its deadline goes on.

        Raises:
            TaskNotFound: there is no such task.
            InvalidRequestError: it is over.
            UnsupportedError: the backend cannot pause, or not this task.
            RemoteError: the remote could not be asked; the task goes on.
        """
        record, backend = await self._held(task_id, "pause")
        if record.status is not TaskStatus.PAUSED:
            if record.current.state is not RoundState.SETTLED:
                await backend.pause(record.current.remote_id)
            await self._engine.ledger.write(writing.pause, record.id)
            self._engine.changes.announce(record.id)
        return await self.retrieve(record.id)

    async def resume(self, task_id: str) -> Task:
        """Let a paused task go on. Resuming one that is not paused changes nothing. Raises like `pause`."""
        record, backend = await self._held(task_id, "resume")
        if record.status is TaskStatus.PAUSED:
            if record.current.state is not RoundState.SETTLED:
                await backend.resume(record.current.remote_id)
            await self._engine.ledger.write(writing.resume, record.id)
            self._engine.changes.announce(record.id)
        return await self.retrieve(record.id)

    async def _held(self, task_id: str, verb: Literal["pause", "resume"]) -> tuple[TaskRecord, TaskBackend]:
        record = await self._engine.load(self._origin, task_id, to_change=True)
        backend = self._engine.backend_of(record)
        if record.status.is_terminal:
            raise InvalidRequestError(
                f"Task {record.id} is {record.status.value}; only a task that is going on can be held.",
                next_step="retrieve it to see how it ended",
            )
        if not getattr(backend.capabilities, verb):
            raise UnsupportedError(
                f"The backend {backend.name!r} cannot {verb} a task.", next_step="cancel the task, or let it run"
            )
        return record, backend

    # Ending ----------------------------------------------------------------------------------------------

    async def cancel(self, task_id: str) -> Task:
        """Cancel a task: for the host at once, then remotely. `Task.remote` says what that really did.

        Cancelling a task that is over changes nothing.

        Raises:
            TaskNotFound: there is no such task.
        """
        record = await self._engine.load(self._origin, task_id, to_change=True)
        canceled = await self._engine.ledger.write(writing.finish, record.id, TaskStatus.CANCELED, None)
        with anyio.CancelScope(shield=True):
            # As it is now: another process may have sent a round meanwhile.
            record = await self._engine.load(self._origin, record.id)
            is_ours = record.status in (TaskStatus.CANCELED, TaskStatus.EXPIRED)
            if canceled or (is_ours and record.remote_outcome is None):
                await self._engine.stop(record)
        return await self._engine.view(await self._engine.load(self._origin, record.id))

    async def delete(self, task_id: str) -> Task:
        """Cancel a task if it runs, and delete it here and remotely. Repeating it gives the first answer.

        Raises:
            TaskNotFound: there is no such task.
        """
        record = await self._engine.load(self._origin, task_id, deleted=True, to_change=True)
        if not record.is_deleted:
            await self.cancel(record.id)
            record = await self._engine.load(self._origin, record.id)
            await self._engine.delete_remote(record)
            await self._engine.ledger.write(writing.bury, record.id)
        return await self._engine.view(await self._engine.load(self._origin, record.id, deleted=True))


def _is_held(record: TaskRecord) -> bool:
    """Whether there is nothing to wait for. Of a task that has just expired the remote is still to be told."""
    if record.status is TaskStatus.EXPIRED:
        return record.remote_outcome is not None
    return record.status.is_terminal or record.status is TaskStatus.PAUSED


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
