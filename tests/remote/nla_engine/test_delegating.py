"""The core on this backend: what a host sees of a remote that takes no tools, keeps its own ids and cannot stop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import SecretStr

from agentlin_bridge import ClientTool, Limits, Task, TaskBridge, TaskStatus
from agentlin_bridge.errors import InvalidRequestError, TaskNotFound, UnsupportedError
from agentlin_bridge.remote.agentlin.backend import AgentlinBackend
from agentlin_bridge.remote.agentlin.endpoint import Address, FixedEndpoint
from agentlin_bridge.remote.nla_engine.backend import NlaEngineBackend
from agentlin_bridge.remote.nla_engine.pace import Pace
from tests.remote.nla_engine.conftest import FAST
from tests.support.nla_engine import NlaEngine, Run, done, echo
from tests.support.remote import ScriptedRemote, Turn, message

pytestmark = pytest.mark.anyio

CALLBACK = {"callback": "http://127.0.0.1:9/hook"}
PROVIDER_KEY = "r8_0123456789abcdef"
IMPATIENT = Limits(settle=0.02)
"""The core gives up looking long before the backend does: even then nothing may be sent twice."""

Open = Callable[..., AbstractAsyncContextManager[TaskBridge]]


@pytest.fixture
def open_bridge(tmp_path: Path) -> Open:
    """Opens a bridge on an engine that listens already, and on the test's ledger."""

    @asynccontextmanager
    async def opened(
        engine: NlaEngine, *, limits: Limits = IMPATIENT, key: str = "engine-key", pace: Pace = FAST, **settings: Any
    ) -> AsyncIterator[TaskBridge]:
        backend = NlaEngineBackend(
            engine.base_url,
            SecretStr(key),
            agent_id="writer",
            pace=pace,
            secrets={"REPLICATE_KEY": SecretStr(PROVIDER_KEY)},
        )
        async with TaskBridge(backend, ledger=tmp_path / "ledger.sqlite3", limits=limits, **settings) as bridge:
            yield bridge

    return opened


async def ran(engine: NlaEngine, open_bridge: Open, **request: Any) -> Task:
    with anyio.fail_after(20):
        async with engine.serve(), open_bridge(engine) as bridge:
            return await bridge.run("a heist", **request)


async def test_a_task_is_delegated_and_answered(open_bridge: Open) -> None:
    engine = NlaEngine()
    task = await ran(engine, open_bridge, attachments=["in space"], options={"agent_id": "movie"})
    assert (task.status, task.answer) == (TaskStatus.COMPLETED, "movie: a heist\n\nin space")
    assert engine.starts == [{"input": {"prompt": "a heist\n\nin space"}}]


async def test_what_it_cannot_do_is_refused_before_anything_is_created(open_bridge: Open) -> None:
    engine = NlaEngine()
    image = {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}
    tool = ClientTool("look", "Look.", {"type": "object"})
    with anyio.fail_after(20):
        async with engine.serve(), open_bridge(engine) as bridge:
            first = await bridge.run("a heist")
            sent = len(engine.requests)
            for request in (
                {"client_tools": [tool]},
                {"attachments": [image]},
                {"continue_task": first.id},
                {"options": {"input": {"apikey": "x"}}},
                {"options": {"agent": "movie"}},
            ):
                with pytest.raises(InvalidRequestError):
                    await bridge.create("a heist", **request)
            running = await bridge.create("a heist")
            with pytest.raises(UnsupportedError):
                await bridge.pause(running.id)
            await bridge.wait(running.id)
            assert [task.id async for task in bridge.list()] == [running.id, first.id]
    assert engine.requests[sent:].count("POST /workflow/writer") == 1


