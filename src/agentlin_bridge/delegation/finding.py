"""Finding a task by its id: in the ledger, or remotely, when it was created elsewhere."""

from __future__ import annotations

import re
import time

from agentlin_bridge.delegation.ledger import reading, writing
from agentlin_bridge.delegation.ledger.ledger import Ledger
from agentlin_bridge.delegation.ledger.records import NewTask, TaskRecord
from agentlin_bridge.delegation.requests import Origin
from agentlin_bridge.errors import RemoteError, RemoteNotFound, TaskNotFound
from agentlin_bridge.remote.backend import TaskBackend
from agentlin_bridge.task import TaskObject

LOCAL = "local"
"""The principal of a bridge that serves nobody else, and so may adopt what it finds remotely."""

_ID = re.compile(r"(?=[_.:-]*[A-Za-z0-9])[A-Za-z0-9_.:-]{1,200}")
"""As a part of a URL, an id of dots alone would lead elsewhere."""


async def find(ledger: Ledger, origin: Origin, task_id: str, *, deleted: bool = False) -> TaskRecord:
    """The record of a task that is this principal's.

    Args:
        ledger: where to look first.
        origin: whose task it has to be, and the backends to ask.
        task_id: our id, or that of any of its remote tasks.
        deleted: whether a tombstone counts.

    Raises:
        TaskNotFound: there is none; another principal's task is as if it did not exist.
    """
    # What cannot be an id is not looked for: it would become a part of a URL.
    record = await ledger.read(reading.load, task_id) if _ID.fullmatch(task_id) else None
    if record is None and _ID.fullmatch(task_id) and origin.principal == LOCAL:
        record = await _of_remote_id(ledger, task_id) or await _adopted(ledger, origin, task_id)
    if record is None or record.principal != origin.principal or (record.is_deleted and not deleted):
        raise TaskNotFound(f"There is no task {task_id!r}.", next_step="list the tasks to see which there are")
    return record


async def _of_remote_id(ledger: Ledger, remote_id: str) -> TaskRecord | None:
    known = await ledger.read(reading.id_of_remote, remote_id)
    return None if known is None else await ledger.read(reading.load, known)


async def _adopted(ledger: Ledger, origin: Origin, task_id: str) -> TaskRecord | None:
    unasked: RemoteError | None = None
    for backend in origin.backends:
        try:
            remote = await backend.retrieve(task_id)
        except RemoteNotFound:
            continue
        except RemoteError as error:
            unasked = unasked or error
        else:
            return await _adopt(ledger, origin, backend, task_id, remote)
    if unasked is None:
        return None
    raise TaskNotFound(
        f"There is no task {task_id!r} in the ledger, and the remote could not be asked: {unasked.message}",
        next_step=unasked.next_step,
    ) from unasked


async def _adopt(
    ledger: Ledger, origin: Origin, backend: TaskBackend, task_id: str, remote: TaskObject
) -> TaskRecord | None:
    new = NewTask(
        id=task_id,
        principal=origin.principal,
        request_id=None,
        fingerprint="",
        backend=backend.name,
        place=backend.place,
        agent=None,
        continue_task=None,
        previous_remote_id=remote.previous_task_id,
        content=[],
        client_tools=None,
        options={},
        output_schema=None,
        metadata={},
        session_id=remote.session_id,
        user_id=remote.user_id,
        stream=False,
        deadline_at=time.time() + origin.limits.task_deadline,
    )
    return await ledger.write(writing.adopt_task, new, remote, owner=ledger.instance)
