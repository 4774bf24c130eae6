"""Following a round: send it once, and when the reply is lost, look it up instead of sending it again."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import anyio

from agentlin_bridge.delegation.ledger import writing
from agentlin_bridge.delegation.ledger.ledger import Ledger
from agentlin_bridge.delegation.ledger.records import RoundKind, RoundRecord, RoundState, TaskRecord
from agentlin_bridge.delegation.limits import Limits
from agentlin_bridge.delegation.watching import ProgressBoard
from agentlin_bridge.errors import (
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


_SAYS_NOTHING = (None, 408, 502, 503, 504)
"""HTTP statuses, or none at all, that do not tell whether the remote ever had the request."""


def _is_over(remote: TaskObject) -> bool:
    return remote.status is not None and (remote.status.is_terminal or remote.status is TaskStatus.INPUT_REQUIRED)


class _Pauses:
    """Growing pauses between looks, up to `longest` seconds."""

    def __init__(self, longest: float) -> None:
        self._next = 0.1
        self._longest = longest

    async def pause(self) -> None:
        await anyio.sleep(self._next)
        self._next = min(self._next * 1.6, self._longest)


class Superseded(Exception):
    """Another process has taken the round over; load it again."""


class RoundFollower:
    """Brings a claimed round to its end on one backend.

    Nothing here decides what the end means for the task.
    """

    def __init__(self, backend: TaskBackend, ledger: Ledger, limits: Limits, board: ProgressBoard) -> None:
        self._board = board
        self._backend = backend
        self._ledger = ledger
        self._limits = limits
        self._sent: set[str] = set()

    async def follow(self, task: TaskRecord, round_: RoundRecord) -> TaskObject:
        """The remote task at the end of the round: terminal or input-required.

        Raises:
            RemoteError: the round cannot be brought to an end; the message says why.
        """
        ours = round_.owner == self._ledger.instance
        if round_.state is RoundState.CLAIMED and ours and round_.remote_id not in self._sent:
            remote = await self._send(task, round_)
        else:
            remote = None
        while remote is None:
            # Each turn either ends the round, or finds that it never started and is sent again.
            remote = await self._look_up(task, round_)
            if remote is None:
                round_ = await self._take_over(task, round_)
                remote = await self._send(task, round_)
        return remote

    async def _send(self, task: TaskRecord, round_: RoundRecord) -> TaskObject | None:
        """Send the round; None if it has to be looked up."""
        self._sent.add(round_.remote_id)
        await self._ledger.write(writing.mark_sending, task.id)
        pauses = _Pauses(longest=10)
        tries = 0
        while True:
            try:
                remote = await self._request(task, round_)
            except RemoteUnavailable:
                tries += 1
                # A task that has come further is worth waiting for; its deadline ends the wait.
                if round_.seq == 1 and tries >= FIRST_TRIES:
                    raise
                await pauses.pause()
            except (ReplyLost, RemoteProtocolError) as error:
                logger.info("round %d of %s: %s", round_.seq, task.id, error.message)
                found = await self._look_up(task, round_)
                if found is None and error.status not in _SAYS_NOTHING:
                    raise
                return found
            else:
                await self._ledger.write(writing.mark_seen, task.id, round_.seq, remote)
                return remote if _is_over(remote) else await self._look_up(task, round_, remote_id=remote.id)

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
        pauses = _Pauses(longest=2)
        while True:
            try:
                remote = await self._backend.retrieve(remote_id or round_.remote_id)
            except RemoteNotFound as error:
                if time.monotonic() - began >= self._limits.settle:
                    if not seen:
                        return None
                    raise RemoteNotFound(
                        f"The remote no longer knows the remote task {round_.remote_id}: it was probably restarted "
                        "and keeps its tasks in memory.",
                        next_step="create the task again",
                        remote_code=error.remote_code,
                    ) from error
            except (RemoteUnavailable, ReplyLost, RemoteProtocolError) as error:
                logger.info("looking up %s: %s", round_.remote_id, error.message)
            else:
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
        if not (task.stream and self._backend.dies_with_its_stream):
            return False
        return round_.owner == self._ledger.instance or not await self._ledger.is_alive(round_.owner)

    async def _take_over(self, task: TaskRecord, round_: RoundRecord) -> RoundRecord:
        if round_.attempt >= SENDS:
            raise ReplyLost(
                f"The request was sent {round_.attempt} times, and each time the remote turned out not to have it.",
                next_step="check the remote, then create the task again",
            )
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
