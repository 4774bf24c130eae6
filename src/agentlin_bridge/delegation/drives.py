"""Which tasks this bridge carries on right now: each by one drive, which somebody can end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskGroup

from agentlin_bridge.delegation.changes import Changes
from agentlin_bridge.delegation.driving import TaskDriver

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Drive:
    """A task being carried on. `again` asks for one more look before it stops."""

    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    ended: anyio.Event = field(default_factory=anyio.Event)
    again: bool = False


class Drives:
    """Starts and ends the driving of tasks, inside the bridge's task group.

    Args:
        changes: told when a drive ends.
        over: called with the id of a task whose drive found it over.
    """

    def __init__(self, changes: Changes, *, over: Callable[[str], object]) -> None:
        self._over = over
        self._changes = changes
        self._drives: dict[str, _Drive] = {}
        self._faults: dict[str, Exception] = {}

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._drives

    def carry_on(self, task_id: str, driver: TaskDriver, group: TaskGroup) -> None:
        """Have a task driven, or looked at once more if it already is."""
        drive = self._drives.get(task_id)
        if drive is not None:
            drive.again = True
            return
        self._drives[task_id] = _Drive()
        self._faults.pop(task_id, None)
        group.start_soon(self._drive, task_id, driver, self._drives[task_id])

    def stop(self, task_id: str) -> None:
        """Ask the task's drive to end, handlers included."""
        if (drive := self._drives.get(task_id)) is not None:
            drive.scope.cancel()

    async def end(self, task_id: str) -> None:
        """End the task's drive and wait until it has."""
        if (drive := self._drives.get(task_id)) is not None:
            drive.scope.cancel()
            await drive.ended.wait()

    def take_fault(self, task_id: str) -> Exception | None:
        """What broke the task's last drive: a fault of ours, not of the remote. Given out once."""
        return self._faults.pop(task_id, None)

    async def _drive(self, task_id: str, driver: TaskDriver, drive: _Drive) -> None:
        try:
            with drive.scope, self._changes.watching(task_id):
                while True:
                    drive.again = False
                    if await driver.drive(task_id):
                        self._over(task_id)
                        break
                    if not drive.again:
                        break
        except Exception as error:
            logger.exception("driving %s", task_id)
            self._faults[task_id] = _cause(error)
        finally:
            del self._drives[task_id]
            drive.ended.set()
            self._changes.announce(task_id)


def _cause(error: Exception) -> Exception:
    """The error inside groups of one: what task groups make of an error is no concern of a caller's."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
