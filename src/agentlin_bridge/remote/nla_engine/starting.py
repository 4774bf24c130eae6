"""Starting a run, once. What has no answer is looked for in the list, and never sent again.

The engine gives its tasks ids of its own, and a second request is a second run, and billed. So a run whose
start got no answer can only be recognised: by the mark in its callback, if it has one; or as the only task
that the list shows now and did not show before, provided that nobody here started another one meanwhile.
"""

from __future__ import annotations

import logging
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

import anyio

from agentlin_bridge.errors import (
    RemoteError,
    RemoteNotFound,
    RemoteProtocolError,
    RemoteRefused,
    RemoteUnavailable,
    ReplyLost,
)
from agentlin_bridge.remote.nla_engine.options import Run
from agentlin_bridge.remote.nla_engine.pace import Pace
from agentlin_bridge.remote.nla_engine.reading import task_id_of
from agentlin_bridge.remote.nla_engine.transport import Transport

logger = logging.getLogger(__name__)

REMEMBERED = 10_000
"""So many starts are remembered, the last ones."""

_LOOK_YOURSELF = "look into NLA Engine's list of tasks, and create the task again if it is not there"
_OUR_ID = re.compile(r"task_[0-9a-f]{32}")

Listing = Callable[[], Awaitable[Sequence[Mapping[str, Any]]]]
"""Asks for all tasks."""


@dataclass(slots=True)
class _Start:
    """A start, as far as it has come.

    `sought` is one that another process sent, or this one before it was interrupted. From the time `ended` on,
    its run is in the list, if there is one.
    """

    state: Literal["sending", "unsent", "sought", "started", "unknown"]
    agent_id: str = ""
    began: float = 0.0
    ended: float | None = None
    remote_id: str = ""
    next_look: float = 0.0
    error: RemoteError | None = None

    @property
    def was_sent(self) -> bool:
        """Whether this process has sent it, and it was not refused."""
        return bool(self.agent_id) and self.state != "unsent"


