"""Several processes, each with a bridge of its own, on one PostgreSQL ledger."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import psycopg
import pytest
from anyio.abc import Process, TaskGroup
from anyio.streams.text import TextReceiveStream

from agentlin_bridge import AlreadyAnswered, RequestConflict, Task, TaskStatus
from tests.support.postgres import Postgres
from tests.support.postgres import postgres as postgres  # noqa: PLC0414 - a fixture
from tests.support.processes import subprocess_environment
from tests.support.remote import Json, ScriptedRemote, Turn, call, message, results_of

pytestmark = pytest.mark.anyio

KILL_POINTS = [
    (name, when)
    for name in ("mark_sending", "mark_seen", "settle_round", "start_call", "answer_call", "claim_continuation")
    for when in ("before", "after")
] + [("create_task", "after")]


def acting(body: Json) -> Turn:
    results = results_of(body)
    return Turn([message(results["c"])] if results else [call("c", "act", {"what": "it"})])


class Bridge:
    """A process with a bridge, and the answers it has given."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.instance = ""
        self.ready = anyio.Event()
        self._numbers = itertools.count(1)
        self._answers: dict[int, Any] = {}
        self._answered: dict[int, anyio.Event] = {}

    async def listen(self) -> None:
        assert self.process.stdout is not None
        held = ""
        async for text in TextReceiveStream(self.process.stdout):
            *lines, held = (held + text).split("\n")
            for number, answer in map(json.loads, lines):
                if number == 0:
                    self.instance = answer
                    self.ready.set()
                else:
                    self._answers[number] = answer
                    self._answered[number].set()

    async def ask(self, verb: str, *positional: Any, **keywords: Any) -> int:
        number = next(self._numbers)
        self._answered[number] = anyio.Event()
        assert self.process.stdin is not None
        await self.process.stdin.send(json.dumps([number, verb, positional, keywords]).encode() + b"\n")
        return number

    async def answer(self, number: int) -> Any:
        await self._answered[number].wait()
        return self._answers[number]

    async def do(self, verb: str, *positional: Any, **keywords: Any) -> Task:
        return Task.model_validate(await self.answer(await self.ask(verb, *positional, **keywords)))

    async def fails(self, verb: str, *positional: Any, **keywords: Any) -> str:
        answer = await self.answer(await self.ask(verb, *positional, **keywords))
        assert "raised" in answer, answer
        return str(answer["raised"])

    async def dead(self) -> None:
        assert await self.process.wait() == -signal.SIGKILL


class Place:
    """A remote, a ledger, and the processes that share them."""

    def __init__(
        self, remote: ScriptedRemote, ledger: str, acts: Path, group: TaskGroup, stack: AsyncExitStack
    ) -> None:
        self.remote = remote
        self.ledger = ledger
        self._acts = acts
        self._group = group
        self._stack = stack

    @property
    def acts(self) -> list[str]:
        return self._acts.read_text(encoding="utf-8").split() if self._acts.exists() else []

    async def start(self, handler: str = "answer", **options: Any) -> Bridge:
        given = {"url": self.remote.base_url, "ledger": self.ledger, "acts": str(self._acts), "handler": handler}
        process = await anyio.open_process(
            [sys.executable, "-m", "tests.flow.bridge_process", json.dumps({**given, **options})],
            stdin=subprocess.PIPE,
            stderr=None,
            env=subprocess_environment(),
            cwd=Path(__file__).parents[2],
        )
        self._stack.push_async_callback(_ended, process)
        bridge = Bridge(process)
        self._group.start_soon(bridge.listen)
        await bridge.ready.wait()
        return bridge

    async def start_two(self, *handlers: str) -> list[Bridge]:
        found: list[Bridge] = []

        async def one(handler: str) -> None:
            found.append(await self.start(handler))

        async with anyio.create_task_group() as group:
            for handler in handlers:
                group.start_soon(one, handler)
        return found

    def hold(self, which: Callable[[Json], bool]) -> tuple[anyio.Event, anyio.Event]:
        """Hold the rounds that are meant: events for their arrival, and to let them go."""
        arrived, gate = anyio.Event(), anyio.Event()

        def held(body: Json) -> Turn:
            turn = acting(body)
            if which(body):
                arrived.set()
                turn.gate = gate
            return turn

        self.remote.agent = held
        return arrived, gate

    def sent_once(self) -> bool:
        """Whether the remote got each round, and each once."""
        ids = [post["task_id"] for post in self.remote.posts]
        return len(ids) == len(set(ids))


