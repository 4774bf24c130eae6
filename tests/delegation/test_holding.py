"""Holding a task, approving with other arguments, and several principals on one open bridge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from agentlin_bridge import (
    InvalidRequestError,
    RequestConflict,
    TaskBridge,
    TaskNotFound,
    TaskStatus,
    UnsupportedError,
    client_tool,
)
from agentlin_bridge.errors import RemoteError
from agentlin_bridge.remote.agentlin.backend import AgentlinBackend
from agentlin_bridge.remote.agentlin.endpoint import Address, FixedEndpoint
from tests.delegation.conftest import Open
from tests.support.remote import Json, ScriptedRemote, Turn, call, message, results_of

pytestmark = pytest.mark.anyio

TOOL = {"name": "get_weather", "parameters": {"type": "object"}}


def weather(body: Json) -> Turn:
    if results := results_of(body):
        return Turn([message("; ".join(results.values()))])
    return Turn([call("call_1", "get_weather", {"city": "Paris"})])


def holding(remote: ScriptedRemote, ledger: Path) -> TaskBridge:
    return TaskBridge(AgentlinBackend(FixedEndpoint(Address(remote.base_url)), can_hold=True), ledger=ledger)


async def test_a_running_task_is_paused_remotely_and_resumed(tmp_path: Path) -> None:
    gate = anyio.Event()
    remote = ScriptedRemote(lambda body: Turn([message("done")], gate=gate))
    with anyio.fail_after(20):
        async with remote.serve(), holding(remote, tmp_path / "ledger.sqlite3") as bridge:
            task = await bridge.create("slow")
            await remote.posted.wait()
            paused = await bridge.pause(task.id)
            assert paused.status is TaskStatus.PAUSED
            assert [each["status"] for each in remote.tasks.values()] == ["paused"]
            assert (await bridge.wait(task.id)).status is TaskStatus.PAUSED
            assert (await bridge.pause(task.id)).status is TaskStatus.PAUSED
            assert (await bridge.resume(task.id)).status is TaskStatus.WORKING
            assert (await bridge.resume(task.id)).status is TaskStatus.WORKING
            gate.set()
            assert (await bridge.wait(task.id)).answer == "done"
            with pytest.raises(InvalidRequestError, match="is completed; only a task that is going on can be held"):
                await bridge.pause(task.id)
    assert [request.rpartition("/")[2] for request in remote.requests if request.endswith(("pause", "resume"))] == [
        "pause",
        "resume",
    ]


async def test_a_waiting_task_is_held_on_our_side(tmp_path: Path) -> None:
    remote = ScriptedRemote(weather)
    with anyio.fail_after(20):
        async with remote.serve(), holding(remote, tmp_path / "ledger.sqlite3") as bridge:
            task = await bridge.run("weather?", client_tools=[TOOL])
            assert (await bridge.pause(task.id)).status is TaskStatus.PAUSED
            # A result is taken, and sent once the task goes on.
            submitted = await bridge.submit(task.id, {"call_1": "sunny"})
            assert submitted.status is TaskStatus.PAUSED
            assert (await bridge.wait(task.id)).status is TaskStatus.PAUSED
            assert len(remote.posts) == 1
            await bridge.resume(task.id)
            assert (await bridge.wait(task.id)).answer == "sunny"
            again = await bridge.run("weather?", client_tools=[TOOL])
            await bridge.pause(again.id)
            resumed = await bridge.resume(again.id)
            assert (resumed.status, len(resumed.pending)) == (TaskStatus.INPUT_REQUIRED, 1)
    assert not [request for request in remote.requests if "pause" in request]


async def test_a_paused_task_can_be_canceled_and_seen_elsewhere(tmp_path: Path) -> None:
    remote = ScriptedRemote(weather)
    with anyio.fail_after(20):
        async with remote.serve(), holding(remote, tmp_path / "ledger.sqlite3") as bridge:
            task = await bridge.run("weather?", client_tools=[TOOL])
            await bridge.pause(task.id)
            async with holding(remote, tmp_path / "ledger.sqlite3") as other:
                assert (await other.retrieve(task.id)).status is TaskStatus.PAUSED
                assert [each.id async for each in other.list(status="paused")] == [task.id]
                assert (await other.cancel(task.id)).status is TaskStatus.CANCELED
            assert (await bridge.wait(task.id)).status is TaskStatus.CANCELED


async def test_what_cannot_be_held_goes_on(tmp_path: Path, open_bridge: Open) -> None:
    async with open_bridge(weather) as (bridge, _):
        task = await bridge.run("weather?", client_tools=[TOOL])
        with pytest.raises(UnsupportedError, match=r"'agentlin' cannot pause a task\. Next: cancel the task"):
            await bridge.pause(task.id)
        with pytest.raises(TaskNotFound):
            await bridge.resume("task_none")
    gate = anyio.Event()
    remote = ScriptedRemote(lambda body: Turn([message("done")], gate=gate))
    with anyio.fail_after(20):
        async with remote.serve(), holding(remote, tmp_path / "other.sqlite3") as bridge:
            task = await bridge.create("slow")
            await remote.posted.wait()
            for each in remote.tasks.values():
                each["status"] = "queued"
            with pytest.raises((RemoteError, UnsupportedError), match="Task is not working"):
                await bridge.pause(task.id)
            assert (await bridge.retrieve(task.id)).status is TaskStatus.WORKING
            for each in remote.tasks.values():
                each["status"] = "working"
            gate.set()
            assert (await bridge.wait(task.id)).answer == "done"


async def test_a_person_approves_with_other_arguments(open_bridge: Open) -> None:
    asked: list[str] = []

    @client_tool(approval="required")
    def get_weather(city: str) -> str:
        """Weather."""
        asked.append(city)
        return "sunny"

    async with open_bridge(weather, client_tools=[get_weather]) as (bridge, _):
        task = await bridge.run("weather?", client_tools=[get_weather])
        unfit: list[tuple[dict[str, Any], str]] = [
            ({"city": 5}, r"The arguments for 'call_1' do not fit the schema of get_weather: \['city'\]"),
            ({"city": {1, 2}}, "The arguments for 'call_1' cannot be written as JSON"),
        ]
        for arguments, said in unfit:
            with pytest.raises(InvalidRequestError, match=f"{said}.*Nothing was approved"):
                await bridge.approve(task.id, {"call_1": arguments})
        await bridge.approve(task.id, {"call_1": {"city": "Rome"}})
        task = await bridge.wait(task.id)
    assert asked == ["Rome"]
    assert task.answer == '[The host ran get_weather with other arguments: {"city": "Rome"}]sunny'


async def test_principals_share_an_open_bridge_and_nothing_else(open_bridge: Open) -> None:
    async with open_bridge(weather, principal="anna") as (anna, remote):
        berta = anna.acting_for("berta")
        mine = await anna.run("weather?", client_tools=[TOOL], request_id="1")
        hers = await berta.run("weather?", client_tools=[TOOL], request_id="1")
        assert mine.id != hers.id
        assert [task.id async for task in anna.list()] == [mine.id]
        assert [task.id async for task in berta.list()] == [hers.id]
        with pytest.raises(TaskNotFound):
            await anna.submit(hers.id, {"call_1": "x"})
        await berta.submit(hers.id, {"call_1": "snow"})
        assert (await berta.wait(hers.id)).answer == "snow"
    assert [post["user_id"] for post in remote.posts] == ["anna", "berta", "berta"]


async def test_metadata_can_be_added(open_bridge: Open) -> None:
    async with open_bridge(weather) as (bridge, _):
        task = await bridge.create("weather?", client_tools=[TOOL], metadata={"a": 1, "b": 2}, request_id="1")
        assert (await bridge.annotate(task.id, {"b": 3, "c": 4})).metadata == {"a": 1, "b": 3, "c": 4}
        # What was added later is no part of the request.
        same = await bridge.create("weather?", client_tools=[TOOL], metadata={"a": 1, "b": 2}, request_id="1")
        assert same.id == task.id
        with pytest.raises(RequestConflict) as conflict:
            await bridge.create("other", request_id="1")
        assert conflict.value.task_id == task.id
        with pytest.raises(InvalidRequestError, match="metadata cannot be written as JSON"):
            await bridge.annotate(task.id, {"x": object()})


async def test_handlers_can_be_forgotten(open_bridge: Open) -> None:
    def get_weather(city: str) -> str:
        """Weather."""
        return "sunny"

    asking = client_tool(approval="required")(get_weather)
    async with open_bridge(weather) as (bridge, _):
        task = await bridge.run("weather?", client_tools=[asking])
        bridge.unbind(task.id)
        await bridge.approve(task.id, ["call_1"])
        assert [each.call_id for each in (await bridge.wait(task.id)).pending] == ["call_1"]
        task = await bridge.wait(task.id, client_tools=[get_weather])
    assert task.answer == "sunny"


async def test_edited_arguments_reach_a_task_that_was_created_elsewhere(tmp_path: Path, open_bridge: Open) -> None:
    asked: list[str] = []

    @client_tool(approval="required")
    def get_weather(city: str) -> str:
        """Weather."""
        asked.append(city)
        return "sunny"

    async with open_bridge(weather, client_tools=[TOOL]) as (_, remote):
        async with holding(remote, tmp_path / "first.sqlite3") as first:
            task = await first.run("weather?", client_tools=[TOOL])
        (remote_id,) = remote.tasks
        backend = AgentlinBackend(FixedEndpoint(Address(remote.base_url)))
        async with TaskBridge(backend, ledger=tmp_path / "second.sqlite3", client_tools=[get_weather]) as second:
            task = await second.wait(remote_id)
            assert [(each.call_id, each.approval_required) for each in task.pending] == [("call_1", True)]
            await second.approve(task.id, {"call_1": {"city": "Rome"}})
            assert (await second.wait(task.id)).status is TaskStatus.COMPLETED
    assert asked == ["Rome"]
