"""Changes by several processes at once: each is made once, or refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import anyio
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from agentlin_bridge import (
    AlreadyAnswered,
    InvalidRequestError,
    LedgerError,
    RequestConflict,
    TaskStatus,
    ToolResult,
)
from agentlin_bridge.database import reader_of
from agentlin_bridge.delegation.ledger import ledger as ledger_module
from agentlin_bridge.delegation.ledger import reading, writing
from agentlin_bridge.delegation.ledger.ledger import Ledger
from agentlin_bridge.delegation.ledger.records import ApprovalState, CallState, NextRound, RoundKind
from agentlin_bridge.task import TaskObject

from .sample import ASKED, ASKING, NEW, create, create_asking, opened

anyio_test = pytest.mark.anyio

X = ToolResult.model_validate({"content": "x"})
Y = ToolResult.model_validate({"content": "y"})


async def at_once(*work: Callable[[], Any]) -> list[Any]:
    """What each of them returned or raised, in their order."""
    done: list[Any] = [None] * len(work)

    async def one(place: int) -> None:
        try:
            done[place] = await work[place]()
        except Exception as error:
            done[place] = error

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for place in range(len(work)):
                group.start_soon(one, place)
    return done


@anyio_test
async def test_concurrent_creates_with_one_request_id_make_one_task(where: str) -> None:
    async with Ledger(where) as one, Ledger(where) as two:

        def create(ledger: Ledger, number: int) -> Callable[[], Any]:
            new = replace(NEW, id=f"task_{number}", request_id="r1")
            return lambda: ledger.write(writing.create_task, new, owner=ledger.instance)

        made = await at_once(*(create(one if number % 2 else two, number) for number in range(20)))
    assert len({record.id for record, _ in made}) == 1
    assert sum(created for _, created in made) == 1


@anyio_test
async def test_concurrent_creates_with_other_arguments_conflict(where: str) -> None:
    async with Ledger(where) as one, Ledger(where) as two:

        def create(ledger: Ledger, number: int) -> Callable[[], Any]:
            new = replace(NEW, id=f"task_{number}", request_id="r1", fingerprint=str(number))
            return lambda: ledger.write(writing.create_task, new, owner=ledger.instance)

        made = await at_once(*(create(one if number % 2 else two, number) for number in range(10)))
    assert [type(each) for each in made if isinstance(each, Exception)] == [RequestConflict] * 9


@anyio_test
async def test_a_task_adopted_by_two_is_one(where: str) -> None:
    remote = TaskObject(id=NEW.id, created_at=5)
    async with Ledger(where) as one, Ledger(where) as two:
        adopted = await at_once(
            *(lambda at=at: at.write(writing.adopt_task, NEW, remote, owner=at.instance) for at in (one, two) * 4)
        )
    assert {record.created_at for record in adopted} == {5}
    assert len({record.current.owner for record in adopted}) == 1


@anyio_test
async def test_a_continuation_is_claimed_once(where: str) -> None:
    async with Ledger(where) as one, Ledger(where) as two:
        await create_asking(one)
        await one.write(writing.submit, NEW.id, {"a": X, "b": X})

        def claim(ledger: Ledger, number: int) -> Callable[[], Any]:
            return lambda: ledger.write(writing.claim_continuation, NEW.id, 1, f"task_{number}", owner=ledger.instance)

        claimed = await at_once(*(claim(one if number % 2 else two, number) for number in range(10)))
        assert sorted(claimed) == [False] * 9 + [True]
        task = await one.read(reading.load, NEW.id)
        assert task is not None
        assert [(round_.seq, round_.remote_id) for round_ in task.rounds][1:] == [(2, f"task_{claimed.index(True)}")]


@anyio_test
async def test_what_two_add_to_metadata_and_notes_is_all_there(where: str) -> None:
    async with Ledger(where) as one, Ledger(where) as two:
        await create(one)

        def add(ledger: Ledger, number: int) -> list[Callable[[], Any]]:
            name = f"n{number}"
            learned = {"dialect": name, name: "x"} if number % 2 else {name: "x", "dialect": name}
            return [
                lambda: ledger.write(writing.annotate, NEW.id, {name: number}),
                lambda: ledger.write(writing.note, "agentlin", learned),
            ]

        done = await at_once(*(work for n in range(10) for work in add(one if n % 3 else two, n)))
        assert not [each for each in done if isinstance(each, Exception)]
        task = await two.read(reading.load, NEW.id)
        assert task is not None
        assert task.metadata == {f"n{number}": number for number in range(10)}
        assert set(await two.read(reading.notes_of, "agentlin")) == {"dialect", *(f"n{n}" for n in range(10))}


# Orders that only PostgreSQL allows: a second transaction begins while the first is not committed ------------------


class Pair:
    """Two connections to one ledger."""

    def __init__(self, engine: Engine, pool: ThreadPoolExecutor) -> None:
        self._engine = engine
        self._pool = pool

    def do(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        with self._engine.begin() as connection:
            return function(connection, *arguments, **keywords)

    def second_after(self, first: Callable[[Connection], Any], second: Callable[[Connection], Any]) -> Any:
        """What the second gives that begins before the first is committed; it has to wait for it."""
        known: Future[int] = Future()

        def run() -> Any:
            with self._engine.begin() as connection:
                known.set_result(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
                return second(connection)

        with self._engine.begin() as connection:
            first(connection)
            running = self._pool.submit(run)
            self._until_it_waits(known.result(10), running)
        return running.result(10)

    def _until_it_waits(self, pid: int, running: Future[Any]) -> None:
        look = text("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = :pid")
        given_up = threading.Event()
        timer = threading.Timer(20, given_up.set)
        timer.start()
        try:
            while not given_up.is_set():
                assert not running.done(), "it did not wait for who was first"
                with self._engine.begin() as connection:
                    if connection.execute(look, {"pid": pid}).scalar():
                        return
            raise AssertionError("it never began")
        finally:
            timer.cancel()


@pytest.fixture
def pair(on_postgres: str) -> Iterator[Pair]:
    engine = opened(on_postgres)
    with ThreadPoolExecutor(1) as pool:
        found = Pair(engine, pool)
        found.do(writing.create_task, NEW, owner="p")
        found.do(writing.mark_seen, NEW.id, 1, ASKING)
        found.do(writing.settle_round, NEW.id, 1, ASKING, **ASKED)
        yield found
    engine.dispose()


def change(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Callable[[Connection], Any]:
    return lambda connection: function(connection, NEW.id, *arguments, **keywords)


CANCEL = change(writing.finish, TaskStatus.CANCELED, None)
ANSWER_ALL = change(writing.submit, {"a": X, "b": X})
START = change(writing.start_call, 1, "a", owner="q", previous=None)
ANSWER = change(writing.answer_call, 1, "a", X)
CONTINUE = change(writing.claim_continuation, 1, "task_2", owner="p")
REPAIR = change(writing.claim_repair, 1, NextRound(RoundKind.NUDGE, "task_2", "sess_1"), failed=None, owner="q")
FAIL = change(writing.fail_round, 1, fence=1, error=None)
FINISH = {**ASKED, "status": TaskStatus.COMPLETED}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (CANCEL, START),
        (CANCEL, ANSWER),
        (CANCEL, CONTINUE),
        (CANCEL, change(writing.pause)),
        (CANCEL, CANCEL),
        (START, START),
        (ANSWER, ANSWER),
        (ANSWER_ALL, START),
    ],
)
def test_who_comes_second_changes_nothing(
    pair: Pair, first: Callable[[Connection], Any], second: Callable[[Connection], Any]
) -> None:
    assert pair.second_after(first, second) is False


def test_a_call_of_a_canceled_task_is_not_started(pair: Pair) -> None:
    pair.second_after(CANCEL, START)
    task = pair.do(reading.load, NEW.id)
    assert [call.state for call in task.current.calls] == [CallState.REQUESTED] * 2


@pytest.mark.parametrize("second", [CONTINUE, change(writing.claim_continuation, 1, "task_3", owner="q")])
def test_a_round_is_claimed_by_who_was_first(pair: Pair, second: Callable[[Connection], Any]) -> None:
    pair.do(ANSWER_ALL)
    assert pair.second_after(CONTINUE, second) is False
    assert [round_.owner for round_ in pair.do(reading.load, NEW.id).rounds] == ["p", "p"]


def test_a_round_that_is_being_sent_is_taken_over_after_it(pair: Pair) -> None:
    pair.do(ANSWER_ALL)
    pair.do(CONTINUE)
    send = change(writing.mark_sending, 2, fence=1, owner="p")
    take = change(writing.take_over, 2, fence=1, owner="q")
    assert pair.do(send)
    assert pair.second_after(take, send) is False, "two were told to send the round"
    assert pair.do(take) is False
    assert pair.do(change(writing.mark_sending, 2, fence=2, owner="q"))


def test_a_settled_round_is_not_repaired_and_not_failed(pair: Pair) -> None:
    pair.do(ANSWER_ALL)
    pair.do(CONTINUE)
    done = TaskObject(id="task_2", status=TaskStatus.COMPLETED)
    settle = change(writing.settle_round, 2, done, **FINISH)
    repair = change(writing.claim_repair, 2, NextRound(RoundKind.NUDGE, "task_3", "s"), failed=None, owner="q")
    assert pair.second_after(settle, repair) is False
    assert pair.second_after(settle, settle) is False
    assert pair.do(change(writing.fail_round, 2, fence=1, error=None)) is False


def test_of_two_results_the_first_stands(pair: Pair) -> None:
    with pytest.raises(AlreadyAnswered):
        pair.second_after(change(writing.submit, {"a": X}), change(writing.submit, {"b": X, "a": Y}))
    task = pair.do(reading.load, NEW.id)
    assert [call.result for call in task.current.calls] == [X, None], "half of a refused submit was kept"


def test_an_approval_waits_for_who_asks_for_it(pair: Pair) -> None:
    require = change(writing.require_approval, 1, "a")
    task = pair.second_after(require, change(writing.approve, {"a": None}))
    assert task.current.calls[0].approval is ApprovalState.GRANTED


def test_a_session_takes_one_task_at_a_time(pair: Pair) -> None:
    pair.do(CANCEL)

    def go_on(task_id: str, **fields: Any) -> Callable[[Connection], Any]:
        new = replace(NEW, id=task_id, continue_task=NEW.id, **fields)
        return lambda connection: writing.create_task(connection, new, owner="p")

    with pytest.raises(InvalidRequestError, match="Task task_2 is still going on in the session"):
        pair.second_after(go_on("task_2"), go_on("task_3"))
    pair.do(writing.finish, "task_2", TaskStatus.CANCELED, None)
    again, created = pair.second_after(go_on("task_4", request_id="r"), go_on("task_5", request_id="r"))
    assert (again.id, created) == ("task_4", False)


def test_a_request_id_taken_meanwhile_is_a_key_that_is_taken(pair: Pair) -> None:
    """The ledger tries such a transaction again, and then finds what was first."""

    def ask(task_id: str) -> Callable[[Connection], Any]:
        new = replace(NEW, id=task_id, request_id="r")
        return lambda connection: writing.create_task(connection, new, owner="p")

    with pytest.raises(IntegrityError):
        pair.second_after(ask("task_2"), ask("task_3"))


def test_what_is_read_is_one_moment(pair: Pair, on_postgres: str) -> None:
    """A record whose task is of before a change and whose rounds are of after it would be believed."""
    with reader_of(pair._engine).begin() as connection:
        before = reading.load(connection, NEW.id)
        pair.do(ANSWER_ALL)
        assert reading.load(connection, NEW.id) == before
        with pytest.raises(Exception, match="read-only transaction"):
            CANCEL(connection)


@anyio_test
async def test_text_of_a_model_with_a_nul_is_kept_as_far_as_it_can_be(where: str) -> None:
    async with Ledger(where) as ledger:
        await create(ledger)
        done = TaskObject.model_validate({"id": NEW.id, "status": "completed", "output": []})
        told = {**ASKED, "status": TaskStatus.COMPLETED, "answer": "before\0after"}
        assert await ledger.write(writing.settle_round, NEW.id, 1, done, **told)
        task = await ledger.read(reading.load, NEW.id)
    assert task is not None
    assert task.answer in {"before\0after", "before\ufffdafter"}


@anyio_test
async def test_a_connection_lost_before_the_commit_is_no_ones_concern(on_postgres: str) -> None:
    async with Ledger(on_postgres) as ledger:
        await create(ledger)
        cut: list[int] = []

        def cut_once(connection: Connection, task_id: str) -> None:
            writing.annotate(connection, task_id, {"tries": len(cut) + 1})
            if not cut:
                pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
                cut.append(pid)
                _end(on_postgres, pid)
                connection.execute(text("SELECT 1"))

        await ledger.write(cut_once, NEW.id)
        task = await ledger.read(reading.load, NEW.id)
    assert task is not None
    assert task.metadata == {"tries": 2}


@anyio_test
async def test_a_connection_lost_at_the_commit_is_told(on_postgres: str) -> None:
    async with Ledger(on_postgres) as ledger:
        await create(ledger)

        def cut(connection: Connection, task_id: str) -> None:
            writing.annotate(connection, task_id, {"a": 1})
            _end(on_postgres, connection.execute(text("SELECT pg_backend_pid()")).scalar_one())

        with pytest.raises(LedgerError, match=r"was lost while it stored .*nobody knows.* Next: do the same again"):
            await ledger.write(cut, NEW.id)
        task = await ledger.read(reading.load, NEW.id)
    assert task is not None
    assert task.metadata == {}


@anyio_test
async def test_a_database_that_stays_away_is_told(on_postgres: str) -> None:
    async with Ledger(on_postgres) as ledger:
        await create(ledger)
        tries: list[int] = []

        def cut(connection: Connection) -> None:
            pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
            tries.append(pid)
            _end(on_postgres, pid)
            connection.execute(text("SELECT 1"))

        with pytest.raises(LedgerError, match=r"failed: .* Next: check that PostgreSQL runs"):
            await ledger.read(cut)
    assert len(tries) == ledger_module.TRIES


def _end(where: str, pid: int) -> None:
    engine = opened(where)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid}).scalar()
    engine.dispose()
