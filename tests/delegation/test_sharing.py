"""Several bridges on one ledger: who may do what, and what a bystander must not do."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from pydantic import SecretStr

from agentlin_bridge import (
    ClientTool,
    InvalidRequestError,
    LedgerError,
    Limits,
    TaskBridge,
    TaskStatus,
)
from agentlin_bridge.delegation import driving, following
from agentlin_bridge.remote.agentlin.backend import AgentlinBackend
from agentlin_bridge.remote.agentlin.dialect import Dialect
from agentlin_bridge.remote.agentlin.endpoint import Address, FixedEndpoint
from tests.support.remote import Json, ScriptedRemote, Turn, call, message, results_of

pytestmark = pytest.mark.anyio

HELLO = ClientTool("hello", handler=lambda: "hello")


def one_call(body: Json) -> Turn:
    results = results_of(body)
    return Turn([message(results["c"])] if results else [call("c", "hello", {})])


@asynccontextmanager
async def bridge_at(
    url: str, ledger: Path, *, key: str | None = None, limits: Limits | None = None, **settings: Any
) -> AsyncIterator[TaskBridge]:
    address = Address(url, SecretStr(key) if key else None)
    backend = AgentlinBackend(FixedEndpoint(address), dialect=Dialect.DOCUMENTED)
    with anyio.fail_after(25):
        async with TaskBridge(backend, ledger=ledger, limits=limits or Limits(settle=0.2), **settings) as bridge:
            yield bridge


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


async def test_a_task_stays_with_the_remote_it_was_given_to(ledger: Path) -> None:
    gate = anyio.Event()
    remote = ScriptedRemote(lambda body: Turn([call("c", "hello", {})], gate=gate))
    other = ScriptedRemote(lambda body: Turn([message("wrong")]))
    async with (
        remote.serve(),
        other.serve(),
        bridge_at(remote.base_url, ledger) as owner,
        bridge_at(other.base_url, ledger) as stranger,
    ):
        task = await owner.create("secret project", client_tools=[{"name": "hello"}])
        await remote.posted.wait()
        assert (await stranger.retrieve(task.id)).status is TaskStatus.WORKING
        assert (await stranger.wait(task.id)).status is TaskStatus.WORKING
        for change in (stranger.cancel, stranger.delete):
            with pytest.raises(InvalidRequestError, match=r"was given to agentlin at .*set up for .*Next: "):
                await change(task.id)
        gate.set()
        await owner.wait(task.id)
        with pytest.raises(InvalidRequestError, match="was given to"):
            await stranger.submit(task.id, {"c": "x"})
    assert other.requests == []


async def test_a_bystander_with_a_wrong_key_does_not_fail_the_task(ledger: Path) -> None:
    gate = anyio.Event()
    remote = ScriptedRemote(lambda body: Turn([message("done")], gate=gate), key="right")
    async with (
        remote.serve(),
        bridge_at(remote.base_url, ledger, key="right") as owner,
        bridge_at(remote.base_url, ledger, key="wrong") as bystander,
    ):
        task = await owner.create("x")
        await remote.posted.wait()
        await bystander.retrieve(task.id)
        while remote.requests.count(f"GET /tasks/{task.id}") < 1:
            await anyio.lowlevel.checkpoint()
        assert (await owner.wait(task.id, timeout=0.5)).status is TaskStatus.WORKING
        gate.set()
        assert (await owner.wait(task.id)).answer == "done"


async def test_a_living_owners_round_is_not_sent_by_a_bystander(ledger: Path) -> None:
    hold = anyio.Event()
    remote = ScriptedRemote(one_call)

    async def before() -> None:
        await hold.wait()

    remote.before_create = before
    async with (
        remote.serve(),
        bridge_at(remote.base_url, ledger) as owner,
        bridge_at(remote.base_url, ledger) as bystander,
    ):
        task = await owner.create("x", client_tools=[HELLO])
        await bystander.retrieve(task.id)
        while remote.requests.count(f"GET /tasks/{task.id}") < 5:
            await anyio.lowlevel.checkpoint()
        hold.set()
        assert (await owner.wait(task.id)).answer == "hello"
    assert len({post["task_id"] for post in remote.posts}) == len(remote.posts) == 2


async def test_who_comes_back_late_looks_before_it_gives_up(ledger: Path) -> None:
    """The remote has long finished, and the round's deadline is over: the answer counts."""
    gate = anyio.Event()
    remote = ScriptedRemote(lambda body: Turn([message("done")], gate=gate))
    async with remote.serve():
        async with bridge_at(remote.base_url, ledger) as bridge:
            task = await bridge.create("x")
            await remote.posted.wait()
        gate.set()
        while remote.tasks[task.id]["status"] != "completed":
            await anyio.lowlevel.checkpoint()
        async with bridge_at(remote.base_url, ledger, limits=Limits(round_deadline=0.001)) as bridge:
            assert (await bridge.wait(task.id)).answer == "done"
    assert f"POST /tasks/{task.id}/cancel" not in remote.requests


