"""Every change the ledger knows: one function, one transaction, each safe to race with another process.

The functions run on a connection inside a write transaction. Those that return a bool are compare-and-set:
False means that somebody else was first, or that the task is over, and that nothing was changed.

On SQLite there is one writer at a time. On PostgreSQL, READ COMMITTED, what is to be decided about a task is decided
with its row locked: no function looks at a task and then changes it without.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, insert, select, update

from agentlin_bridge.delegation.ledger import reading
from agentlin_bridge.delegation.ledger.records import (
    ApprovalState,
    CallState,
    NewTask,
    NextRound,
    RoundKind,
    RoundState,
    TaskRecord,
)
from agentlin_bridge.delegation.ledger.schema import calls, notes, rounds, tasks
from agentlin_bridge.errors import AlreadyAnswered, InvalidRequestError, RequestConflict, TaskNotFound, UnknownCall
from agentlin_bridge.task import TERMINAL, JsonrpcError, RemoteOutcome, TaskObject, TaskStatus, ToolResult

_OPEN = tasks.c.status.not_in(list(TERMINAL))
_STATUS = select(tasks.c.status).where(tasks.c.id == bindparam("id_")).with_for_update()


def create_task(connection: Connection, new: NewTask, *, owner: str) -> tuple[TaskRecord, bool]:
    """Write down a task and claim its first round; or give back the one its request_id made.

    Raises:
        RequestConflict: that one was made with other arguments.
        TaskNotFound: that one was deleted.
    """
    if new.continue_task is not None:
        _lock_session(connection, new.session_id)
    if new.request_id is not None:
        # Two who find nothing here at once: the second's insert fails, and it tries again.
        earlier = reading.load_by_request(connection, new.principal, new.request_id)
        if earlier is not None:
            return _same_request(earlier, new), False
    if new.continue_task is not None:
        _check_session(connection, new)
    now = time.time()
    row = asdict(new)
    row["metadata"] = dict(new.metadata)
    connection.execute(
        insert(tasks).values(**row, status=TaskStatus.CREATED, usage={}, version=1, created_at=now, updated_at=now)
    )
    _claim(connection, new.id, 1, NextRound(RoundKind.START, new.id, new.session_id), owner=owner)
    return _loaded(connection, new.id), True


def _lock_session(connection: Connection, session_id: str) -> None:
    """Who else begins a task in the session waits at the rows of its tasks, and then sees ours."""
    its_tasks = select(tasks.c.id).where(tasks.c.session_id == session_id).order_by(tasks.c.id)
    connection.execute(its_tasks.with_for_update()).all()


def _check_session(connection: Connection, new: NewTask) -> None:
    """A session takes one task at a time: on the published server two would mix their dialogues."""
    where = and_(tasks.c.session_id == new.session_id, _OPEN)
    other = connection.execute(select(tasks.c.id).where(where)).scalar()
    if other is not None:
        raise InvalidRequestError(
            f"Task {other} is still going on in the session of {new.continue_task}.",
            next_step="wait for it, or cancel it",
        )


def _same_request(earlier: TaskRecord, new: NewTask) -> TaskRecord:
    if earlier.fingerprint != new.fingerprint:
        conflict = RequestConflict(
            f"The request_id {new.request_id!r} has already created task {earlier.id} with other arguments.",
            next_step="repeat the first arguments to get that task, or use a new request_id",
        )
        conflict.task_id = earlier.id
        raise conflict
    if earlier.is_deleted:
        raise TaskNotFound(
            f"The task that the request_id {new.request_id!r} created was deleted.", next_step="use a new request_id"
        )
    return earlier


def adopt_task(connection: Connection, new: NewTask, remote: TaskObject, *, owner: str) -> TaskRecord:
    """Write down a task that was created elsewhere, unless it is there by now."""
    if (known := reading.load(connection, new.id)) is not None:
        return known
    record, _ = create_task(connection, new, owner=owner)
    change = update(rounds).where(rounds.c.task_id == new.id)
    connection.execute(change.values(state=RoundState.SEEN, seen_at=time.time()))
    if remote.created_at:
        _touch(connection, tasks.c.id == new.id, created_at=remote.created_at)
    return _loaded(connection, record.id)


def take_over(connection: Connection, task_id: str, seq: int, *, fence: int, owner: str) -> bool:
    """Become the one who sends a round that was claimed but, as far as anyone can tell, never sent."""
    _lock(connection, task_id)
    where = and_(
        rounds.c.task_id == task_id,
        rounds.c.seq == seq,
        rounds.c.fence == fence,
        rounds.c.state == RoundState.CLAIMED,
    )
    values = {"owner": owner, "fence": fence + 1, "attempt": rounds.c.attempt + 1, "claimed_at": time.time()}
    if connection.execute(update(rounds).where(where).values(**values)).rowcount == 0:
        return False
    _touch(connection, tasks.c.id == task_id)
    return True


def mark_sending(connection: Connection, task_id: str, seq: int, *, fence: int, owner: str) -> bool:
    """A request of this round is about to leave; False if the round is no longer ours to send."""
    status = _lock(connection, task_id)
    where = and_(
        rounds.c.task_id == task_id,
        rounds.c.seq == seq,
        rounds.c.fence == fence,
        rounds.c.owner == owner,
        rounds.c.state == RoundState.CLAIMED,
    )
    if status.is_terminal or connection.execute(select(rounds.c.seq).where(where)).first() is None:
        return False
    if status is TaskStatus.CREATED:
        _touch(connection, tasks.c.id == task_id, status=TaskStatus.WORKING)
    return True


def mark_seen(connection: Connection, task_id: str, seq: int, remote: TaskObject) -> None:
    """The remote has this round: the results that came with it are delivered.

    Where the remote chose its own ids, they are adopted.
    """
    _lock(connection, task_id)
    now = time.time()
    where = and_(rounds.c.task_id == task_id, rounds.c.seq == seq, rounds.c.state == RoundState.CLAIMED)
    seen = update(rounds).where(where).values(state=RoundState.SEEN, seen_at=now, remote_id=remote.id)
    if connection.execute(seen).rowcount == 0:
        return
    delivered = and_(calls.c.task_id == task_id, calls.c.seq == seq - 1, calls.c.state == CallState.ANSWERED)
    connection.execute(update(calls).where(delivered).values(state=CallState.DELIVERED, delivered_at=now))
    values = {}
    if remote.session_id:
        values = {"session_id": remote.session_id}
        connection.execute(update(rounds).where(rounds.c.task_id == task_id, rounds.c.seq == seq).values(values))
    _touch(connection, tasks.c.id == task_id, **values)


def settle_round(
    connection: Connection,
    task_id: str,
    seq: int,
    remote: TaskObject,
    *,
    status: TaskStatus,
    answer: str | None,
    error: JsonrpcError | None,
    usage: Mapping[str, Any],
) -> bool:
    """Record how a round ended, with the calls it asks for; `status` is what that makes of the task."""
    now = time.time()
    record = _loaded(connection, task_id)
    if record.status.is_terminal:
        return False
    where = and_(rounds.c.task_id == task_id, rounds.c.seq == seq, rounds.c.state != RoundState.SETTLED)
    settled = update(rounds).where(where)
    output = [item.model_dump(mode="json", exclude_none=True) for item in remote.output]
    values = {"state": RoundState.SETTLED, "settled_at": now, "status": remote.status, "output": output}
    if connection.execute(settled.values(**values, usage=remote.usage or {})).rowcount == 0:
        return False
    waiting = remote.open_calls if status is TaskStatus.INPUT_REQUIRED else []
    for position, call in enumerate(waiting):
        connection.execute(
            insert(calls).values(
                task_id=task_id,
                seq=seq,
                call_id=call.call_id,
                position=position,
                name=call.name,
                arguments=call.arguments,
                state=CallState.REQUESTED,
                attempt=0,
                requested_at=now,
            )
        )
    _touch(
        connection,
        tasks.c.id == task_id,
        status=status,
        answer=answer,
        error=reading.as_json(error),
        usage=dict(usage),
    )
    return True


def start_call(
    connection: Connection, task_id: str, seq: int, call_id: str, *, owner: str, previous: str | None
) -> bool:
    """Claim a call before its handler runs: a fresh one, or (`previous`) one that an instance left started."""
    state = CallState.REQUESTED if previous is None else CallState.STARTED
    if _lock(connection, task_id).is_terminal:
        return False
    where = and_(_call(task_id, seq, call_id), calls.c.state == state)
    if previous is not None:
        where = and_(where, calls.c.owner == previous)
    values = {"state": CallState.STARTED, "owner": owner, "attempt": calls.c.attempt + 1, "started_at": time.time()}
    if connection.execute(update(calls).where(where).values(**values)).rowcount == 0:
        return False
    _touch(connection, tasks.c.id == task_id)
    return True


def answer_call(connection: Connection, task_id: str, seq: int, call_id: str, result: ToolResult) -> bool:
    """Put a call's result on record; the first one stands."""
    if _lock(connection, task_id).is_terminal or not _answer(connection, task_id, seq, call_id, result):
        return False
    _touch(connection, tasks.c.id == task_id)
    return True


