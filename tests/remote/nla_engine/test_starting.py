"""Starting once: lost replies are looked for in the list, and nothing is ever sent twice."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from agentlin_bridge.errors import RemoteError, RemoteNotFound, RemoteUnavailable, ReplyLost
from agentlin_bridge.remote.nla_engine import starting
from agentlin_bridge.remote.nla_engine.backend import NlaEngineBackend
from agentlin_bridge.remote.nla_engine.pace import Pace
from agentlin_bridge.task import TaskStatus
from tests.remote.nla_engine.asking import ended, request, texts_of
from tests.remote.nla_engine.conftest import Open
from tests.support.nla_engine import NlaEngine, Run, done

pytestmark = pytest.mark.anyio

UNKNOWN = r"Whether NLA Engine runs the agent 'writer' for this task is unknown: .* is not sent again"
CALLBACK = {"callback": "http://127.0.0.1:9/hook"}


def answering(reply: Any, **fields: Any) -> NlaEngine:
    """An engine whose runs complete, and whose starts are answered like this."""

    def behave(agent: str, body: dict[str, Any]) -> Run:
        run = done({"answer": f"{agent}: {body['input']['prompt']}"})
        run.reply = reply
        for name, value in fields.items():
            setattr(run, name, value)
        return run

    return NlaEngine(behave)


async def unknown(backend: NlaEngineBackend, **fields: Any) -> RemoteError:
    """Start a task whose outcome nobody can tell; it stays so, and is not sent again."""
    asked = request(**fields)
    with pytest.raises(RemoteError, match=UNKNOWN) as raised:
        await backend.start(asked)
    assert type(raised.value) is RemoteError, "anything else would make the core send it again"
    with pytest.raises(RemoteError, match=UNKNOWN) as again:
        await backend.retrieve(asked.remote_id)
    assert type(again.value) is RemoteError
    assert (again.value.status, again.value.next_step) == (raised.value.status, raised.value.next_step)
    with pytest.raises(RemoteError, match="was sent before, and is not sent again"):
        await backend.start(asked)
    return raised.value


@pytest.mark.parametrize("options", [{}, CALLBACK])
@pytest.mark.parametrize("reply", ["lost", "html", "no id", 500, 502, 408])
@pytest.mark.parametrize("has_details", [True, False])
async def test_a_lost_reply_is_found_in_the_list(
    open_backend: Open, reply: Any, options: dict[str, Any], has_details: bool
) -> None:
    engine = answering(reply)
    engine.has_details = has_details
    async with open_backend(engine) as (backend, _):
        others = [engine.add(), engine.add("painter")]
        asked = request(options=options)
        task = await backend.start(asked)
        assert task.id not in others
        assert (await backend.retrieve(asked.remote_id)).id == task.id
        assert texts_of(await ended(backend, task.id)) == ["writer: a heist in space"]
    assert engine.count("POST /workflow/writer") == 1


@pytest.mark.parametrize("options", [{}, CALLBACK])
@pytest.mark.parametrize(("reply", "status"), [("unstored", None), (500, 500)])
async def test_a_run_that_never_shows_is_unknown(
    open_backend: Open, reply: Any, status: int | None, options: dict[str, Any]
) -> None:
    async with open_backend(answering(reply, is_stored=False)) as (backend, engine):
        engine.add("painter", agentId="painter")
        error = await unknown(backend, options=options)
    assert error.status == status
    assert "its list shows no new task" in error.message
    assert "look into NLA Engine's list of tasks" in error.next_step
    assert engine.count("POST /workflow/writer") == 1


@pytest.mark.parametrize("options", [{}, CALLBACK])
async def test_a_run_that_shows_late_is_found(open_backend: Open, options: dict[str, Any]) -> None:
    async with open_backend(answering("lost", unlisted=3), pace=Pace(first=0.02, settle=1)) as (backend, engine):
        task = await backend.start(request(options=options))
        assert task.id in engine.tasks


async def test_two_new_tasks_are_one_too_many(open_backend: Open) -> None:
    """Somebody else with the same key starts the same agent meanwhile."""
    engine = answering("lost")
    behave = engine.behave

    def with_another(agent: str, body: dict[str, Any]) -> Run:
        engine.add()
        return behave(agent, body)

    engine.behave = with_another
    async with open_backend(engine) as (backend, _):
        error = await unknown(backend)
        assert "(2 found)" in error.message
        task = await backend.start(request(options=CALLBACK))
        assert engine.tasks[task.id]["callback"].startswith("http://127.0.0.1:9/hook#task_"), "the mark tells it"


async def test_the_first_new_task_is_not_taken_for_it(open_backend: Open) -> None:
    """Somebody else's shows at once, ours a moment later."""
    engine = answering("lost", unlisted=2)
    behave = engine.behave

    def with_another(agent: str, body: dict[str, Any]) -> Run:
        engine.add()
        return behave(agent, body)

    engine.behave = with_another
    async with open_backend(engine, pace=Pace(first=0.02, settle=0.5)) as (backend, _):
        assert "(2 found)" in (await unknown(backend)).message


