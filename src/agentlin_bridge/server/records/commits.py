"""Group commit: what waits for the one writer of a SQLite database shares its next commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import anyio
from sqlalchemy import Connection, Engine

T = TypeVar("T")

TOGETHER = 64
"""Pieces of work that share a commit, at most."""


class _Job:
    def __init__(self, work: Callable[[Connection], Any]) -> None:
        self._work = work
        self.done = anyio.Event()
        self.result: Any = None
        self.error: Exception | None = None

    def run(self, connection: Connection) -> None:
        self.result = self._work(connection)

    def run_apart(self, connection: Connection) -> None:
        """Do it so that an error undoes this and nothing that was done before it."""
        connection.exec_driver_sql("SAVEPOINT job")
        try:
            self.run(connection)
        except Exception as error:
            self.error = error
            connection.exec_driver_sql("ROLLBACK TO job")
        connection.exec_driver_sql("RELEASE job")


class GroupCommit:
    """Writes to a database that takes one writer at a time, in a thread of its own. Belongs to one event loop.

    While the thread writes, what comes waits, and is then done in the order it came and with one commit. The thread
    tells the loop when it is done, whatever has become of those who wait for it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: list[_Job] = []
        self._is_writing = False
        self._thread = ThreadPoolExecutor(1, "commits")

    def close(self) -> None:
        """Wait until the thread is done, and end it."""
        self._thread.shutdown()

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Do something that is undone if it raises, and return once it is committed.

        When cancelled it has not begun, or is waited for.
        """
        job = _Job(work)
        self._waiting.append(job)
        if not self._is_writing:
            self._begin()
        try:
            await job.done.wait()
        except anyio.get_cancelled_exc_class():
            if job in self._waiting:
                self._waiting.remove(job)
                raise
            with anyio.CancelScope(shield=True):
                await job.done.wait()
        if job.error is not None:
            raise job.error
        result: T = job.result
        return result

    def _begin(self) -> None:
        batch, self._waiting = self._waiting[:TOGETHER], self._waiting[TOGETHER:]
        self._is_writing = bool(batch)
        if batch:
            loop = asyncio.get_running_loop()

            def tell(_: Future[None]) -> None:
                with suppress(RuntimeError):  # the loop is closed, and nobody waits
                    loop.call_soon_threadsafe(self._ended, batch)

            self._thread.submit(self._carry_out, batch).add_done_callback(tell)

    def _ended(self, batch: Sequence[_Job]) -> None:
        for job in batch:
            job.done.set()
        self._begin()

    def _carry_out(self, batch: Sequence[_Job]) -> None:
        try:
            with self._engine.begin() as connection:
                if len(batch) == 1:
                    batch[0].run(connection)
                else:
                    for job in batch:
                        job.run_apart(connection)
        except Exception as error:
            for job in batch:
                job.error = job.error or error