class Starter:
    """Starts runs, and knows which of our ids is which of the engine's.

    Args:
        transport: sends them.
        listing: asks for all tasks.
        pace: for how long and how often a lost one is looked for.
        compares: whether the list is read before each start that has no mark, to be compared with later.
    """

    def __init__(self, transport: Transport, listing: Listing, pace: Pace, *, compares: bool) -> None:
        self._transport = transport
        self._listing = listing
        self._pace = pace
        self._compares = compares
        self._starts: OrderedDict[str, _Start] = OrderedDict()

    async def start(self, our_id: str, run: Run) -> Mapping[str, Any]:
        """Start a run and return its task.

        Args:
            our_id: by which `remote_id` knows it from now on.
            run: what to run; its callback is marked with our id, or not at all.

        Raises:
            RemoteUnavailable: nothing was sent, or it was turned away.
            RemoteError: it was refused; or nobody can tell whether it runs.
        """
        earlier = self._starts.get(our_id)
        if earlier is not None and earlier.was_sent:
            raise RemoteError(
                f"The start of {our_id} was sent before, and is not sent again.", next_step="retrieve the task"
            )
        start = self._remember(our_id, _Start("sending", run.agent_id, time.monotonic()))
        is_marked = run.callback is not None and run.callback.endswith(f"#{our_id}")
        is_sent = False
        try:
            before = None if is_marked or not self._compares else await self._ids()
            is_sent = True
            start.began = time.monotonic()
            try:
                task = await self._send(run)
            except (ReplyLost, RemoteProtocolError) as lost:
                logger.info("the start of %s: %s", our_id, lost.message)
                task = await self._found_again(our_id, start, before, is_marked=is_marked, lost=lost)
            start.state, start.remote_id = "started", str(task_id_of(task))
            return task
        except RemoteError:
            if start.error is None:
                # Refused: nothing runs.
                start.state = "unsent"
            raise
        finally:
            start.ended = time.monotonic()
            if start.state == "sending":
                # Interrupted: the run, if there is one, may show a little later.
                start.state = "sought" if is_sent else "unsent"
                start.ended += self._pace.settle

    async def remote_id(self, given: str) -> str:
        """The engine's id of a task, given ours or its own.

        Raises:
            RemoteNotFound: it is not there yet, or was refused.
            ReplyLost: it is still looked for.
            RemoteError: nobody can tell whether it runs.
        """
        start = self._starts.get(given)
        if start is None:
            if not _OUR_ID.fullmatch(given):
                return given
            start = self._remember(given, _Start("sought", began=time.monotonic()))
        if start.state == "sought":
            await self._look_for(given, start)
        if start.state == "started":
            return start.remote_id
        if start.error is not None:
            raise RemoteError(start.error.message, next_step=start.error.next_step, status=start.error.status)
        raise RemoteNotFound(f"NLA Engine has not been given the task {given}.", next_step="create the task again")

    def known_id(self, given: str) -> str:
        """The engine's id of a task as far as it is known; nothing is asked."""
        start = self._starts.get(given)
        return start.remote_id if start is not None and start.remote_id else given

    async def _send(self, run: Run) -> Mapping[str, Any]:
        path = f"/workflow/{quote(run.agent_id, safe='')}"
        task = await self._transport.send("POST", path, what=f"agent {run.agent_id!r}", body=run.body)
        if task_id_of(task) is None:
            raise RemoteProtocolError(
                "NLA Engine answered the start of a run with something that is no task.",
                next_step="check that NLA_ENGINE_BASE_URL is the address before /api/v1",
            )
        found: Mapping[str, Any] = task
        return found

    async def _ids(self) -> set[str] | None:
        """What the list shows before a start; None if it cannot be told."""
        try:
            return {task_id for raw in await self._listing() if (task_id := task_id_of(raw)) is not None}
        except (RemoteUnavailable, RemoteRefused):
            # The start would meet the same, and nothing has been sent so far.
            raise
        except RemoteError as error:
            logger.info("the list before a start: %s", error.message)
            return None

    async def _found_again(
        self, our_id: str, start: _Start, before: set[str] | None, *, is_marked: bool, lost: RemoteError
    ) -> Mapping[str, Any]:
        candidates: Sequence[Mapping[str, Any]] | None = None
        until = time.monotonic() + self._pace.settle
        while is_marked or before is not None:
            try:
                listed = await self._listing()
            except RemoteError as error:
                logger.info("looking for %s: %s", our_id, error.message)
            else:
                if (marked := _marked(listed, our_id)) is not None:
                    return marked
                candidates = [] if before is None else self._candidates(listed, start, before)
            # Without a mark, another one may turn up until the end: only then is the one found the only one.
            if time.monotonic() >= until:
                break
            await anyio.sleep(self._pace.first)
        if candidates and len(candidates) == 1 and not self._rivals(start, candidates[0]):
            return candidates[0]
        start.state, start.error = "unknown", _unknown(start.agent_id, lost, candidates)
        raise start.error from lost

    def _candidates(
        self, listed: Sequence[Mapping[str, Any]], start: _Start, before: set[str]
    ) -> Sequence[Mapping[str, Any]]:
        taken = before | {other.remote_id for other in self._starts.values() if other.state == "started"}
        return [
            raw
            for raw in listed
            if task_id_of(raw) not in {*taken, None}
            and raw.get("agentId") in (None, start.agent_id)
            and not raw.get("callback")
        ]

    def _rivals(self, start: _Start, candidate: Mapping[str, Any]) -> bool:
        """Whether the candidate may be of another start of ours that got no answer."""
        return any(
            other is not start
            and other.state in ("sending", "sought", "unknown")
            and (other.ended is None or other.ended >= start.began)
            and (other.agent_id in ("", start.agent_id) or candidate.get("agentId") is None)
            for other in self._starts.values()
        )

    async def _look_for(self, our_id: str, start: _Start) -> None:
        """Look for the mark of a start whose outcome this process does not know."""
        now = time.monotonic()
        if now >= start.next_look:
            start.next_look = now + self._pace.first
            if (marked := _marked(await self._listing(), our_id)) is not None:
                start.state, start.remote_id = "started", str(task_id_of(marked))
                return
        if now - start.began >= self._pace.settle:
            start.ended = start.ended or now
            raise RemoteError(
                f"NLA Engine gives its tasks ids of its own, and its list shows none marked with {our_id}. "
                "Whether it was started there is unknown; it is not sent again, because a second run would be "
                "billed, too.",
                next_step=_LOOK_YOURSELF,
            )
        raise ReplyLost(
            f"NLA Engine's list shows no task marked with {our_id} so far.", next_step="retrieve it again in a moment"
        )

    def _remember(self, our_id: str, start: _Start) -> _Start:
        self._starts[our_id] = start
        self._starts.move_to_end(our_id)
        while len(self._starts) > REMEMBERED:
            self._starts.popitem(last=False)
        return start


def _marked(listed: Sequence[Mapping[str, Any]], our_id: str) -> Mapping[str, Any] | None:
    for raw in listed:
        callback = raw.get("callback")
        if isinstance(callback, str) and callback.endswith(f"#{our_id}") and task_id_of(raw) is not None:
            return raw
    return None


def _unknown(agent_id: str, lost: RemoteError, candidates: Sequence[Any] | None) -> RemoteError:
    if candidates is None:
        shows = "and there is no list to find it by"
    elif not candidates:
        shows = "and its list shows no new task"
    else:
        shows = f"and nothing tells which of the new tasks in its list it could be ({len(candidates)} found)"
    return RemoteError(
        f"Whether NLA Engine runs the agent {agent_id!r} for this task is unknown: "
        f"{lost.message.rstrip('.')}; {shows}. It is not sent again, because a second run would be billed, too.",
        next_step=_LOOK_YOURSELF,
        status=lost.status,
    )
