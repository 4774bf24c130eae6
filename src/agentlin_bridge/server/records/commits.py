"""Group commit: what waits for the one writer of a SQLite database shares its next commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import anyio
from anyio import to_thread
from sqlalchemy import Connection, Engine

T = TypeVar("T")

TOGETHER = 64
"""Pieces of work that share a commit, at most."""


class _Job:
    def __init__(self, work: Callable[[Connection], Any]) -> None:
        self._work = work
        self.turn = anyio.Event()
        self.leads = False
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
    """Writes to a database that takes one writer at a time. Belongs to one event loop.

    Whoever finds nobody writing does all the work that waits, in the order it came and with one commit, and leaves
    what has come meanwhile to the first who waits with it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: list[_Job] = []
        self._is_led = False

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Do something that is undone if it raises, and return once it is committed.

        When cancelled it has not begun, or is waited for.
        """
        job = _Job(work)
        self._waiting.append(job)
        if self._is_led:
            await self._turn_of(job)
        else:
            job.leads = True
        if job.leads:
            await self._lead()
        if job.error is not None:
            raise job.error
        result: T = job.result
        return result

    async def _turn_of(self, job: _Job) -> None:
        try:
            await job.turn.wait()
        except anyio.get_cancelled_exc_class():
            if job in self._waiting:
                self._waiting.remove(job)
                if job.leads:
                    self._pass_on()
                raise
            with anyio.CancelScope(shield=True):
                await job.turn.wait()

    async def _lead(self) -> None:
        self._is_led = True
        batch, self._waiting = self._waiting[:TOGETHER], self._waiting[TOGETHER:]
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(self._carry_out, batch)
        for job in batch:
            job.turn.set()
        self._pass_on()

    def _pass_on(self) -> None:
        self._is_led = bool(self._waiting)
        if self._waiting:
            self._waiting[0].leads = True
            self._waiting[0].turn.set()

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