def _answer(connection: Connection, task_id: str, seq: int, call_id: str, result: ToolResult) -> bool:
    where = and_(_call(task_id, seq, call_id), calls.c.state.in_([CallState.REQUESTED, CallState.STARTED]))
    values = {"state": CallState.ANSWERED, "result": result.model_dump(mode="json"), "answered_at": time.time()}
    return connection.execute(update(calls).where(where).values(**values)).rowcount == 1


def require_approval(connection: Connection, task_id: str, seq: int, call_id: str) -> None:
    """A call waits for a person's approval."""
    _lock(connection, task_id)
    where = and_(_call(task_id, seq, call_id), calls.c.state == CallState.REQUESTED, calls.c.approval.is_(None))
    if connection.execute(update(calls).where(where).values(approval=ApprovalState.REQUIRED)).rowcount:
        _touch(connection, tasks.c.id == task_id)


def approve(connection: Connection, task_id: str, approved: Mapping[str, str | None]) -> TaskRecord:
    """A person has approved calls of the current round: all of them, or none. Approving twice changes nothing.

    Args:
        connection: inside a write transaction.
        task_id: whose calls they are.
        approved: by call_id, the arguments to use instead of those asked for, as JSON, or None.

    Raises:
        UnknownCall: one of them is no call that waits for approval, or ever did.
    """
    record = _loaded(connection, task_id)
    current = {} if record.status.is_terminal else {call.call_id: call for call in record.current.calls}
    for call_id, edited in approved.items():
        call = current.get(call_id)
        if call is None or call.approval is None:
            raise UnknownCall(
                f"Task {record.id} has no tool call {call_id!r} that waits for approval.",
                next_step="retrieve the task to see what it waits for",
            )
        where = and_(_call(task_id, record.current.seq, call_id), calls.c.approval == ApprovalState.REQUIRED)
        connection.execute(update(calls).where(where).values(approval=ApprovalState.GRANTED, edited=edited))
    _touch(connection, tasks.c.id == task_id)
    return _loaded(connection, task_id)