async def test_a_connection_that_dies_without_a_sign(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_INTERVAL", 0.05)
    remote = ScriptedRemote(lambda body: Turn([message("never told")], gate=anyio.Event()))
    async with remote.serve(), bridge_at(remote.base_url, ledger) as bridge:
        task = await bridge.create("x")
        await remote.posted.wait()
        while task.id not in remote.tasks:
            await anyio.lowlevel.checkpoint()
        remote.tasks[task.id].update(status="completed", output=[message("found")])
        assert (await bridge.wait(task.id)).answer == "found"


async def test_a_canceled_task_starts_no_handler_and_tells_the_remote_in_the_end(ledger: Path) -> None:
    remote = ScriptedRemote(lambda body: Turn([message("x")], gate=anyio.Event()))
    async with remote.serve(), bridge_at(remote.base_url, ledger) as bridge:
        task = await bridge.create("x")
        await remote.posted.wait()
        # What a process leaves that died between its decision and the call.
        connection = sqlite3.connect(ledger)
        connection.execute("UPDATE tasks SET status = 'canceled', version = version + 1")
        connection.commit()
        connection.close()
        assert (await bridge.wait(task.id)).status is TaskStatus.CANCELED
        assert (await bridge.retrieve(task.id)).remote is None
        assert (await bridge.cancel(task.id)).remote == "stopped"
    assert remote.tasks[task.id]["status"] == "canceled"


async def test_leaving_does_not_forget_what_a_handler_returned(ledger: Path) -> None:
    ran: list[str] = []

    async def hello() -> str:
        ran.append("hello")
        return "hello"

    remote = ScriptedRemote(one_call)
    async with remote.serve():
        async with bridge_at(remote.base_url, ledger) as bridge:
            task = await bridge.create("x", client_tools=[ClientTool("hello", handler=hello)])
            while not ran:
                await anyio.lowlevel.checkpoint()
        async with bridge_at(remote.base_url, ledger) as bridge:
            task = await bridge.wait(task.id)
    assert task.status is TaskStatus.COMPLETED, "the result was lost, and the call was pending again"
    assert ran == ["hello"]


async def test_a_call_whose_result_cannot_be_kept_is_pending_again(
    ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = True
    persistently = driving._persistently

    async def unkept(*arguments: Any, **keywords: Any) -> Any:
        if broken:
            raise LedgerError("The disk is full.")
        return await persistently(*arguments, **keywords)

    monkeypatch.setattr(driving, "_persistently", unkept)
    remote = ScriptedRemote(one_call)
    async with remote.serve(), bridge_at(remote.base_url, ledger) as bridge:
        task = await bridge.create("x", client_tools=[HELLO])
        with pytest.raises(LedgerError, match="The disk is full"):
            await bridge.wait(task.id)
        broken = False
        task = await bridge.wait(task.id)
        assert [(c.call_id, c.outcome_unknown) for c in task.pending] == [("c", True)]
        assert [progress.status async for progress in bridge.events(task.id)] == [TaskStatus.INPUT_REQUIRED]
        await bridge.submit(task.id, {"c": "made up for"})
        assert (await bridge.wait(task.id)).answer == "made up for"


async def test_a_remote_that_hiccups_is_not_taken_for_one_that_forgot(ledger: Path) -> None:
    remote = ScriptedRemote(lambda body: Turn(status="working"))
    async with remote.serve(), bridge_at(remote.base_url, ledger, limits=Limits(settle=0.5)) as bridge:
        task = await bridge.create("x")
        path = f"GET /tasks/{task.id}"
        while remote.requests.count(path) < 4:
            await anyio.lowlevel.checkpoint()
        held = remote.tasks.pop(task.id)
        count = remote.requests.count(path)
        while remote.requests.count(path) == count:
            await anyio.lowlevel.checkpoint()
        remote.tasks[task.id] = {**held, "status": "completed", "output": [message("done")]}
        assert (await bridge.wait(task.id)).answer == "done"


async def test_what_the_bridge_cannot_handle_ends_the_task(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("internal detail")

    monkeypatch.setattr(driving, "outcome_of", broken)
    remote = ScriptedRemote(lambda body: Turn([message("x")]))
    async with remote.serve(), bridge_at(remote.base_url, ledger) as bridge:
        task = await bridge.run("x")
    assert task.status is TaskStatus.FAILED
    assert task.error is not None
    assert "cannot handle what the remote answered (KeyError)" in task.error.message
    assert "internal detail" not in task.error.message


async def test_a_session_takes_one_task_at_a_time(ledger: Path) -> None:
    remote = ScriptedRemote(lambda body: Turn([message("x")]))
    async with remote.serve(), bridge_at(remote.base_url, ledger) as bridge:
        first = await bridge.run("one")
        remote.agent = lambda body: Turn([message("x")], gate=anyio.Event())
        second = await bridge.create("two", continue_task=first.id)
        with pytest.raises(InvalidRequestError, match=f"Task {second.id} is still going on in the session"):
            await bridge.create("three", continue_task=first.id)
        await bridge.cancel(second.id)


async def test_a_busy_remote_is_waited_for(ledger: Path) -> None:
    remote = ScriptedRemote(lambda body: Turn([message("x")]), refuse=5)
    async with remote.serve(), bridge_at(remote.base_url, ledger) as bridge:
        assert (await bridge.run("x")).status is TaskStatus.COMPLETED