@pytest.mark.parametrize(
    "others", [{"agentId": "painter"}, {"callback": "https://other.example"}, {"callback": "x#task_1"}]
)
async def test_tasks_that_cannot_be_it_do_not_confuse(open_backend: Open, others: dict[str, Any]) -> None:
    engine = answering("lost")
    behave = engine.behave
    added = []

    def with_another(agent: str, body: dict[str, Any]) -> Run:
        added.append(engine.add(**others))
        return behave(agent, body)

    engine.behave = with_another
    async with open_backend(engine) as (backend, _):
        assert (await backend.start(request())).id not in added


async def test_two_lost_starts_at_once_are_not_guessed(open_backend: Open) -> None:
    """One of the two runs exists. Whose it is, nothing tells: nobody gets it."""
    replies = ["lost", "unstored"]
    engine = answering("lost")
    both = anyio.Event()

    def behave(agent: str, body: dict[str, Any]) -> Run:
        run = done("x")
        run.reply = replies.pop()  # type: ignore[assignment]
        if not replies:
            both.set()
        run.gate = both
        return run

    engine.behave = behave
    failed = []

    async def one(backend: NlaEngineBackend) -> None:
        with pytest.raises(RemoteError, match=UNKNOWN) as raised:
            await backend.start(request())
        failed.append(raised.value)

    async with open_backend(engine) as (backend, _), anyio.create_task_group() as group:
        group.start_soon(one, backend)
        group.start_soon(one, backend)
    assert len(failed) == 2
    assert len(engine.starts) == 2


async def test_starts_that_were_answered_are_nobody_elses(open_backend: Open) -> None:
    engine = answering("lost")
    lose = engine.behave
    hold, sent = anyio.Event(), anyio.Event()

    def behave(agent: str, body: dict[str, Any]) -> Run:
        if body["input"]["prompt"] == "quick":
            return done("x")
        sent.set()
        run = lose(agent, body)
        run.gate = hold
        return run

    engine.behave = behave
    found = []

    async def lost(backend: NlaEngineBackend) -> None:
        found.append((await backend.start(request("slow"))).id)

    async with open_backend(engine) as (backend, _):
        async with anyio.create_task_group() as group:
            group.start_soon(lost, backend)
            await sent.wait()
            quick = await backend.start(request("quick"))
            hold.set()
        assert found
        assert found != [quick.id]


async def test_without_a_list_nothing_is_guessed(open_backend: Open) -> None:
    async with open_backend(answering("lost"), compares=False) as (backend, engine):
        assert "there is no list to find it by" in (await unknown(backend)).message
        assert engine.requests == ["POST /workflow/writer"]
        assert (await backend.start(request(options=CALLBACK))).id in engine.tasks, "a mark needs no comparison"
    async with open_backend(answering("lost")) as (backend, engine):
        engine.failing["GET /task"] = ['{"no": "list"}', '{"no": "list"}', 0]
        assert "there is no list to find it by" in (await unknown(backend)).message
    async with open_backend(answering("lost")) as (backend, engine):
        engine.failing["GET /task"] = ['{"no": "list"}']
        assert "there is no list to find it by" in (await unknown(backend, options=CALLBACK)).message


async def test_a_list_that_fails_for_a_moment(open_backend: Open) -> None:
    async with open_backend(answering("lost"), pace=Pace(first=0.01, settle=0.5)) as (backend, engine):
        engine.failing["GET /task"] = [0, '"hm"', '"hm"', 0]
        assert (await backend.start(request())).id in engine.tasks