async def test_progress_is_the_log(open_bridge: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentlin_bridge.delegation.watching.INTERVAL", 0.02)
    lines = ["Synopsis: Running", "Response: x", "Draft: Running"]
    engine = NlaEngine(lambda agent, body: Run([{"logs": lines[:1]}]))
    texts = []
    with anyio.fail_after(20):
        async with engine.serve(), open_bridge(engine) as bridge:
            task = await bridge.create("a heist")
            async for progress in bridge.events(task.id):
                texts.append(progress.text)
                if written := len(progress.text.splitlines()):
                    # What comes next is written once this was told.
                    (remote,) = engine.tasks.values()
                    ending = {"status": "complete", "output": "The end."}
                    remote |= {"logs": lines[: written + 1]} if written < len(lines) else ending
    assert texts[-1] == "The end."
    assert [text for text in dict.fromkeys(texts) if text][:-1] == ["\n".join(lines[:count]) for count in (1, 2, 3)]


async def test_a_cancelled_task_goes_on_there(open_bridge: Open) -> None:
    engine = NlaEngine(lambda agent, body: Run())
    with anyio.fail_after(20):
        async with engine.serve(), open_bridge(engine) as bridge:
            task = await bridge.create("a heist")
            await engine.started.wait()
            task = await bridge.cancel(task.id)
            assert (task.status, task.remote) == (TaskStatus.CANCELED, "unsupported")
            assert (await bridge.delete(task.id)).remote == "unsupported"
            with pytest.raises(TaskNotFound):
                await bridge.retrieve(task.id)
    assert not any(request.endswith("cancel") for request in engine.requests)


async def test_a_finished_task_is_deleted_there(open_bridge: Open) -> None:
    engine = NlaEngine()
    with anyio.fail_after(20):
        async with engine.serve(), open_bridge(engine) as bridge:
            task = await bridge.run("a heist")
            assert (await bridge.delete(task.id)).remote == "stopped"
    assert engine.tasks == {}


async def test_a_task_that_never_ends(open_bridge: Open) -> None:
    engine = NlaEngine(lambda agent, body: Run())
    with anyio.fail_after(20):
        async with engine.serve(), open_bridge(engine) as bridge:
            task = await bridge.run("a heist", deadline=0.5)
            while task.remote is None:
                # The task is over first; what that did to the run is put on record next.
                task = await bridge.retrieve(task.id)
            assert (task.status, task.remote) == (TaskStatus.EXPIRED, "unsupported")
            assert task.error is not None
            assert "deadline" in task.error.message
        pace = Pace(first=0.01, longest=0.01, deadline=0.2)
        async with engine.serve(), open_bridge(engine, pace=pace, limits=Limits()) as bridge:
            task = await bridge.run("a heist")
            assert task.status is TaskStatus.EXPIRED
            assert task.error is not None
            assert "still says 'running'" in task.error.message


async def test_faults_end_the_task_with_their_cause(open_bridge: Open) -> None:
    failing = NlaEngine(lambda agent, body: Run([{"status": "error", "logs": ["Writer: no credit"]}]))
    task = await ran(failing, open_bridge)
    assert task.status is TaskStatus.FAILED
    assert task.error is not None
    assert "no credit" in task.error.message
    engine = NlaEngine(lambda agent, body: Run())
    with anyio.fail_after(30):
        async with engine.serve():
            async with open_bridge(engine, key="wrong-key") as bridge:
                task = await bridge.run("a heist")
                assert task.error is not None
                assert "refused the key" in task.error.message
                assert "NLA_ENGINE_API_KEY" in task.error.message
            async with open_bridge(engine) as bridge:
                created = await bridge.create("a heist")
                await engine.looked.wait()
                engine.tasks.clear()
                task = await bridge.wait(created.id)
                assert task.status is TaskStatus.FAILED
                assert task.error is not None
                assert "no longer knows" in task.error.message


@pytest.mark.parametrize(
    ("reply", "is_stored", "options", "status"),
    [
        ("lost", True, {}, TaskStatus.COMPLETED),
        ("lost", True, CALLBACK, TaskStatus.COMPLETED),
        ("html", True, {}, TaskStatus.COMPLETED),
        (502, True, {}, TaskStatus.COMPLETED),
        ("unstored", True, {}, TaskStatus.FAILED),
        ("unstored", True, CALLBACK, TaskStatus.FAILED),
        (500, False, {}, TaskStatus.FAILED),
    ],
)
async def test_a_start_is_sent_once_whatever_becomes_of_its_reply(
    open_bridge: Open, reply: Any, is_stored: bool, options: dict[str, Any], status: TaskStatus
) -> None:
    def behave(agent: str, body: dict[str, Any]) -> Run:
        run = echo(agent, body)
        run.reply, run.is_stored = reply, is_stored
        return run

    engine = NlaEngine(behave)
    task = await ran(engine, open_bridge, options=options)
    assert len(engine.starts) == 1
    assert task.status is status
    if status is TaskStatus.FAILED:
        assert task.error is not None
        assert "for this task is unknown" in task.error.message
        assert "not sent again" in task.error.message
    else:
        assert task.answer == "writer: a heist"


@pytest.mark.parametrize(("options", "status"), [(CALLBACK, TaskStatus.COMPLETED), ({}, TaskStatus.FAILED)])
async def test_the_bridge_leaves_while_a_start_is_on_its_way(
    open_bridge: Open, options: dict[str, Any], status: TaskStatus
) -> None:
    """With a callback its mark tells the run; without, nobody can know, and it is not run twice."""
    gate = anyio.Event()

    def behave(agent: str, body: dict[str, Any]) -> Run:
        run = echo(agent, body)
        run.gate = gate
        return run

    engine = NlaEngine(behave)
    with anyio.fail_after(30):
        async with engine.serve():
            async with open_bridge(engine) as bridge:
                created = await bridge.create("a heist", options=options)
                await engine.started.wait()
            gate.set()
            async with open_bridge(engine) as bridge:
                task = await bridge.wait(created.id)
    assert task.status is status
    assert len(engine.starts) == 1


async def test_another_process_carries_a_task_on(open_bridge: Open) -> None:
    engine = NlaEngine(lambda agent, body: Run())
    with anyio.fail_after(20):
        async with engine.serve():
            async with open_bridge(engine) as bridge:
                created = await bridge.create("a heist")
                await engine.looked.wait()
            (remote,) = engine.tasks.values()
            remote |= {"status": "complete", "output": "The end."}
            async with open_bridge(engine) as bridge:
                assert (await bridge.wait(created.id)).answer == "The end."
                assert (await bridge.retrieve(remote["id"])).id == created.id, "its remote id finds it, too"
    assert len(engine.starts) == 1


async def test_a_run_that_was_started_elsewhere_is_a_task(open_bridge: Open) -> None:
    engine = NlaEngine()
    with anyio.fail_after(20):
        async with engine.serve(), open_bridge(engine) as bridge:
            elsewhere = engine.add(status="complete", output={"story": "Once."})
            assert (await bridge.wait(elsewhere)).answer == "Once."
            for unheard_of in ("8a5dcd0c-93bc-4b7c-a7f1-94d5b1c6d0e4", "task_" + "0" * 32):
                with pytest.raises(TaskNotFound):
                    await bridge.retrieve(unheard_of)


async def test_what_is_text_by_another_name_is_text(open_bridge: Open) -> None:
    engine = NlaEngine()
    task = await ran(engine, open_bridge, attachments=[{"type": "input_text", "text": "in space"}])
    assert task.answer == "writer: a heist\n\nin space"


async def test_what_would_lead_elsewhere_in_a_url_is_no_id(open_bridge: Open) -> None:
    engine = NlaEngine()
    with anyio.fail_after(20):
        async with engine.serve(), open_bridge(engine) as bridge:
            for no_id in (".", "..", "-", "", "a/b", "../agent"):
                with pytest.raises(TaskNotFound):
                    await bridge.retrieve(no_id)
    assert engine.requests == []


async def test_no_key_is_in_the_ledger(open_bridge: Open, tmp_path: Path) -> None:
    def behave(agent: str, body: dict[str, Any]) -> Run:
        key = body["input"]["replicate_key"]
        return done({"answer": f"with {key}", "of": "engine-key"}, f"Writer: {key}")

    options = {"input": {"replicate_key": "${REPLICATE_KEY}", "genre": "scifi-in-the-ledger"}}
    task = await ran(NlaEngine(behave, has_details=True), open_bridge, options=options)
    assert task.answer is not None
    assert "with [removed]" in task.answer
    files = [path async for path in anyio.Path(tmp_path).glob("ledger.sqlite3*") if await path.is_file()]
    kept = b"".join([await path.read_bytes() for path in files])
    assert b"scifi-in-the-ledger" in kept
    assert b"${REPLICATE_KEY}" in kept
    assert PROVIDER_KEY.encode() not in kept
    assert b"engine-key" not in kept


async def test_two_remotes_side_by_side(open_bridge: Open) -> None:
    engine = NlaEngine()
    remote = ScriptedRemote(lambda body: Turn([message("from Agentlin")]))
    agents = {"movies": {"backend": "nla", "agent_id": "movie-agent"}, "thinker": {"backend": "agentlin"}}
    with anyio.fail_after(20):
        async with engine.serve(), remote.serve():
            agentlin = AgentlinBackend(FixedEndpoint(Address(remote.base_url)))
            async with open_bridge(engine, more_backends=[agentlin], agents=agents) as bridge:
                tasks = await bridge.run_many(
                    [{"instructions": "x", "agent": name} for name in ("movies", "thinker", "movies")]
                )
    assert [task.answer for task in tasks] == ["movie-agent: x", "from Agentlin", "movie-agent: x"]