def submit(connection: Connection, task_id: str, results: Mapping[str, ToolResult]) -> TaskRecord:
    """Put a host's results on record: all of them, or none.

    A result that repeats the one on record changes nothing.

    Raises:
        UnknownCall: the task never had such a call, or is over and waits for none.
        AlreadyAnswered: another result stands.
    """
    record = _loaded(connection, task_id)
    answered = False
    for call_id, result in results.items():
        newest_first = (
            (round_.seq, call) for round_ in reversed(record.rounds) for call in round_.calls if call.call_id == call_id
        )
        seq, call = next(newest_first, (0, None))
        if call is None or (record.status.is_terminal and call.result is None):
            raise UnknownCall(_unknown_call(record, call_id), next_step=_awaited(record))
        if call.result is not None:
            if call.result != result:
                raise AlreadyAnswered(
                    f"The call {call_id!r} already has a result; the first one stands.", next_step=_awaited(record)
                )
        else:
            answered = _answer(connection, task_id, seq, call_id, result) or answered
    if not answered:
        return record
    _touch(connection, tasks.c.id == task_id)
    return _loaded(connection, task_id)


def _unknown_call(record: TaskRecord, call_id: str) -> str:
    if record.status.is_terminal:
        return f"Task {record.id} is {record.status.value} and takes no result for {call_id!r}."
    return f"Task {record.id} has no tool call {call_id!r}. Nothing was stored."


def _awaited(record: TaskRecord) -> str:
    waiting = [] if record.status.is_terminal else [c.call_id for c in record.current.calls if not c.is_answered]
    if waiting:
        return f"submit results for: {', '.join(waiting)}"
    return "retrieve the task to see how it stands"


def claim_continuation(connection: Connection, task_id: str, seq: int, remote_id: str, *, owner: str) -> bool:
    """Claim the next round once every call of round `seq` is answered, by writing down its remote id."""
    record = _loaded(connection, task_id)
    held = record.status.is_terminal or record.status is TaskStatus.PAUSED
    if held or record.current.seq != seq or not record.current.is_answered:
        return False
    _claim(connection, task_id, seq + 1, NextRound(RoundKind.RESULTS, remote_id, record.session_id), owner=owner)
    _touch(connection, tasks.c.id == task_id, status=TaskStatus.WORKING)
    return True


def claim_repair(
    connection: Connection,
    task_id: str,
    seq: int,
    repair: NextRound,
    *,
    failed: TaskObject | None,
    owner: str,
) -> bool:
    """Settle round `seq` as failed (`failed` is what is left of it) and claim the round that makes up for it."""
    record = _loaded(connection, task_id)
    if record.status.is_terminal or record.current.seq != seq or record.current.state is RoundState.SETTLED:
        return False
    where = and_(rounds.c.task_id == task_id, rounds.c.seq == seq)
    output = [] if failed is None else [item.model_dump(mode="json", exclude_none=True) for item in failed.output]
    usage = {} if failed is None else failed.usage or {}
    settled = {"state": RoundState.SETTLED, "settled_at": time.time(), "status": TaskStatus.FAILED}
    connection.execute(update(rounds).where(where).values(**settled, output=output, usage=usage))
    _claim(connection, task_id, seq + 1, repair, owner=owner)
    _touch(connection, tasks.c.id == task_id, status=TaskStatus.WORKING, session_id=repair.session_id)
    return True