async def test_nothing_is_sent_while_the_list_cannot_be_reached(open_backend: Open) -> None:
    async with open_backend() as (backend, engine):
        engine.failing["GET /task"] = [429]
        with pytest.raises(RemoteUnavailable, match="overloaded"):
            await backend.start(asked := request())
        assert engine.starts == []
        engine.failing.clear()
        assert (await backend.start(asked)).id in engine.tasks


async def test_until_it_is_answered_it_is_not_there(open_backend: Open) -> None:
    gate = anyio.Event()
    engine = answering(201, gate=gate)
    asked = request()
    async with open_backend(engine) as (backend, _), anyio.create_task_group() as group:
        group.start_soon(backend.start, asked)
        await engine.started.wait()
        with pytest.raises(RemoteNotFound):
            await backend.retrieve(asked.remote_id)
        with pytest.raises(RemoteError, match="was sent before"):
            await backend.start(asked)
        gate.set()
    assert len(engine.starts) == 1


# After a restart ----------------------------------------------------------------------------------------


async def looked_for(backend: NlaEngineBackend, task_id: str) -> str:
    """The id that a start of another process turns out to have."""
    while True:
        try:
            return (await backend.retrieve(task_id)).id
        except ReplyLost:
            await anyio.sleep(0.01)


async def test_a_marked_start_of_another_process_is_found(open_backend: Open) -> None:
    engine = answering("lost", unlisted=2)
    async with open_backend(engine, pace=Pace(first=0.01, settle=1)) as (backend, _):
        asked = request()
        (task_id,) = [engine.add(callback=f"https://x.example/#{asked.remote_id}")]
        engine._unlisted[task_id] = 2
        assert await looked_for(backend, asked.remote_id) == task_id
        listings = engine.count("GET /task")
        await backend.retrieve(asked.remote_id)
        assert engine.count("GET /task") == listings


async def test_a_start_of_another_process_that_cannot_be_found(open_backend: Open) -> None:
    asked = request()
    async with open_backend(pace=Pace(first=0.05, settle=0.2)) as (backend, engine):
        for _ in range(2):
            with pytest.raises(
                RemoteError, match=r"its list shows none marked with task_.* is not sent again"
            ) as raised:
                await looked_for(backend, asked.remote_id)
            assert type(raised.value) is RemoteError
        assert 2 <= engine.count("GET /task") <= 8, "it is asked for once in a pause"
        late = engine.add(callback=f"x#{asked.remote_id}")
        await anyio.sleep(0.06)
        assert (await backend.retrieve(asked.remote_id)).id == late
    assert engine.starts == []


async def test_who_looked_before_it_was_sent_does_not_stand_in_its_way(open_backend: Open) -> None:
    asked = request()
    async with open_backend() as (backend, engine):
        with pytest.raises(ReplyLost):
            await backend.retrieve(asked.remote_id)
        task = await backend.start(asked)
        assert (await backend.retrieve(asked.remote_id)).id == task.id
    assert len(engine.starts) == 1


@pytest.mark.parametrize("when", ["listing", "starting"])
async def test_an_interrupted_start(open_backend: Open, when: str) -> None:
    gate = anyio.Event()
    engine = answering(201, gate=gate)
    asked = request(options=CALLBACK if when == "starting" else {})
    async with open_backend(engine) as (backend, _):
        if when == "listing":
            # The first look fails, and its repetition is waited for.
            engine.failing["GET /task"] = ["cut"]
        async with anyio.create_task_group() as group:
            group.start_soon(backend.start, asked)
            if when == "starting":
                await engine.started.wait()
            else:
                await engine.came.wait()
            group.cancel_scope.cancel()
        gate.set()
        engine.failing.clear()
        if when == "starting":
            assert await looked_for(backend, asked.remote_id) in engine.tasks
            assert len(engine.starts) == 1
        else:
            assert (await backend.start(asked)).status is TaskStatus.WORKING
            assert len(engine.starts) == 1


async def test_only_so_many_starts_are_remembered(open_backend: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "REMEMBERED", 2)
    asked = [request() for _ in range(3)]
    async with open_backend() as (backend, engine):
        for each in asked:
            await backend.start(each)
        assert (await backend.retrieve(asked[2].remote_id)).id in engine.tasks
        with pytest.raises(ReplyLost):
            await backend.retrieve(asked[0].remote_id)
