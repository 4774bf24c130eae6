"""The durable engine: one DBOS workflow per round, under an id that is used once.

DBOS remembers which rounds are under way, and where; it runs again what a dead process left, and lets nobody run
a round twice. Which steps of a round are done is in the server's own tables, recorded in one transaction with what
they produced, so that it is never in doubt; the engine need not remember it a second time. A round that is over
within a moment is not entered at all: if its process dies in that moment, the task's row says that there is a round
nobody has heard of, as it does for one that was accepted and never begun. This is the only module that knows DBOS.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import anyio
from anyio import to_thread
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetWorkflowID
from sqlalchemy import Engine as Database
from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL

from agentlin_bridge.database import BUSY_TIMEOUT_MS
from agentlin_bridge.errors import ConfigurationError
from agentlin_bridge.server.records.journal import Start

logger = logging.getLogger(__name__)

NAME = "agentlin-bridge"
VERSION = "1"
"""Of the workflow below. A process only takes up rounds of its own version: change it with the order of steps."""
SCHEMA = "agentlin_engine"
"""Where the engine's tables are on PostgreSQL."""
BATCH = 500
ENTERED_AFTER = 0.5
"""Seconds after which a round that still runs is entered. Entering costs more than a whole round of a fast agent."""

_ENDED = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]


class Work(Protocol):
    """What a round consists of."""

    async def round(self, start: Start) -> None:
        """Run a round to its end, passing over what is done already."""
        ...


_engine: Engine | None = None


@DBOS.workflow(name="round", max_recovery_attempts=None)
async def _round(task_id: str, attempt: int, base: int) -> None:
    if _engine is None:
        raise RuntimeError("the engine is not open")
    await _engine.entered(Start(task_id, attempt, base))


@dataclass(frozen=True)
class Standing:
    """What the engine knows of a round.

    Attributes:
        executor: who runs it, or ran it.
        is_waiting: it is about to be taken up by some process.
        has_ended: it will not be run again under this id.
        is_foreign: another version of the engine began it, and only that can go on with it.
    """

    executor: str | None
    is_waiting: bool
    has_ended: bool
    is_foreign: bool


class Engine:
    """DBOS in this process. There can be one at a time. Belongs to the event loop that opened it."""

    def __init__(self, url: URL, executor: str, work: Work) -> None:
        self._url = url
        self._executor = executor
        self._work = work
        self._under_way: dict[str, anyio.Event] = {}
        self._database: Database | None = None

    async def open(self) -> None:
        """Start. From here on the rounds that an earlier process of this executor left are run.

        Raises:
            ConfigurationError: another server runs in this process.
        """
        global _engine  # noqa: PLW0603
        if _engine is not None:
            raise ConfigurationError(
                "Another agentlin-bridge server runs in this process.", next_step="give each a process of its own"
            )
        _engine = self
        try:
            self._database = await to_thread.run_sync(_engine_database, self._url)
            config: DBOSConfig = {
                "name": NAME,
                "system_database_engine": self._database,
                "system_database_url": self._url.render_as_string(hide_password=False),
                "dbos_system_schema": SCHEMA,
                "serializer": DBOSPortableJSONSerializer(),
                "application_version": VERSION,
                "executor_id": self._executor,
                "log_level": "ERROR",
                "use_listen_notify": False,
                # Nothing here waits for messages, but stopping waits for the thread that looks for them.
                "notification_listener_polling_interval_sec": 0.1,
            }
            DBOS(config=config)
            _quieten()
            # Not in a thread: DBOS runs what it recovers on the loop it is launched from.
            DBOS.launch()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop. What runs is left to the next start."""
        global _engine  # noqa: PLW0603
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(DBOS.destroy)
            if self._database is not None:
                await to_thread.run_sync(self._database.dispose)
        # DBOS has put its own threads under the loop, which are gone now.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())
        _engine = None

    async def run(self, start: Start) -> None:
        """Run a round to its end here, unless it is being run already."""
        if start.workflow_id in self._under_way:
            return
        failure: Exception | None = None
        with self._running(start) as over:
            async with anyio.create_task_group() as group:
                group.start_soon(self._enter_unless, over, start)
                try:
                    await self._work.round(start)
                except Exception as error:
                    failure = error
                over.set()
        if failure is not None:
            raise failure

    async def _enter_unless(self, over: anyio.Event, start: Start) -> None:
        with anyio.move_on_after(ENTERED_AFTER):
            await over.wait()
            return
        try:
            with SetWorkflowID(start.workflow_id):
                await _round(start.task_id, start.attempt, start.base)
        except Exception as error:
            # Its row still tells of it.
            logger.warning("task %s: its round could not be entered: %s", start.task_id, type(error).__name__)

    async def entered(self, start: Start) -> None:
        """What DBOS runs: the end of a round that is under way here, or one that a dead process left."""
        over = self._under_way.get(start.workflow_id)
        if over is not None:
            await over.wait()
            return
        with self._running(start):
            await self._work.round(start)

    @contextmanager
    def _running(self, start: Start) -> Iterator[anyio.Event]:
        over = self._under_way[start.workflow_id] = anyio.Event()
        try:
            yield over
        finally:
            over.set()
            del self._under_way[start.workflow_id]

    async def standing(self, workflow_ids: Sequence[str]) -> dict[str, Standing]:
        """What is known of rounds; those it has never heard of are missing."""
        found = {}
        for first in range(0, len(workflow_ids), BATCH):
            batch = list(workflow_ids[first : first + BATCH])
            for status in await DBOS.list_workflows_async(workflow_ids=batch, load_input=False, load_output=False):
                found[status.workflow_id] = Standing(
                    executor=status.executor_id,
                    is_waiting=status.status in {"ENQUEUED", "DELAYED"},
                    has_ended=status.status in _ENDED,
                    is_foreign=status.app_version != VERSION,
                )
        return found

    async def take_over(self, workflow_id: str) -> None:
        """Let some living process run what a dead one was running."""
        await DBOS.resume_workflow_async(workflow_id)

    async def clear(self, older_than: float) -> int:
        """Forget rounds that ended some seconds ago; returns how many those were."""
        before = datetime.fromtimestamp(time.time() - older_than, UTC).isoformat()
        ended = await DBOS.list_workflows_async(
            status=_ENDED, completed_before=before, limit=BATCH, load_input=False, load_output=False
        )
        if ended:
            await DBOS.delete_workflows_async([status.workflow_id for status in ended])
        return len(ended)


def beside(url: URL) -> URL:
    """The engine's database: on SQLite a file beside the server's, so that neither waits for the other's lock."""
    if url.get_backend_name() != "sqlite":
        return url
    path = Path(url.database or "")
    return url.set(database=str(path.with_name(f"{path.name}.engine")))


def _engine_database(url: URL) -> Database:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_size=10, max_overflow=10)
    path = Path(url.database or "")
    path.touch(mode=0o600)
    engine = create_engine(url)
    event.listen(engine, "connect", _prepare)
    return engine


def _prepare(connection: Any, _record: object) -> None:
    connection.isolation_level = "IMMEDIATE"
    # A power failure may cost the newest of these records. The server's own tables are synced at every commit, and
    # tell what is to be run and what is done; with fewer records here more is merely looked at again.
    pragmas = (f"busy_timeout={BUSY_TIMEOUT_MS}", "foreign_keys=ON", "journal_mode=WAL", "synchronous=NORMAL")
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}")


def _quieten() -> None:
    """DBOS has a console handler of its own; its errors belong where all the others go."""
    logger = logging.getLogger("dbos")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    logger.propagate = True