async def _ended(process: Process) -> None:
    with anyio.CancelScope(shield=True):
        if process.returncode is None:
            assert process.stdin is not None
            await process.stdin.aclose()
            with anyio.move_on_after(10):
                await process.wait()
        if process.returncode is None:
            process.kill()
        await process.aclose()


@pytest.fixture
def placing(postgres: Postgres, tmp_path: Path) -> Callable[[], Any]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Place]:
        with anyio.fail_after(200):
            async with (
                ScriptedRemote(acting).serve() as remote,
                anyio.create_task_group() as group,
                AsyncExitStack() as stack,
            ):
                yield Place(remote, postgres.new_database(), tmp_path / "acts", group, stack)

    return opened


async def test_created_on_one_answered_on_the_other(placing: Any) -> None:
    async with placing() as place:
        one, other = await place.start_two("none", "none")
        task = await one.do("run", "act")
        assert [pending.call_id for pending in task.pending] == ["c"]
        waiting = await one.ask("wait", task.id)
        assert (await other.do("submit", task.id, {"c": "by the other"})).id == task.id
        assert (await other.do("wait", task.id)).answer == "by the other"
        assert (await one.do("wait", task.id)).answer == "by the other"
        await one.answer(waiting)
        assert len(place.remote.posts) == 2
        assert place.sent_once()


async def test_a_wait_returns_when_another_process_ends_the_task(placing: Any) -> None:
    """The waiting process is told: a look of its own would come after this test's patience."""
    async with placing() as place:
        arrived, _ = place.hold(lambda body: True)
        one, other = await place.start_two("none", "none")
        task = await one.do("create", "act")
        await arrived.wait()
        waiting = await one.ask("wait", task.id)
        await one.do("retrieve", task.id)
        with anyio.fail_after(8):
            assert (await other.do("cancel", task.id)).status is TaskStatus.CANCELED
            assert (await one.answer(waiting))["status"] == "canceled"


async def test_killed_while_the_first_round_runs(placing: Any) -> None:
    async with placing() as place:
        arrived, gate = place.hold(lambda body: not results_of(body))
        victim, survivor = await place.start_two("answer", "answer")
        task = await victim.do("create", "act")
        await arrived.wait()
        waiting = await survivor.ask("wait", task.id)
        await survivor.do("retrieve", task.id)
        victim.process.kill()
        await victim.dead()
        gate.set()
        assert (await survivor.answer(waiting))["answer"] == "did it"
        assert place.acts == ["it"]
        assert len(place.remote.posts) == 2


async def test_killed_inside_a_handler(placing: Any) -> None:
    async with placing() as place:
        survivor = await place.start()
        victim = await place.start("die")
        task = await victim.ask("run", "act", request_id="r")
        await victim.dead()
        assert task
        found = await survivor.do("create", "act", request_id="r")
        found = await survivor.do("wait", found.id)
        assert [(c.call_id, c.outcome_unknown) for c in found.pending] == [("c", True)]
        assert place.acts == ["it"], "a handler that may have run was run again"
        await survivor.do("submit", found.id, {"c": "looked: it was done"})
        assert (await survivor.do("wait", found.id)).answer == "looked: it was done"


async def test_an_idempotent_handler_runs_again(placing: Any) -> None:
    async with placing() as place:
        survivor = await place.start(idempotent=True)
        victim = await place.start("die", idempotent=True)
        await victim.ask("run", "act", request_id="r")
        await victim.dead()
        found = await survivor.do("create", "act", request_id="r")
        assert (await survivor.do("wait", found.id)).answer == "did it"
        assert place.acts == ["it", "it"]


async def test_killed_while_the_result_is_delivered(placing: Any) -> None:
    async with placing() as place:
        arrived, gate = place.hold(lambda body: bool(results_of(body)))
        victim, survivor = await place.start_two("answer", "answer")
        task = await victim.do("create", "act")
        await arrived.wait()
        waiting = await survivor.ask("wait", task.id)
        await survivor.do("retrieve", task.id)
        victim.process.kill()
        await victim.dead()
        gate.set()
        assert (await survivor.answer(waiting))["answer"] == "did it"
        assert place.acts == ["it"]
        assert len(place.remote.posts) == 2


