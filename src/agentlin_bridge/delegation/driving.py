"""Carrying a task on: follow the round, answer its calls, claim and send the next, until there is an answer
or the host has to act.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping

import anyio
import anyio.lowlevel
import stamina

from agentlin_bridge.delegation.answering import execute, refusal
from agentlin_bridge.delegation.client_tools import ClientTool
from agentlin_bridge.delegation.following import RoundFollower, Superseded
from agentlin_bridge.delegation.ledger import reading, writing
from agentlin_bridge.delegation.ledger.ledger import Ledger
from agentlin_bridge.delegation.ledger.records import (
    ApprovalState,
    CallRecord,
    CallState,
    NextRound,
    RoundKind,
    RoundRecord,
    RoundState,
    TaskRecord,
)
from agentlin_bridge.delegation.limits import Limits
from agentlin_bridge.delegation.outcome import error_of, outcome_of
from agentlin_bridge.delegation.requests import new_id
from agentlin_bridge.delegation.watching import ProgressBoard
from agentlin_bridge.errors import SERVER_ERROR, LedgerError, RemoteError, RemoteNotFound
from agentlin_bridge.remote.backend import TaskBackend
from agentlin_bridge.task import (
    JsonrpcError,
    RemoteOutcome,
    TaskObject,
    TaskStatus,
    TextContentItem,
    ToolCallItem,
    ToolResult,
)

logger = logging.getLogger(__name__)

MOST_REPAIRS = 6
"""Rounds of one task that may make up for failed ones."""

_persistently = stamina.AsyncRetryingCaller(attempts=4, timeout=30, wait_initial=0.2, wait_max=5).on(LedgerError)

Tools = Callable[[str], Mapping[str, ClientTool]]
"""The client tools bound to a task in this process, by name."""

Equip = Callable[[TaskRecord, CallRecord], Awaitable[None]]
"""Binds the tool of a call, if it is one that the bridge itself runs."""


class TaskDriver:
    """Drives the tasks that one backend has; any number of them at once, each at most once.

    Args:
        backend: runs the rounds.
        ledger: records them.
        limits: bounds on time, size and concurrency.
        board: told how far the rounds are.
        handlers: how many run at once.
        tools: finds the client tools bound to a task.
        equip: called before a call is answered.
        announce: called with a task's id after each change of it.
    """

    def __init__(
        self,
        backend: TaskBackend,
        ledger: Ledger,
        limits: Limits,
        *,
        board: ProgressBoard,
        handlers: anyio.CapacityLimiter,
        tools: Tools,
        equip: Equip,
        announce: Callable[[str], None],
    ) -> None:
        self._backend = backend
        self._ledger = ledger
        self._limits = limits
        self._tools = tools
        self._equip = equip
        self._announce = announce
        self._follower = RoundFollower(backend, ledger, limits, board)
        self._noted: dict[str, str] = {}
        self._executing: set[tuple[str, int, str]] = set()
        self._handlers = handlers

    async def drive(self, task_id: str) -> bool:
        """Carry a task on until it is over or only calls without a handler remain; whether it is over."""
        while True:
            task = await self._ledger.read(reading.load, task_id)
            if task is None or task.status.is_terminal:
                return True
            round_ = task.current
            if round_.state is not RoundState.SETTLED:
                await self._bring_to_end(task, round_)
            elif task.status is TaskStatus.PAUSED:
                return False
            elif time.time() >= task.deadline_at:
                await self.expire(task, "task")
            elif not round_.is_answered:
                if not await self._answer(task, round_):
                    return False
            else:
                await self._ledger.write(
                    writing.claim_continuation, task_id, round_.seq, new_id("task"), owner=self._ledger.instance
                )
            self._announce(task_id)

    async def expire(self, task: TaskRecord, what: str) -> None:
        """End a task whose time is up, and tell the remote."""
        message = f"The {what} did not end within its deadline. Next: create the task again, with a longer deadline."
        error = JsonrpcError(code=SERVER_ERROR, message=message)
        if await self._ledger.write(writing.finish, task.id, TaskStatus.EXPIRED, error):
            # The task being over is what ends its drive; the remote still has to hear of it.
            with anyio.CancelScope(shield=True):
                await self.stop_remote(task)

    async def stop_remote(self, task: TaskRecord) -> None:
        """Cancel the remote run and record what that did. Never raises for the remote's sake."""
        round_ = task.current
        # A request that is still on its way is not known there yet, and would run on.
        on_its_way = time.monotonic() + (min(self._limits.settle, 2) if round_.state is RoundState.CLAIMED else 0)
        outcome: RemoteOutcome = "kept running"
        try:
            with anyio.fail_after(5):
                while True:
                    try:
                        outcome = await self._backend.cancel(round_.remote_id, stream_closed=task.stream)
                        break
                    except RemoteNotFound:
                        if time.monotonic() >= on_its_way:
                            outcome = "stopped"
                            break
                        await anyio.sleep(0.1)
        except (RemoteError, TimeoutError) as error:
            logger.warning("canceling %s remotely: %s", round_.remote_id, error)
        await self._ledger.write(writing.record_outcome, task.id, outcome)

    async def _bring_to_end(self, task: TaskRecord, round_: RoundRecord) -> None:
        now = time.time()
        of_round = round_.claimed_at + self._limits.round_deadline - now
        remote = None
        try:
            with anyio.move_on_after(max(0, min(of_round, task.deadline_at - now))):
                remote = await self._follower.follow(task, round_)
            # Nobody may have looked for a long time, and it may be over.
            remote = remote or await self._follower.last_look(round_)
            if remote is None:
                await self.expire(task, "round" if of_round < task.deadline_at - now else "task")
                return
            if remote.status is TaskStatus.FAILED and await self._repair(task, round_, remote):
                return
            await self._settle(task, round_, remote)
        except Superseded:
            await anyio.lowlevel.checkpoint()
        except RemoteError as error:
            if not (isinstance(error, RemoteNotFound) and await self._repair(task, round_, None)):
                await self._fail(task, round_, error)
        except LedgerError:
            raise
        except Exception as error:
            logger.exception("round %d of %s", round_.seq, task.id)
            what = f"The bridge cannot handle what the remote answered ({type(error).__name__})."
            await self._fail(task, round_, RemoteError(what, next_step="report this; the log has the details"))
        finally:
            with anyio.CancelScope(shield=True):
                await self._keep_notes()

    async def _settle(self, task: TaskRecord, round_: RoundRecord, remote: TaskObject) -> None:
        outcome = outcome_of(task, remote)
        await self._ledger.write(
            writing.settle_round,
            task.id,
            round_.seq,
            remote,
            status=outcome.status,
            answer=outcome.answer,
            error=outcome.error,
            usage=outcome.usage,
        )

    async def _fail(self, task: TaskRecord, round_: RoundRecord, error: RemoteError) -> None:
        if await self._follower.is_in_other_hands(round_):
            # Its owner may see the remote otherwise: with another key, or on its own connection.
            await anyio.sleep(1)
            return
        await self._ledger.write(writing.fail_round, task.id, round_.seq, fence=round_.fence, error=error_of(error))

    async def _repair(self, task: TaskRecord, round_: RoundRecord, failed: TaskObject | None) -> bool:
        """Have the round that makes up for a failed one claimed, by us or somebody else; False if there is none."""
        repairs = [before for before in task.rounds if before.kind in (RoundKind.NUDGE, RoundKind.REPLAY)]
        if not task.content or len(repairs) >= MOST_REPAIRS:
            return False
        since = [before.seq for before in task.rounds if before.status is TaskStatus.INPUT_REQUIRED]
        tried = [before.kind.value for before in task.rounds if before.seq > max(since, default=0)]
        try:
            remedy = await self._backend.remedy(failed, tried)
        except RemoteError as error:
            logger.warning("how to make up for round %d of %s: %s", round_.seq, task.id, error)
            return False
        if remedy is None:
            return False
        logger.info("round %d of %s failed: %s", round_.seq, task.id, remedy)
        session_id = new_id("sess") if remedy == "replay" else round_.session_id
        repair = NextRound(RoundKind(remedy), new_id("task"), session_id)
        await self._ledger.write(
            writing.claim_repair, task.id, round_.seq, repair, failed=failed, owner=self._ledger.instance
        )
        return True

    async def _keep_notes(self) -> None:
        learned = {name: value for name, value in self._backend.notes.items() if self._noted.get(name) != value}
        if learned:
            await self._ledger.write(writing.note, self._backend.name, learned)
            self._noted |= learned

    async def _answer(self, task: TaskRecord, round_: RoundRecord) -> bool:
        """Answer what this process can; whether the round is then answered."""
        async with anyio.create_task_group() as group:
            for call in round_.calls:
                if not call.is_answered:
                    group.start_soon(self._answer_one, task, round_.seq, call)
        now = await self._ledger.read(reading.load, task.id)
        return now is None or now.status.is_terminal or now.current.seq != round_.seq or now.current.is_answered

    async def _answer_one(self, task: TaskRecord, seq: int, call: CallRecord) -> None:
        await self._equip(task, call)
        while not await self._answer_as_it_is(task, seq, call):
            # Another process has started on it meanwhile: it is waited for like one that had before.
            found = await self._call_as_it_is(task.id, seq, call.call_id)
            if found is None:
                return
            call = found

    async def _answer_as_it_is(self, task: TaskRecord, seq: int, call: CallRecord) -> bool:
        """Answer a call, if this process can; False if it is not as it was any more."""
        previous = None
        if call.state is CallState.STARTED:
            await self._until_abandoned(task.id, seq, call)
            previous = call.owner
        elif task.client_tools is not None:
            offered = {tool.name: tool for tool in task.client_tools}
            if refused := refusal(call.name, call.arguments, offered):
                await self._ledger.write(writing.answer_call, task.id, seq, call.call_id, refused)
                return True
        tool = self._tools(task.id).get(call.name)
        if tool is None or tool.handler is None or (previous is not None and not tool.idempotent):
            return True
        if tool.approval == "required" and call.approval is not ApprovalState.GRANTED:
            await self._ledger.write(writing.require_approval, task.id, seq, call.call_id)
            return True
        async with self._handlers:
            key = (task.id, seq, call.call_id)
            # From before it is on record as started until after its result is: see `is_executing`.
            self._executing.add(key)
            try:
                return await self._start_and_run(task.id, seq, call, tool, previous=previous)
            finally:
                self._executing.discard(key)

    async def _call_as_it_is(self, task_id: str, seq: int, call_id: str) -> CallRecord | None:
        """A call of the current round that still has no result."""
        task = await self._ledger.read(reading.load, task_id)
        if task is None or task.status.is_terminal or task.current.seq != seq:
            return None
        return next((call for call in task.current.calls if call.call_id == call_id and not call.is_answered), None)

    async def _start_and_run(
        self, task_id: str, seq: int, call: CallRecord, tool: ClientTool, *, previous: str | None
    ) -> bool:
        mine = await self._ledger.write(
            writing.start_call, task_id, seq, call.call_id, owner=self._ledger.instance, previous=previous
        )
        if not mine:
            return False
        self._announce(task_id)
        item = ToolCallItem(call_id=call.call_id, name=call.name, arguments=call.edited or call.arguments)
        result = await execute(tool, item, self._limits)
        if call.edited is not None:
            # The remote agent believes it called the tool with its own.
            told = TextContentItem(text=f"[The host ran {call.name} with other arguments: {call.edited}]")
            result = ToolResult(content=[told, *result.content], is_error=result.is_error)
        # What has run must not be forgotten because somebody leaves, or the disk is busy, at this moment.
        with anyio.CancelScope(shield=True):
            await _persistently(self._ledger.write, writing.answer_call, task_id, seq, call.call_id, result)
        self._announce(task_id)
        return True

    def is_executing(self, task_id: str, seq: int, call_id: str) -> bool:
        """Whether this process works on a call right now."""
        return (task_id, seq, call_id) in self._executing

    async def _until_abandoned(self, task_id: str, seq: int, call: CallRecord) -> None:
        """Wait while another living process works on a call; return when it has answered, or died."""
        while call.owner not in (None, self._ledger.instance) and await self._ledger.is_alive(str(call.owner)):
            await anyio.sleep(0.5)
            found = await self._call_as_it_is(task_id, seq, call.call_id)
            if found is None:
                return
            call = found
