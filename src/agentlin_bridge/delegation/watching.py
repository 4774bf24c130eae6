"""How far a running task is, for those who watch: from its event stream, or by looking at it now and then."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio

from agentlin_bridge.delegation.backends import Backends
from agentlin_bridge.delegation.ledger import reading
from agentlin_bridge.delegation.ledger.ledger import Ledger
from agentlin_bridge.delegation.ledger.records import RoundState
from agentlin_bridge.errors import BridgeError, RemoteNotFound
from agentlin_bridge.events import AgentTaskEvent, Progress, advance
from agentlin_bridge.events.progress import progress_of
from agentlin_bridge.remote.backend import Listener

logger = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between looks at a watched task that is not followed by stream."""


class ProgressBoard:
    """Keeps the progress of the running rounds.

    Args:
        backends: asked about watched tasks that are not streamed.
        ledger: says which remote task that is.
        announce: called with a task's id when its progress changed.
    """

    def __init__(self, backends: Backends, ledger: Ledger, announce: Callable[[str], None]) -> None:
        self._backends = backends
        self._ledger = ledger
        self._announce = announce
        self._progress: dict[str, Progress] = {}
        self._watched: Counter[str] = Counter()
        self._wanted = anyio.Event()

    def progress(self, task_id: str) -> Progress:
        """How far the task's current round is, as far as anybody told."""
        return self._progress.get(task_id, Progress())

    def listener(self, task_id: str) -> Listener:
        """What a backend tells the events of a round to, from its first on."""
        self._progress[task_id] = Progress(step=self.progress(task_id).step)

        def listen(event: AgentTaskEvent) -> None:
            self._set(task_id, advance(self.progress(task_id), event))

        return listen

    def forget(self, task_id: str) -> None:
        """The task is over. Who still watches it may want to see how far it came."""
        if task_id not in self._watched:
            self._progress.pop(task_id, None)

    @contextmanager
    def watching(self, task_id: str) -> Iterator[None]:
        """While entered, the task's progress is kept up to date even if it is not streamed."""
        self._watched[task_id] += 1
        self._wanted.set()
        try:
            yield
        finally:
            self._watched[task_id] -= 1
            if not self._watched[task_id]:
                del self._watched[task_id]
                self._progress.pop(task_id, None)

    async def run(self) -> None:
        """Look at watched tasks until cancelled."""
        while True:
            await self._wanted.wait()
            if not self._watched:
                self._wanted = anyio.Event()
                continue
            for task_id in list(self._watched):
                try:
                    await self._look(task_id)
                except RemoteNotFound:
                    # Its request may be on the way still; whether it is lost is for who follows it to find out.
                    logger.debug("watching %s: it is not there", task_id)
                except BridgeError as error:
                    logger.warning("watching %s: %s", task_id, error.message)
                except Exception:
                    # Whatever a remote says of one task, the bridge goes on with the others.
                    logger.exception("watching %s", task_id)
            await anyio.sleep(INTERVAL)

    async def _look(self, task_id: str) -> None:
        task = await self._ledger.read(reading.load, task_id)
        if task is None or task.stream or task.status.is_terminal or task.current.state is RoundState.SETTLED:
            return
        if (backend := self._backends.having(task)) is not None:
            self._set(task_id, progress_of(await backend.retrieve(task.current.remote_id)))

    def _set(self, task_id: str, progress: Progress) -> None:
        if progress != self._progress.get(task_id):
            self._progress[task_id] = progress
            self._announce(task_id)