async def test_killed_at_every_transaction(placing: Any) -> None:
    """Whatever the dead process had just written down, or not yet, the living one brings its task to an end."""
    async with placing() as place:
        survivor = await place.start()
        for number, (name, when) in enumerate(KILL_POINTS):
            before = len(place.acts)
            victim = await place.start(die_at=(name, when))
            await victim.ask("run", "act", request_id=f"r{number}")
            await victim.dead()
            task = await survivor.do("create", "act", request_id=f"r{number}")
            task = await survivor.do("wait", task.id)
            began = (name, when) in {("start_call", "after"), ("answer_call", "before")}
            assert [pending.outcome_unknown for pending in task.pending] == [True] * began, (name, when)
            if began:
                await survivor.do("submit", task.id, {"c": "did it"})
                task = await survivor.do("wait", task.id)
            assert task.answer == "did it", (name, when)
            ran = len(place.acts) - before
            assert ran == (0 if (name, when) == ("start_call", "after") else 1), (name, when)
        assert place.sent_once()


async def test_both_answer_the_same_call_at_once(placing: Any) -> None:
    async with placing() as place:
        both = await place.start_two("none", "none")
        for number in range(5):
            task = await both[0].do("run", f"act {number}")
            asked = [await bridge.ask("submit", task.id, {"c": f"by {bridge.instance}"}) for bridge in both]
            answers = [await bridge.answer(n) for bridge, n in zip(both, asked, strict=True)]
            refused = [answer["raised"] for answer in answers if "raised" in answer]
            assert refused == [AlreadyAnswered.__name__]
            first = both["raised" in answers[0]]
            assert (await both[1].do("wait", task.id)).answer == f"by {first.instance}"
        assert place.sent_once()
        assert len(place.remote.posts) == 10


async def test_both_run_the_same_handler_at_once(placing: Any) -> None:
    """A task that both drive, each with a handler: it runs in one of them, and one delivers."""
    async with placing() as place:
        arrived, gate = place.hold(lambda body: not results_of(body))
        both = await place.start_two("answer", "answer")
        task = await both[0].do("create", "act")
        await arrived.wait()
        waiting = [await bridge.ask("wait", task.id) for bridge in both]
        gate.set()
        for bridge, number in zip(both, waiting, strict=True):
            assert (await bridge.answer(number))["answer"] == "did it"
        assert place.acts == ["it"]
        assert place.sent_once()


async def test_a_request_id_used_on_both_at_once(placing: Any) -> None:
    async with placing() as place:
        both = await place.start_two("answer", "answer")
        for number in range(10):
            key = {"request_id": f"r{number}"}
            asked = [await bridge.ask("create", "act", **key) for bridge in both]
            ids = {(await bridge.answer(n))["id"] for bridge, n in zip(both, asked, strict=True)}
            assert len(ids) == 1
            assert (await both[number % 2].do("wait", ids.pop())).answer == "did it"
            assert await both[1].fails("create", "something else", **key) == RequestConflict.__name__
        assert place.acts == ["it"] * 10
        assert len(place.remote.posts) == 20
        assert place.sent_once()


async def test_a_process_whose_connections_are_cut_goes_on(placing: Any) -> None:
    """What it had claimed is still its own, as long as nobody took it over."""
    async with placing() as place:
        arrived, gate = place.hold(lambda body: not results_of(body))
        one, other = await place.start_two("answer", "none")
        task = await one.do("create", "act")
        await arrived.wait()
        waiting = await one.ask("wait", task.id)
        looking = await other.ask("wait", task.id)
        await one.do("retrieve", task.id)
        with psycopg.connect(place.ledger, autocommit=True) as connection:
            cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
            assert len(connection.execute(cut, (one.instance,)).fetchall()) >= 2
            again = "SELECT 1 FROM pg_stat_activity WHERE application_name = %s"
            while not connection.execute(again, (one.instance,)).fetchall():
                await anyio.lowlevel.checkpoint()
        gate.set()
        # In the moment of the cut the other may have taken one for dead: then its wait ends early, and is repeated.
        await one.answer(waiting)
        await other.answer(looking)
        for bridge in (one, other):
            assert (await bridge.do("wait", task.id)).answer == "did it"
        assert place.acts == ["it"]
        assert place.sent_once()
