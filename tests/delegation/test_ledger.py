"""The ledger: its file, its schema, and the walk of a call under every order of events."""

from __future__ import annotations

import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import Connection, Engine

from agentlin_bridge import AlreadyAnswered, LedgerError, TaskStatus, ToolResult, UnknownCall
from agentlin_bridge.database import open_database
from agentlin_bridge.delegation.ledger import reading, writing
from agentlin_bridge.delegation.ledger.ledger import MIGRATIONS, Ledger
from agentlin_bridge.delegation.ledger.presence import Presence
from agentlin_bridge.delegation.ledger.records import CallState, NewTask, RoundState, TaskRecord
from agentlin_bridge.delegation.ledger.schema import HEAD, metadata
from agentlin_bridge.task import TaskObject

anyio_test = pytest.mark.anyio

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


def opened(path: Path | str) -> Engine:
    return open_database(path, migrations=MIGRATIONS, head=HEAD)


@contextmanager
def migrated(path: Path) -> Iterator[Connection]:
    engine = opened(path)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def test_the_migrations_make_the_declared_schema(tmp_path: Path) -> None:
    with migrated(tmp_path / "ledger.sqlite3") as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_the_file_is_private_and_durable(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ledger.sqlite3"
    with migrated(path) as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_newer_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    with migrated(path) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(LedgerError, match=r"written by a newer version .*schema 9999.* Next: upgrade agentlin-bridge"):
        opened(path)


@pytest.mark.parametrize("content", ["no database, but long enough to be told from an empty file" * 20, None])
def test_an_unusable_file_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ledger.sqlite3"
    if content is None:
        path.mkdir()
    else:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(LedgerError, match=r"ledger\.sqlite3 cannot be opened: .* Next: check"):
        opened(path)


def test_passwords_in_urls_are_not_shown() -> None:
    with pytest.raises(LedgerError) as raised:
        opened("nonsense://user:secret@127.0.0.1/x")
    assert "secret" not in str(raised.value)


@anyio_test
async def test_only_sqlite_for_now() -> None:
    with pytest.raises(LedgerError, match=r"is no SQLite file.*AGENTLIN_BRIDGE_LEDGER"):
        async with Ledger("postgresql://user:secret@127.0.0.1/x"):
            pass


@anyio_test
async def test_a_ledger_must_be_open(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="not open"):
        await Ledger(tmp_path / "ledger.sqlite3").read(reading.load, "task_1")


@anyio_test
async def test_database_errors_are_ours(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    async with Ledger(path) as ledger:
        connection = sqlite3.connect(path)
        connection.execute("DROP TABLE calls")
        connection.commit()
        connection.close()
        with pytest.raises(LedgerError, match=r"failed: no such table: calls\. Next: check the disk"):
            await ledger.write(writing.create_task, NEW, owner="me")
        connection = sqlite3.connect(path)
        assert connection.execute("SELECT count(*) FROM tasks").fetchone() == (0,), "half a transaction was kept"
        connection.close()


@anyio_test
async def test_concurrent_creates_with_one_request_id_make_one_task(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    made: list[tuple[str, bool]] = []

    async def create(ledger: Ledger, number: int) -> None:
        new = replace(NEW, id=f"task_{number}", request_id="r1")
        record, created = await ledger.write(writing.create_task, new, owner=ledger.instance)
        made.append((record.id, created))

    with anyio.fail_after(30):
        async with Ledger(path) as one, Ledger(path) as two, anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(create, one if number % 2 else two, number)
    assert len({task_id for task_id, _ in made}) == 1
    assert sum(created for _, created in made) == 1


def test_presence(tmp_path: Path) -> None:
    one, two = Presence(tmp_path / "instances"), Presence(tmp_path / "instances")
    one.announce()
    assert one.is_alive(one.instance)
    assert two.is_alive(one.instance)
    assert not one.is_alive(two.instance)
    one.withdraw()
    assert not two.is_alive(one.instance)
    assert list((tmp_path / "instances").iterdir()) == []


def test_presence_of_a_process_that_died(tmp_path: Path) -> None:
    presence = Presence(tmp_path)
    (tmp_path / "bridge_dead.lock").touch()
    assert not presence.is_alive("bridge_dead")
    assert list(tmp_path.iterdir()) == []


CALLS = st.sampled_from(["a", "b"])
ORDER = [CallState.REQUESTED, CallState.STARTED, CallState.ANSWERED, CallState.DELIVERED]


class CallWalk(RuleBasedStateMachine):
    """Two processes, `p` and `q`, do whatever they like in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.engine = opened(Path(self.directory.name) / "ledger.sqlite3")
        self.before: dict[tuple[int, str], CallState] = {}
        self.results: dict[tuple[int, str], ToolResult] = {}
        self.started: dict[tuple[int, str], int] = {}
        self.round_ids: list[str] = []
        self.was: TaskStatus | None = None

    def teardown(self) -> None:
        self.engine.dispose()
        self.directory.cleanup()

    def do(self, function: Any, *arguments: Any, **keywords: Any) -> Any:
        with self.engine.begin() as connection:
            return function(connection, *arguments, **keywords)

    @property
    def task(self) -> TaskRecord:
        found = self.do(reading.load, "task_1")
        assert isinstance(found, TaskRecord)
        return found

    @initialize()
    def create(self) -> None:
        self.do(writing.create_task, NEW, owner="p")

    @rule(status=st.sampled_from(["input-required", "completed"]))
    def settle(self, status: str) -> None:
        current = self.task.current
        output = [{"type": "tool_call", "call_id": call, "name": "n"} for call in "ab"] if status != "completed" else []
        remote = TaskObject.model_validate({"id": current.remote_id, "status": status, "output": output})
        self.do(writing.mark_seen, "task_1", current.seq, remote)
        judged: dict[str, Any] = {"status": remote.status, "answer": None, "error": None, "usage": {}}
        settled = self.do(writing.settle_round, "task_1", current.seq, remote, **judged)
        assert settled is (current.state is not RoundState.SETTLED and not self.was_terminal)
        assert self.do(writing.settle_round, "task_1", current.seq, remote, **judged) is False

    @rule(call=CALLS, owner=st.sampled_from("pq"), previous=st.sampled_from([None, "p", "q"]))
    def start(self, call: str, owner: str, previous: str | None) -> None:
        seq = self.task.current.seq
        if self.do(writing.start_call, "task_1", seq, call, owner=owner, previous=previous):
            key = (seq, call)
            assert self.before[key] is (CallState.REQUESTED if previous is None else CallState.STARTED)
            self.started[key] = self.started.get(key, 0) + 1

    @rule(call=CALLS, text=st.sampled_from("xy"))
    def answer(self, call: str, text: str) -> None:
        seq = self.task.current.seq
        result = ToolResult.model_validate({"content": text})
        if self.do(writing.answer_call, "task_1", seq, call, result):
            assert (seq, call) not in self.results
            self.results[seq, call] = result

    @rule(calls=st.dictionaries(CALLS | st.just("zzz"), st.sampled_from("xy"), min_size=1))
    def submit(self, calls: dict[str, str]) -> None:
        given = {call: ToolResult.model_validate({"content": text}) for call, text in calls.items()}
        before = self.task
        try:
            self.do(writing.submit, "task_1", given)
        except (UnknownCall, AlreadyAnswered):
            assert self.task == before
            return
        for call, result in given.items():
            seq = max(round_.seq for round_ in before.rounds if any(c.call_id == call for c in round_.calls))
            assert self.results.setdefault((seq, call), result) == result

    @rule(owner=st.sampled_from("pq"))
    def proceed(self, owner: str) -> None:
        current = self.task.current
        claimed = self.do(writing.claim_continuation, "task_1", current.seq, f"task_{current.seq + 1}", owner=owner)
        if claimed:
            assert current.state is RoundState.SETTLED
            assert all(call.is_answered for call in current.calls)
        assert not self.do(writing.claim_continuation, "task_1", current.seq, "task_other", owner="q")

    @rule(fence=st.integers(1, 3), owner=st.sampled_from("pq"))
    def take_over(self, fence: int, owner: str) -> None:
        current = self.task.current
        taken = self.do(writing.take_over, "task_1", current.seq, fence=fence, owner=owner)
        assert taken is (current.state is RoundState.CLAIMED and current.fence == fence)
        if taken:
            assert (self.task.current.fence, self.task.current.owner) == (fence + 1, owner)

    @rule()
    def cancel(self) -> None:
        assert self.do(writing.finish, "task_1", TaskStatus.CANCELED, None) is not self.was_terminal

    @property
    def was_terminal(self) -> bool:
        return self.was is not None and self.was.is_terminal

    @invariant()
    def calls_walk_one_way_and_results_stand(self) -> None:
        task = self.task
        for round_ in task.rounds:
            for call in round_.calls:
                key = (round_.seq, call.call_id)
                before = self.before.get(key, CallState.REQUESTED)
                assert ORDER.index(call.state) >= ORDER.index(before)
                self.before[key] = call.state
                assert call.result == self.results.get(key)
                assert call.attempt == self.started.get(key, 0)
        for round_ in task.rounds[:-1]:
            assert round_.is_answered
        ids = [round_.remote_id for round_ in task.rounds]
        assert ids[: len(self.round_ids)] == self.round_ids
        self.round_ids = ids
        if self.was_terminal:
            assert task.status is self.was
        self.was = task.status


TestCallWalk = CallWalk.TestCase
TestCallWalk.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
