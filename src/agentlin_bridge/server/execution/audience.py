"""Those who listen to tasks, and how they are told."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from agentlin_bridge.server.execution.feed import Feed, Feeds, Happening, stored_since
from agentlin_bridge.server.records.snapshot import RESTING, row_of
from agentlin_bridge.server.records.store import Store
from agentlin_bridge.task import TaskObject


class Audience:
    """The listeners of one process.

    Attributes:
        feeds: what they listen to.
    """

    def __init__(self, store: Store) -> None:
        self.feeds = Feeds()
        self._store = store

    async def tell(self, task_id: str, rest: bool, task: TaskObject | None = None) -> None:
        """Something about a task was stored: with `rest` its round may be over, and `task` is how it is now."""
        feed = self.feeds.get(task_id)
        if feed is None:
            return
        feed.task = task
        if feed.listeners:
            feed.tell(await self._stored(task_id, feed.last))
        feed.wake(rest=rest)

    async def follow(self, task_id: str, after: int) -> AsyncGenerator[Happening, None]:
        """What happened to a task after the event of a number, and what happens until its round is over."""
        with self.feeds.using(task_id) as feed, feed.listening() as position:
            async with aclosing(self.listen(feed, position, after, missed=True)) as happenings:
                async for happening in happenings:
                    yield happening

    async def listen(
        self, feed: Feed, position: int, last: int = 0, *, missed: bool = False
    ) -> AsyncGenerator[Happening, None]:
        """What is told after a position, until the round is over; see `Feed.listening`.

        Args:
            last: number of the event that the listener heard last.
            missed: whether there may be more that was stored and not told.
        """
        while True:
            if missed:
                for happening in await self._stored(feed.task_id, last):
                    yield happening
                    last = happening.number
                feed.last = max(feed.last, last)
                if feed.gone or await self._rests(feed.task_id, last):
                    return
            news = feed.news
            missed = position < feed.dropped
            position = max(position, feed.dropped)
            while position - feed.dropped < len(feed.told) and not missed:
                happening = feed.told[position - feed.dropped]
                missed = happening.number > last + happening.is_stored
                position += not missed
                if not missed and happening.number == last + happening.is_stored:
                    yield happening
                    last = happening.number
                    if happening.rests:
                        return
                    missed = position < feed.dropped
            missed = missed or feed.last > last
            if not missed:
                if feed.gone:
                    return
                await news.wait()

    async def _stored(self, task_id: str, after: int) -> list[Happening]:
        return await self._store.read(partial(stored_since, task_id=task_id, after=after))

    async def _rests(self, task_id: str, last: int) -> bool:
        """Whether nothing happens to a task after the event of a number, until somebody does something."""
        row = await self._store.read(partial(row_of, task_id=task_id))
        return row is None or (row.status in RESTING and row.told <= last)
