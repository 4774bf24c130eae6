"""Following a round: send it once, and when the reply is lost, look it up instead of sending it again."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import anyio

from agentlin_bridge.delegation.ledger import reading, writing
from agentlin_bridge.delegation.ledger.ledger import Ledger
from agentlin_bridge.delegation.ledger.records import RoundKind, RoundRecord, RoundState, TaskRecord
from agentlin_bridge.delegation.limits import Limits
from agentlin_bridge.delegation.watching import ProgressBoard
from agentlin_bridge.errors import (
    RemoteError,
    RemoteNotFound,
    RemoteProtocolError,
    RemoteUnavailable,
    ReplyLost,
)
from agentlin_bridge.remote.backend import Continuation, ContinuationKind, PastRound, StartRequest, TaskBackend
from agentlin_bridge.task import ContentItem, MessageItem, TaskObject, TaskStatus

logger = logging.getLogger(__name__)

FIRST_TRIES = 3
"""How often a first round is sent to a remote that cannot be reached, before its task fails."""

SENDS = 3
"""How often a round is sent that the remote, each time, turned out not to have."""

LOOK_INTERVAL = 30.0
"""Seconds between looks at a round while its request is open: a connection can die without a sign."""

_SAYS_NOTHING = (None, 408, 502, 503, 504)
"""HTTP statuses, or none at all, that do not tell whether the remote ever had the request."""


def _is_over(remote: TaskObject) -> bool:
    return remote.status is not None and (remote.status.is_terminal or remote.status is TaskStatus.INPUT_REQUIRED)


def _rounds_at_once() -> int:
    """How many requests may be open: half of the files this process may have."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return 200
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1000 if soft < 0 else max(8, min(1000, soft // 2))


class _Pauses:
    """Growing pauses between looks, up to `longest` seconds."""

    def __init__(self, longest: float) -> None:
        self._next = 0.1
        self._longest = longest

    async def pause(self) -> None:
        await anyio.sleep(self._next)
        self._next = min(self._next * 1.6, self._longest)


class Superseded(Exception):
    """The round is no longer ours to send, or never was; load it again."""


class RoundFollower:
    """Brings a claimed round to its end on one backend.

    Nothing here decides what the end means for the task.
    """

    def __init__(self, backend: TaskBackend, ledger: Ledger, limits: Limits, board: ProgressBoard) -> None:
        self._backend = backend
        self._ledger = ledger
        self._limits = limits
        self._board = board
        self._sent: set[str] = set()
        self._open = anyio.CapacityLimiter(_rounds_at_once())

    async def follow(self, task: TaskRecord, round_: RoundRecord) -> TaskObject:
        """The remote task at the end of the round: terminal or input-required.

        Raises:
            RemoteError: the round cannot be brought to an end; the message says why.
            Superseded: somebody else is at it.
        """
        remote = None
        if round_.state is RoundState.CLAIMED and self._is_ours(round_) and round_.remote_id not in self._sent:
            remote = await self._send(task, round_)
        elif (unsent := await self._taken_over_unsent(task, round_)) is not None:
            round_ = unsent
            remote = await self._send(task, round_)
        while remote is None:
            # Each turn either ends the round, or finds that it never started and is sent again.
            remote = await self._look_up(task, round_)
            if remote is None:
                round_ = await self._take_over(task, round_)
                remote = await self._send(task, round_)
        self._sent.discard(round_.remote_id)
        return remote

    async def _taken_over_unsent(self, task: TaskRecord, round_: RoundRecord) -> RoundRecord | None:
        """A first round that was written down and never sent, now ours to send; None if that is not certain."""
        if task.status is not TaskStatus.CREATED or round_.state is not RoundState.CLAIMED:
            return None
        if await self.is_in_other_hands(round_):
            return None
        ours = await self._claim_again(task, round_)
        # A task is `created` until a request of it is about to leave, and nobody but us can have one leave by now.
        now = await self._ledger.read(reading.load, task.id)
        return ours if now is not None and now.status is TaskStatus.CREATED else None

    async def last_look(self, round_: RoundRecord) -> TaskObject | None:
        """The remote task if it has ended its round after all; asked before a round expires."""
        try:
            with anyio.fail_after(5):
                remote = await self._backend.retrieve(round_.remote_id)
        except (RemoteError, TimeoutError) as error:
            logger.info("a last look at %s: %s", round_.remote_id, error)
            return None
        return remote if _is_over(remote) else None

    def _is_ours(self, round_: RoundRecord) -> bool:
        return round_.owner == self._ledger.instance

    async def is_in_other_hands(self, round_: RoundRecord) -> bool:
        """Whether a living process other than this one is responsible for the round."""
        return not self._is_ours(round_) and await self._ledger.is_alive(round_.owner)

    async def _send(self, task: TaskRecord, round_: RoundRecord) -> TaskObject | None:
        """Send the round; None if it has to be looked up."""
        self._sent.add(round_.remote_id)
        pauses = _Pauses(longest=10)
        tries = 0
        while True:
            await self._check_still_ours(task, round_)
            try:
                remote = await self._requested(task, round_)
            except RemoteUnavailable as error:
                tries += 1
                # A task that has come further is worth waiting for, and so is a remote that says it is busy;
                # the deadline ends the wait.
                if round_.seq == 1 and error.status is None and tries >= FIRST_TRIES:
                    raise
                await pauses.pause()
            except (ReplyLost, RemoteProtocolError) as error:
                logger.info("round %d of %s: %s", round_.seq, task.id, error.message)
                found = await self._look_up(task, round_, remote_id=await self._told_id(task, round_, error))
                if found is None and error.status not in _SAYS_NOTHING:
                    raise
                return found
            else:
                await self._ledger.write(writing.mark_seen, task.id, round_.seq, remote)
                return remote if _is_over(remote) else await self._look_up(task, round_, remote_id=remote.id)

    async def _check_still_ours(self, task: TaskRecord, round_: RoundRecord) -> None:
        instance = self._ledger.instance
        if not await self._ledger.write(writing.mark_sending, task.id, round_.seq, fence=round_.fence, owner=instance):
            raise Superseded

    async def _told_id(self, task: TaskRecord, round_: RoundRecord, error: RemoteError) -> str | None:
        """The id of its own choice that the remote told before the reply was lost; it is adopted."""
        theirs = error.remote_id if isinstance(error, ReplyLost) else None
        if theirs is None or theirs == round_.remote_id:
            return None
        await self._ledger.write(writing.mark_seen, task.id, round_.seq, TaskObject(id=theirs))
        return theirs

    async def _requested(self, task: TaskRecord, round_: RoundRecord) -> TaskObject:
        """The round's answer; or what a look at the remote task shows while the request says nothing."""
        ended: list[TaskObject] = []
        failed: list[Exception] = []
        async with self._open, anyio.create_task_group() as group:

            async def request() -> None:
                try:
                    ended.append(await self._request(task, round_))
                except Exception as error:
                    failed.append(error)
                group.cancel_scope.cancel()

            async def look() -> None:
                while not ended:
                    await anyio.sleep(LOOK_INTERVAL)
                    if (remote := await self.last_look(round_)) is not None:
                        ended.append(remote)
                group.cancel_scope.cancel()

            group.start_soon(request)
            group.start_soon(look)
        if ended:
            return ended[0]
        raise failed[0]

    async def _request(self, task: TaskRecord, round_: RoundRecord) -> TaskObject:
        listener = self._board.listener(task.id)
        if round_.kind is RoundKind.START:
            return await self._backend.start(_start_request(task, round_), listener=listener)
        return await self._backend.proceed(_continuation(task, round_), listener=listener)

    async def _look_up(
        self, task: TaskRecord, round_: RoundRecord, *, remote_id: str | None = None
    ) -> TaskObject | None:
        """Poll the remote task to its end; None once it is clear that the remote never had it."""
        seen = remote_id is not None or round_.state is not RoundState.CLAIMED
        began = time.monotonic()
        missing_since: float | None = None
        pauses = _Pauses(longest=2)
        while True:
            try:
                remote = await self._backend.retrieve(remote_id or round_.remote_id)
            except RemoteNotFound as error:
                missing_since = time.monotonic() if missing_since is None else missing_since
                if time.monotonic() - missing_since >= self._limits.settle:
                    if not seen:
                        return None
                    raise RemoteNotFound(
                        f"The remote no longer knows the remote task {round_.remote_id}: somebody deleted it there, or "
                        "the remote was restarted and had kept it in memory only.",
                        next_step="create the task again",
                        remote_code=error.remote_code,
                    ) from error
            except (RemoteUnavailable, ReplyLost, RemoteProtocolError) as error:
                missing_since = None
                logger.info("looking up %s: %s", round_.remote_id, error.message)
            else:
                missing_since = None
                if not seen:
                    await self._ledger.write(writing.mark_seen, task.id, round_.seq, remote)
                    seen = True
                if _is_over(remote):
                    return remote
                if time.monotonic() - began >= self._limits.settle and await self._died_with_its_stream(task, round_):
                    raise RemoteNotFound(
                        f"The event stream of the remote task {round_.remote_id} was lost, and the run with it.",
                        next_step="create the task again",
                    )
            await pauses.pause()

    async def _died_with_its_stream(self, task: TaskRecord, round_: RoundRecord) -> bool:
        if not task.stream or await self.is_in_other_hands(round_):
            return False
        return await self._backend.dies_with_its_stream()

    async def _take_over(self, task: TaskRecord, round_: RoundRecord) -> RoundRecord:
        if await self.is_in_other_hands(round_):
            # Its owner lives, and may be about to send it.
            raise Superseded
        if round_.attempt >= SENDS:
            raise ReplyLost(
                f"The request was sent {round_.attempt} times, and each time the remote turned out not to have it.",
                next_step="check the remote, then create the task again",
            )
        return await self._claim_again(task, round_)

    async def _claim_again(self, task: TaskRecord, round_: RoundRecord) -> RoundRecord:
        mine = await self._ledger.write(
            writing.take_over, task.id, round_.seq, fence=round_.fence, owner=self._ledger.instance
        )
        if not mine:
            raise Superseded
        return replace(round_, owner=self._ledger.instance, fence=round_.fence + 1, attempt=round_.attempt + 1)


def _start_request(task: TaskRecord, round_: RoundRecord) -> StartRequest:
    return StartRequest(
        remote_id=round_.remote_id,
        session_id=round_.session_id,
        user_id=task.user_id,
        content=_said(task),
        client_tools=task.client_tools or [],
        previous_remote_id=task.previous_remote_id,
        output_schema=task.output_schema,
        options=task.options,
        stream=task.stream,
    )


def _continuation(task: TaskRecord, round_: RoundRecord) -> Continuation:
    kinds: dict[RoundKind, ContinuationKind] = {RoundKind.NUDGE: "nudge", RoundKind.REPLAY: "replay"}
    earlier = [before for before in task.rounds if before.seq < round_.seq]
    return Continuation(
        kind=kinds.get(round_.kind, "results"),
        remote_id=round_.remote_id,
        session_id=round_.session_id,
        user_id=task.user_id,
        previous_remote_id=earlier[-1].remote_id,
        history=[_past(before) for before in earlier if before.status is TaskStatus.INPUT_REQUIRED],
        content=_said(task),
        client_tools=task.client_tools or [],
        output_schema=task.output_schema,
        options=task.options,
        stream=task.stream,
    )


def _said(task: TaskRecord) -> list[ContentItem]:
    content: list[ContentItem] = MessageItem.model_validate({"message_content": task.content}).message_content
    return content


def _past(round_: RoundRecord) -> PastRound:
    output = TaskObject.model_validate({"id": round_.remote_id, "output": round_.output}).output
    results = [call.result.to_item(call.call_id) for call in round_.calls if call.result is not None]
    return PastRound(output, results)
