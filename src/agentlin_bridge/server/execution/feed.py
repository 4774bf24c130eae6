"""What happens to a task, told to everybody who listens.

Whole items and status changes are stored, and numbered 1, 2, 3... per task. Pieces of text are only told: each
carries the number of what was stored before it, so that a listener who comes back asks for what it lacks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import anyio
from sqlalchemy import Connection, Row, select

from agentlin_bridge.server.records.schema import events
from agentlin_bridge.server.records.snapshot import RESTING, items_of, row_of, task_object
from agentlin_bridge.task import TaskObject, TaskStatus

KEPT = 4096
"""Happenings that a feed keeps for listeners that lag behind. One that lags further finds what was stored."""

_NAMES = {status: f"task.{status.value.replace('-', '_')}" for status in TaskStatus}


@dataclass(frozen=True)
class Happening:
    """One thing that happened to a task.

    Attributes:
        number: of the stored event; a piece of text has that of the event before it.
        event: under Agentlin's names, in JSON.
    """

    number: int
    event: dict[str, Any]

    @cached_property
    def encoded(self) -> bytes:
        """The event as JSON text, made once for all listeners."""
        return json.dumps(self.event, ensure_ascii=False, separators=(",", ":")).encode()

    @property
    def is_stored(self) -> bool:
        """Whether it can be asked for again."""
        return not self.event["type"].endswith((".delta", ".added"))

    @property
    def rests(self) -> bool:
        """Whether the round is over with it."""
        return self.event["type"] in _RESTS


_RESTS = frozenset(_NAMES[status] for status in RESTING)


def stored_since(connection: Connection, task_id: str, after: int) -> list[Happening]:
    """What was stored about a task after a number."""
    row = row_of(connection, task_id)
    if row is None:
        return []
    rows = connection.execute(
        select(events).where(events.c.task_id == task_id, events.c.number > after).order_by(events.c.number)
    ).all()
    told = []
    for event in rows:
        if event.item is not None:
            told.append(_item_event(event))
            continue
        task = None
        if event.status == TaskStatus.CREATED:
            task = task_object(_as_of(event, row, usage=None, tool_calls=0), [])
        elif event.status in RESTING:
            if event.number != row.told:
                task = task_object(_as_of(event, row), _items_before(connection, event))
            else:
                task = task_object(row, [item for _, item in items_of(connection, [task_id])[task_id]])
        told.append(_status_event(event, task))
    return told


def _as_of(event: Row[Any], row: Row[Any], **values: Any) -> Any:
    """The row as it was at a status event, as far as it is known."""
    ended = TaskStatus(event.status).is_terminal
    then = {"status": event.status, "continued_by": None, **({} if ended else {"error": None}), **values}
    return SimpleNamespace(**{**row._mapping, **then})


def _items_before(connection: Connection, event: Row[Any]) -> list[dict[str, Any]]:
    earlier = events.c.task_id == event.task_id, events.c.number < event.number, events.c.item.is_not(None)
    return list(connection.execute(select(events.c.item).where(*earlier).order_by(events.c.number)).scalars())


def _item_event(event: Row[Any]) -> Happening:
    fields = {"item": event.item, **({"agent_step": event.step} if event.step else {})}
    return Happening(event.number, _named("task.output_item.done", event.task_id, event.number, **fields))


def _status_event(event: Row[Any], task: TaskObject | None) -> Happening:
    fields: dict[str, Any] = {"timestamp": datetime.fromtimestamp(event.at, UTC).isoformat(timespec="milliseconds")}
    if task is not None:
        shown = task.model_dump(mode="json", exclude_none=True)
        shown["created_at"] = int(task.created_at)
        fields["task"] = shown
        if event.status == TaskStatus.INPUT_REQUIRED:
            fields["input_required_call_ids"] = task.input_required_call_ids or []
        if event.status == TaskStatus.FAILED:
            fields["error"] = shown.get("error")
    return Happening(event.number, _named(_NAMES[TaskStatus(event.status)], event.task_id, event.number, **fields))


def _named(kind: str, task_id: str, number: int, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "task_id": task_id, "sequence_number": number - 1, **fields}


@dataclass(eq=False)
class Feed:
    """What is told about one task while somebody waits for it or listens. Belongs to one event loop.

    Attributes:
        told: since the first of the present listeners came, but for the oldest of very many.
        dropped: how many were told before the first in `told`.
        last: number of the newest stored event that was told.
        gone: nothing more will be told: the task is gone, or the server leaves.
        news: set when there is something to look at; then another takes its place.
        rest: likewise, when the round may be over.
        task: how the task was when its round was found to be over.
    """

    task_id: str
    last: int = 0
    told: list[Happening] = field(default_factory=list)
    dropped: int = 0
    task: TaskObject | None = None
    gone: bool = False
    users: int = 0
    listeners: int = 0
    news: anyio.Event = field(default_factory=anyio.Event)
    rest: anyio.Event = field(default_factory=anyio.Event)

    def tell(self, happenings: Sequence[Happening]) -> None:
        """Tell what was stored; what was told before is not told again."""
        for happening in happenings:
            if happening.number > self.last:
                self.last = happening.number
                self._keep(happening)

    def say(self, kind: str, **fields: Any) -> None:
        """Tell something that is not stored, if anybody listens."""
        if self.listeners:
            self._keep(Happening(self.last, _named(kind, self.task_id, self.last, **fields)))
            self.wake()

    def _keep(self, happening: Happening) -> None:
        self.told.append(happening)
        if len(self.told) > KEPT:
            self._drop(KEPT // 2)

    def _drop(self, count: int) -> None:
        del self.told[:count]
        self.dropped += count

    def wake(self, *, rest: bool = False) -> None:
        """Let listeners look again, and with `rest` those who wait for the end of the round as well."""
        news, self.news = self.news, anyio.Event()
        news.set()
        if rest:
            ended, self.rest = self.rest, anyio.Event()
            ended.set()

    @contextmanager
    def listening(self) -> Iterator[int]:
        """Be told everything from here on; the value is how much was told before."""
        self.listeners += 1
        try:
            yield self.dropped + len(self.told)
        finally:
            self.listeners -= 1
            if not self.listeners:
                self._drop(len(self.told))


class Feeds:
    """The feeds in use."""

    def __init__(self) -> None:
        self._feeds: dict[str, Feed] = {}

    def get(self, task_id: str) -> Feed | None:
        """The feed of a task, if it is in use."""
        return self._feeds.get(task_id)

    def all(self) -> list[Feed]:
        """All feeds in use."""
        return list(self._feeds.values())

    def close(self, task_id: str) -> None:
        """Nothing more will be told of a task."""
        feed = self._feeds.get(task_id)
        if feed is not None:
            feed.gone = True
            feed.wake(rest=True)

    @contextmanager
    def using(self, task_id: str) -> Iterator[Feed]:
        """Keep the feed of a task in use."""
        feed = self._feeds.setdefault(task_id, Feed(task_id))
        feed.users += 1
        try:
            yield feed
        finally:
            feed.users -= 1
            if not feed.users and self._feeds.get(task_id) is feed:
                del self._feeds[task_id]
