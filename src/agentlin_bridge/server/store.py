"""Tasks in SQL: every change is one transaction, and this process is the only writer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import anyio
from anyio import to_thread
from sqlalchemy import Connection, Engine, Row, delete, insert, select, update

from agentlin_bridge.database import open_database
from agentlin_bridge.server import intake
from agentlin_bridge.server.agent import Conversation, Item
from agentlin_bridge.server.history import conversation_of
from agentlin_bridge.server.intake import RUNNABLE, Accepted, close_calls, drop_open_calls
from agentlin_bridge.server.listing import page_of
from agentlin_bridge.server.refusals import not_cancelable, unknown_task
from agentlin_bridge.server.request import CreateRequest, ListQuery
from agentlin_bridge.server.schema import DROPPED, HEAD, MIGRATIONS, OPEN, calls, tasks
from agentlin_bridge.server.wire import task_object
from agentlin_bridge.task import JsonrpcError, TaskObject, TaskStatus, ToolCallItem

T = TypeVar("T")


class Store:
    """The server's tasks. Methods may be called from any number of tasks at once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writing = anyio.Lock()

    @classmethod
    async def open(cls, where: str | Path) -> Store:
        """Open the database at a path or URL, bringing its schema up to date.

        Raises:
            LedgerError: it cannot be opened, or a newer version has written it.
        """

        def opened() -> Engine:
            return open_database(where, migrations=MIGRATIONS, head=HEAD)

        return cls(await to_thread.run_sync(opened))

    async def close(self) -> None:
        """Close the database. The store cannot be used afterwards."""
        await to_thread.run_sync(self._engine.dispose)

    async def accept(self, request: CreateRequest) -> Accepted:
        """Store what a request asks for; see `intake.accept`."""
        return await self._write(lambda connection: intake.accept(connection, request))

    async def unfinished(self) -> list[tuple[str, str]]:
        """Task and session ids of everything that has to run, oldest first."""
        query = select(tasks.c.id, tasks.c.session_id).where(tasks.c.status.in_(RUNNABLE)).order_by(tasks.c.seq)
        rows = await self._read(lambda connection: connection.execute(query).all())
        return [(row.id, row.session_id) for row in rows]

    async def begin(self, task_id: str) -> Conversation | None:
        """Mark a task as working and return what its agent needs; None if it is not to run any more."""

        def change(connection: Connection) -> Conversation | None:
            row = _row(connection, task_id)
            if row is None or row.status not in RUNNABLE:
                return None
            if row.turn_id == row.id:
                drop_open_calls(connection, row.session_id, before=row.seq)
            connection.execute(update(tasks).where(tasks.c.id == task_id).values(status=TaskStatus.WORKING))
            return conversation_of(connection, row)

        return await self._write(change)

    async def finish(self, task_id: str, output: Sequence[Item]) -> None:
        """Record what the agent returned. Does nothing if the task was canceled meanwhile."""

        def change(connection: Connection) -> None:
            row = _row(connection, task_id)
            if row is None or row.status not in RUNNABLE:
                return
            asked = [item for item in output if isinstance(item, ToolCallItem)]
            status = TaskStatus.INPUT_REQUIRED if asked else TaskStatus.COMPLETED
            connection.execute(
                update(tasks)
                .where(tasks.c.id == task_id)
                .values(status=status, output=_dumped(output), tool_calls=len(asked))
            )
            if asked:
                connection.execute(
                    insert(calls),
                    [
                        {
                            "session_id": row.session_id,
                            "turn_id": row.turn_id,
                            "call_id": call.call_id,
                            "asked_by": row.id,
                            "state": OPEN,
                            "call": call_json,
                        }
                        for call, call_json in zip(asked, _dumped(asked), strict=True)
                    ],
                )

        await self._write(change)

    async def fail(self, task_id: str, error: JsonrpcError) -> None:
        """Record that the agent failed. Does nothing if the task was canceled meanwhile."""
        query = (
            update(tasks)
            .where(tasks.c.id == task_id, tasks.c.status.in_(RUNNABLE))
            .values(status=TaskStatus.FAILED, error=error.model_dump(exclude_none=True))
        )
        await self._write(lambda connection: connection.execute(query))

    async def retrieve(self, task_id: str) -> TaskObject | None:
        """The task as it is now."""

        def read(connection: Connection) -> TaskObject | None:
            row = _row(connection, task_id)
            return row and task_object(row)

        return await self._read(read)

    async def page(self, query: ListQuery) -> tuple[list[TaskObject], bool]:
        """One page of tasks, and whether there are more in its direction.

        Raises:
            Refusal: the cursor is unknown.
        """

        def read(connection: Connection) -> tuple[list[TaskObject], bool]:
            rows, more = page_of(connection, query)
            return [task_object(row) for row in rows], more

        return await self._read(read)

    async def cancel(self, task_id: str) -> TaskObject:
        """Cancel a task. Canceling it again changes nothing.

        Raises:
            Refusal: it is unknown, over, or was continued by another task.
        """

        def change(connection: Connection) -> TaskObject:
            row = _known(connection, task_id)
            if row.status != TaskStatus.CANCELED:
                if TaskStatus(row.status).is_terminal:
                    raise not_cancelable(f"it is {row.status}")
                if row.continued_by is not None:
                    raise not_cancelable(f"it was continued by {row.continued_by}")
                _cancel(connection, row)
            return task_object(_known(connection, task_id))

        return await self._write(change)

    async def delete(self, task_id: str) -> tuple[TaskObject, list[str]]:
        """Forget a task. What of its turn is still going is canceled: a turn cannot go on without a link.

        Returns:
            The task as it was, and the ids of the tasks whose run has to stop.

        Raises:
            Refusal: it is unknown.
        """

        def change(connection: Connection) -> tuple[TaskObject, list[str]]:
            row = _known(connection, task_id)
            before = task_object(row)
            turn = connection.execute(select(tasks).where(tasks.c.turn_id == row.turn_id)).all()
            stopped = []
            for link in turn:
                if link.continued_by is None and not TaskStatus(link.status).is_terminal:
                    _cancel(connection, link)
                    stopped.append(link.id)
            connection.execute(update(calls).where(calls.c.answered_by == task_id).values(state=DROPPED, result=None))
            connection.execute(delete(calls).where(calls.c.asked_by == task_id))
            connection.execute(delete(tasks).where(tasks.c.id == task_id))
            return before, stopped

        return await self._write(change)

    async def _read(self, work: Callable[[Connection], T]) -> T:
        def run() -> T:
            with self._engine.connect().execution_options(reading=True) as connection:
                return work(connection)

        return await to_thread.run_sync(run)

    async def _write(self, work: Callable[[Connection], T]) -> T:
        def run() -> T:
            with self._engine.begin() as connection:
                return work(connection)

        async with self._writing:
            return await to_thread.run_sync(run)


def _row(connection: Connection, task_id: str) -> Row[Any] | None:
    return connection.execute(select(tasks).where(tasks.c.id == task_id)).first()


def _known(connection: Connection, task_id: str) -> Row[Any]:
    row = _row(connection, task_id)
    if row is None:
        raise unknown_task()
    return row


def _cancel(connection: Connection, row: Row[Any]) -> None:
    close_calls(connection, row.turn_id)
    connection.execute(update(tasks).where(tasks.c.id == row.id).values(status=TaskStatus.CANCELED))


def _dumped(items: Sequence[Item]) -> list[dict[str, Any]]:
    return [item.model_dump(mode="json", exclude_none=True) for item in items]