def _claim(connection: Connection, task_id: str, seq: int, claimed: NextRound, *, owner: str) -> None:
    connection.execute(
        insert(rounds).values(
            task_id=task_id,
            seq=seq,
            **asdict(claimed),
            owner=owner,
            fence=1,
            attempt=1,
            state=RoundState.CLAIMED,
            claimed_at=time.time(),
        )
    )


def fail_round(connection: Connection, task_id: str, seq: int, *, fence: int, error: JsonrpcError) -> bool:
    """End a task because its round cannot be brought to an end; False if the round has moved on meanwhile."""
    record = _loaded(connection, task_id)
    current = record.current
    if current.seq != seq or current.fence != fence or current.state is RoundState.SETTLED:
        return False
    return finish(connection, task_id, TaskStatus.FAILED, error)


def finish(connection: Connection, task_id: str, status: TaskStatus, error: JsonrpcError | None) -> bool:
    """End a task from our side: canceled, expired or failed."""
    where = and_(tasks.c.id == task_id, _OPEN)
    return _touch(connection, where, status=status, error=reading.as_json(error)) == 1


def pause(connection: Connection, task_id: str) -> bool:
    """Nothing is to be started for a task until it is resumed; False if it is over or paused already."""
    where = and_(tasks.c.id == task_id, _OPEN, tasks.c.status != TaskStatus.PAUSED)
    return _touch(connection, where, status=TaskStatus.PAUSED) == 1


def resume(connection: Connection, task_id: str) -> bool:
    """A paused task goes on; False if it is not paused."""
    current = _loaded(connection, task_id).current
    waits = current.state is RoundState.SETTLED and not current.is_answered
    status = TaskStatus.INPUT_REQUIRED if waits else TaskStatus.WORKING
    where = and_(tasks.c.id == task_id, tasks.c.status == TaskStatus.PAUSED)
    return _touch(connection, where, status=status) == 1


def annotate(connection: Connection, task_id: str, added: Mapping[str, Any]) -> TaskRecord:
    """Add to a task's metadata."""
    metadata = {**_loaded(connection, task_id).metadata, **added}
    _touch(connection, tasks.c.id == task_id, metadata=metadata)
    return _loaded(connection, task_id)


def record_outcome(connection: Connection, task_id: str, outcome: RemoteOutcome) -> None:
    """What a cancel or delete did to the remote run; the first answer stands."""
    _touch(connection, and_(tasks.c.id == task_id, tasks.c.remote_outcome.is_(None)), remote_outcome=outcome)


def bury(connection: Connection, task_id: str) -> None:
    """Leave a tombstone: who, which id, how it ended; none of what was said."""
    _touch(
        connection,
        tasks.c.id == task_id,
        deleted_at=time.time(),
        content=[],
        client_tools=[],
        options={},
        output_schema=None,
        metadata={},
        answer=None,
        error=None,
    )
    connection.execute(update(rounds).where(rounds.c.task_id == task_id).values(output=[]))
    connection.execute(update(calls).where(calls.c.task_id == task_id).values(arguments="{}", edited=None, result=None))


def note(connection: Connection, backend: str, learned: Mapping[str, str]) -> None:
    """Keep what a backend learned about its remotes; the newest stands."""
    for name, value in sorted(learned.items()):
        values = {"value": value, "noted_at": time.time()}
        known = update(notes).where(notes.c.backend == backend, notes.c.name == name)
        if connection.execute(known.values(values)).rowcount == 0:
            connection.execute(insert(notes).values(backend=backend, name=name, **values))


def _lock(connection: Connection, task_id: str) -> TaskStatus:
    """Keep the task as it is, for all but this transaction; its status."""
    status = connection.execute(_STATUS, {"id_": task_id}).scalar()
    if status is None:
        raise TaskNotFound(f"There is no task {task_id!r}.")
    return TaskStatus(status)


def _call(task_id: str, seq: int, call_id: str) -> ColumnElement[bool]:
    return and_(calls.c.task_id == task_id, calls.c.seq == seq, calls.c.call_id == call_id)


def _touch(connection: Connection, where: ColumnElement[bool], **values: Any) -> int:
    changes = {"version": tasks.c.version + 1, "updated_at": time.time(), **values}
    return connection.execute(update(tasks).where(where).values(**changes)).rowcount


def _loaded(connection: Connection, task_id: str) -> TaskRecord:
    record = reading.load(connection, task_id, locked=True)
    if record is None:
        raise TaskNotFound(f"There is no task {task_id!r}.")
    return record
