"""A task to write down, and ledgers to write it to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine

from agentlin_bridge import TaskStatus
from agentlin_bridge.database import open_database
from agentlin_bridge.delegation.ledger import writing
from agentlin_bridge.delegation.ledger.ledger import MIGRATIONS, Ledger
from agentlin_bridge.delegation.ledger.records import NewTask
from agentlin_bridge.delegation.ledger.schema import HEAD, SCHEMA
from agentlin_bridge.task import TaskObject

NEW = NewTask(
    id="task_1",
    principal="local",
    request_id=None,
    fingerprint="f",
    backend="agentlin",
    place="http://127.0.0.1:1/v1",
    agent=None,
    continue_task=None,
    previous_remote_id=None,
    content=[],
    client_tools=[],
    options={},
    output_schema=None,
    metadata={},
    session_id="sess_1",
    user_id="local",
    stream=False,
    deadline_at=2e9,
)

ASKING = TaskObject.model_validate(
    {
        "id": "task_1",
        "status": "input-required",
        "output": [{"type": "tool_call", "call_id": call, "name": "n"} for call in "ab"],
    }
)
"""A first round that asks for the calls `a` and `b`."""

ASKED: dict[str, Any] = {"status": TaskStatus.INPUT_REQUIRED, "answer": None, "error": None, "usage": {}}


def opened(where: Path | str, head: str = HEAD) -> Engine:
    """A ledger's database, as a version of this package opens it."""
    return open_database(where, migrations=MIGRATIONS, head=head, schema=SCHEMA, name="test")


@contextmanager
def transaction(where: Path | str, head: str = HEAD) -> Iterator[Connection]:
    """One transaction on it."""
    engine = opened(where, head)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


async def create(ledger: Ledger) -> None:
    """Write down the task."""
    await ledger.write(writing.create_task, NEW, owner=ledger.instance)


async def create_asking(ledger: Ledger) -> None:
    """Write down the task, and that its first round asks for two calls."""
    await create(ledger)
    await ledger.write(writing.mark_seen, NEW.id, 1, ASKING)
    await ledger.write(writing.settle_round, NEW.id, 1, ASKING, **ASKED)
