"""How often a running task is asked for, and when it is given up."""

from __future__ import annotations

import time
from dataclasses import dataclass

from agentlin_bridge.errors import SERVER_ERROR
from agentlin_bridge.task import JsonrpcError, TaskObject, TaskStatus


@dataclass(frozen=True, slots=True)
class Pace:
    """Times in seconds.

    Attributes:
        first: between the first two looks at a running task.
        longest: what the pauses grow to.
        growth: by which factor each pause is longer than the one before.
        deadline: after which a task that still runs has ended for us. It is less than the hour the core gives
            a round, so that the end can name the status.
        settle: for how long a run whose start got no answer is looked for.
    """

    first: float = 1.0
    longest: float = 10.0
    growth: float = 1.6
    deadline: float = 3000.0
    settle: float = 10.0


@dataclass(slots=True)
class _Watched:
    since: float
    pause: float
    next_look: float
    last: TaskObject


class Watch:
    """The running tasks, each with its last look and the time of its next.

    Whoever asks in between is given the last look: several may follow one task, and the remote is one.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._watched: dict[str, _Watched] = {}

    def current(self, task_id: str) -> TaskObject | None:
        """The last look, while it is too early for another; None means: look, and say what you saw."""
        watched = self._watched.get(task_id)
        if watched is None or time.monotonic() >= watched.next_look:
            return None
        return watched.last

    def saw(self, task: TaskObject, said_status: str) -> TaskObject:
        """Take note of a look. What comes back is the task, ended by us if its time is up.

        Args:
            task: what was seen.
            said_status: its status in the remote's word.
        """
        if task.status is not TaskStatus.WORKING:
            self.forget(task.id)
            return task
        now = time.monotonic()
        watched = self._watched.get(task.id)
        if watched is None:
            self._watched[task.id] = _Watched(now, self._pace.first, now + self._pace.first, task)
            return task
        if now - watched.since >= self._pace.deadline:
            self.forget(task.id)
            return self._given_up(task, said_status)
        watched.pause = min(watched.pause * self._pace.growth, self._pace.longest)
        watched.next_look = now + watched.pause
        watched.last = task
        return task

    def forget(self, task_id: str) -> None:
        """Nobody follows the task any more."""
        self._watched.pop(task_id, None)

    def _given_up(self, task: TaskObject, said_status: str) -> TaskObject:
        says = f"still says {said_status!r}" if said_status else "gives no status"
        message = (
            f"NLA Engine {says} after {self._pace.deadline:g} seconds; its tasks can stay so for ever. The run was "
            "not stopped and may still cost. Next: look at it there, then create the task again."
        )
        status = TaskStatus.EXPIRED if said_status == "running" else TaskStatus.FAILED
        return task.model_copy(
            update={"status": status, "output": [], "error": JsonrpcError(code=SERVER_ERROR, message=message)}
        )
