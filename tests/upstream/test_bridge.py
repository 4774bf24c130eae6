"""The bridge against the published server's own code, on each of its three model backends."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from anyio.abc import SocketStream

from agentlin_bridge import Limits, Task, TaskBridge, TaskStatus, ToolResult
from agentlin_bridge.remote.agentlin.backend import AgentlinBackend
from agentlin_bridge.remote.agentlin.endpoint import Address, FixedEndpoint
from agentlin_bridge.task import FileContentItem, ImageContentItem, MessageItem, ToolResultItem

from .conftest import StartUpstream, Upstream

pytestmark = pytest.mark.anyio

PNG = "data:image/png;base64,AA=="
Opened = Callable[..., AbstractAsyncContextManager[TaskBridge]]

WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


@pytest.fixture
def opened(upstream: Upstream, tmp_path: Path) -> Opened:
    @asynccontextmanager
    async def bridge(**settings: Any) -> AsyncIterator[TaskBridge]:
        limits = settings.pop("limits", Limits(settle=2))
        backend = AgentlinBackend(FixedEndpoint(Address(upstream.base_url)), user_id="local")
        with anyio.fail_after(90):
            async with TaskBridge(backend, ledger=tmp_path / "ledger.sqlite3", limits=limits, **settings) as opened:
                yield opened

    return bridge


@pytest.fixture(params=[False, True], ids=["durable", "stream"])
def stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def completed(task: Task) -> str:
    assert task.status is TaskStatus.COMPLETED, task.error
    assert task.answer is not None
    return task.answer


async def test_text(opened: Opened, stream: bool) -> None:
    async with opened(stream=stream) as bridge:
        assert completed(await bridge.run("Say hello")) == "Answer to: Say hello"


@pytest.mark.parametrize(
    ("instructions", "answer"),
    [
        ("weather Paris", "Results: sunny in Paris"),
        ("weather Paris and Rome", "Results: sunny in Paris | sunny in Rome"),
    ],
)
async def test_client_tools(opened: Opened, stream: bool, instructions: str, answer: str) -> None:
    async with opened(stream=stream) as bridge:
        task = await bridge.run(instructions, client_tools=[get_weather])
    assert completed(task) == answer
    assert task.usage["tool_calls"] == 0 or task.usage["tool_calls"] >= 1


async def test_chained_rounds(opened: Opened, upstream: Upstream, stream: bool) -> None:
    async with opened(stream=stream) as bridge:
        task = await bridge.run("chain 3", client_tools=[get_weather])
    completed(task)
    results = [item for item in task.output if isinstance(item, ToolResultItem)]
    assert len(results) == 3
    last = upstream.model.requests[-1]
    assert [shape.split()[0] for shape in last.shape][:2] == ["system", "user"]
    assert len([shape for shape in last.shape if shape.startswith("tool")]) == 3
    assert not last.refused


async def test_a_mixed_turn_is_answered_completely(opened: Opened) -> None:
    async with opened() as bridge:
        task = await bridge.run("weather Paris and echo hi", client_tools=[get_weather])
    answer = completed(task)
    assert "sunny in Paris" in answer
    assert "nothing was executed" in answer, "the server's own call was never executed, and the model must know"


async def test_broken_arguments_go_back_to_the_model(opened: Opened) -> None:
    async with opened() as bridge:
        task = await bridge.run("bad args", client_tools=[get_weather])
    assert "ERROR: The arguments of get_weather are not JSON" in completed(task)


async def test_partial_and_wrong_submissions_never_reach_the_server(opened: Opened, upstream: Upstream) -> None:
    async with opened() as bridge:
        task = await bridge.run("weather Paris and Rome", client_tools=[WEATHER])
        first, second = task.pending
        asked = len(upstream.model.requests)
        await bridge.submit(task.id, {second.call_id: "rain"})
        with pytest.raises(Exception, match="no tool call 'nonsense'"):
            await bridge.submit(task.id, {"nonsense": "x"})
        await bridge.submit(task.id, {second.call_id: "rain"})
        assert (await bridge.wait(task.id)).pending == [first]
        assert len(upstream.model.requests) == asked
        await bridge.submit(task.id, {first.call_id: ToolResult.error("no data")})
        assert completed(await bridge.wait(task.id)) == "Results: ERROR: no data | rain"
        await bridge.submit(task.id, {second.call_id: "rain"})
        assert len(upstream.model.requests) == asked + 1


async def test_images_and_files_as_results(opened: Opened, upstream: Upstream) -> None:
    image = ImageContentItem.model_validate({"image_url": {"url": PNG}})
    file = FileContentItem.model_validate({"file": {"filename": "a.txt", "file_data": "data:text/plain;base64,aGk="}})
    async with opened() as bridge:
        task = await bridge.run("weather Paris and Rome", client_tools=[WEATHER])
        first, second = task.pending
        await bridge.submit(task.id, {first.call_id: ["a picture", image], second.call_id: [file]})
        task = await bridge.wait(task.id)
    assert "a picture" in completed(task)
    asked = upstream.model.requests[-1]
    assert not asked.refused
    assert any(PNG in said.images for said in asked.messages)
    assert "aGk=" in json.dumps(asked.body)


@pytest.mark.parametrize("failure", ["fail 500", "fail 401"])
async def test_a_model_that_fails_at_first_fails_the_task(opened: Opened, stream: bool, failure: str) -> None:
    async with opened(stream=stream) as bridge:
        task = await bridge.run(failure)
    assert task.status is TaskStatus.FAILED
    assert task.error is not None
    assert task.error.code == -32000
    assert "Traceback" not in task.error.message
    assert "site-packages" not in task.error.message
    assert failure.removeprefix("fail ") in task.error.message


async def test_a_model_that_fails_once_on_the_results_is_nudged(opened: Opened, upstream: Upstream) -> None:
    async with opened() as bridge:
        task = await bridge.run("weather Paris then fail 500 once", client_tools=[get_weather])
    assert "sunny in Paris" in completed(task)
    shape = upstream.model.requests[-1].shape
    assert len([said for said in shape if said.startswith("tool")]) == 1, "a second tool message breaks the session"
    assert len({asked.session_id for asked in upstream.model.requests}) == 1


async def test_a_model_that_goes_on_failing_fails_the_task(opened: Opened, upstream: Upstream) -> None:
    async with opened() as bridge:
        task = await bridge.run("weather Paris then fail 401", client_tools=[get_weather])
    assert task.status is TaskStatus.FAILED
    assert task.error is not None
    assert "401" in task.error.message
    assert len({asked.session_id for asked in upstream.model.requests}) == 2, "nudged once, replayed once"


async def test_a_server_that_lost_its_memory_is_told_everything_again(opened: Opened, upstream: Upstream) -> None:
    async with opened() as bridge:
        task = await bridge.run("weather Paris and Rome", client_tools=[WEATHER])
        await anyio.to_thread.run_sync(upstream.forget)
        await bridge.submit(task.id, {call.call_id: json.loads(call.arguments)["city"] for call in task.pending})
        task = await bridge.wait(task.id)
    assert completed(task) == "Results: Paris | Rome"
    last = upstream.model.requests[-1]
    assert not any(asked.refused for asked in upstream.model.requests)
    assert [said.split()[0] for said in last.shape] == ["system", "user", "assistant", "tool", "tool"]


async def test_a_run_lost_with_the_servers_memory_is_started_again(opened: Opened, upstream: Upstream) -> None:
    async with opened(limits=Limits(settle=1)) as bridge:
        task = await bridge.create("hold on")
        await anyio.to_thread.run_sync(upstream.model.wait_for, task.id)
        await anyio.to_thread.run_sync(upstream.forget)
        upstream.model.release()
        assert completed(await bridge.wait(task.id)) == "Answer to: hold on"


@pytest.mark.parametrize("tools", [[], [get_weather]])
async def test_one_setting_takes_the_servers_own_tools_away(
    upstream: Upstream, tmp_path: Path, tools: list[Any]
) -> None:
    backend = AgentlinBackend(FixedEndpoint(Address(upstream.base_url)), server_tools=False)
    with anyio.fail_after(60):
        async with TaskBridge(backend, ledger=tmp_path / "ledger.sqlite3") as bridge:
            completed(await bridge.run("weather Paris" if tools else "Say hello", client_tools=tools))
    for asked in upstream.model.requests:
        assert set(asked.tools) == {tool.__name__ for tool in tools}


async def test_the_dialect_is_remembered(opened: Opened, upstream: Upstream) -> None:
    async with opened() as bridge:
        await bridge.run("Say hello")
        assert dict(bridge._engine.backends.default.notes) == {upstream.base_url: "published"}
    async with opened() as bridge:
        assert dict(bridge._engine.backends.default.notes) == {upstream.base_url: "published"}


async def test_cancelling_a_durable_run_says_that_it_goes_on(opened: Opened, upstream: Upstream) -> None:
    async with opened() as bridge:
        task = await bridge.create("hold on")
        await anyio.to_thread.run_sync(upstream.model.wait_for, task.id)
        task = await bridge.cancel(task.id)
        assert (task.status, task.remote) == (TaskStatus.CANCELED, "kept running")
        upstream.model.release()
        while (await bridge._engine.backends.default.retrieve(task.id)).status is not TaskStatus.COMPLETED:
            await anyio.lowlevel.checkpoint()


async def test_cancelling_a_streamed_run_stops_it(opened: Opened, upstream: Upstream) -> None:
    async with opened(stream=True) as bridge:
        task = await bridge.create("sleep 0.3")
        async for progress in bridge.events(task.id):
            if progress.tool == "sleep":
                break
        task = await bridge.cancel(task.id)
        assert (task.status, task.remote) == (TaskStatus.CANCELED, "stopped")
        # By the time this one has slept longer and is done, the other one would be, too.
        completed(await bridge.run("sleep 0.8"))
        assert (await bridge._engine.backends.default.retrieve(task.id)).status is TaskStatus.CREATED
    assert len(upstream.model.of(task.id)) == 1


@asynccontextmanager
async def cutting_proxy(base_url: str, after: int) -> AsyncIterator[str]:
    """A way to the server whose first streamed answer breaks off after so many bytes."""
    host, port = base_url.removeprefix("http://").removesuffix("/v1").split(":")
    cuts = [after]

    async def relay(source: SocketStream, target: SocketStream, *, answers: bool) -> None:
        passed = 0
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
            async for chunk in source:
                passed += len(chunk)
                if answers and cuts and passed > cuts[0] and b"data: " in chunk:
                    cuts.pop()
                    break
                await target.send(chunk)
        await target.aclose()
        await source.aclose()

    async def serve(client: SocketStream) -> None:
        async with await anyio.connect_tcp(host, int(port)) as server, anyio.create_task_group() as group:
            group.start_soon(partial(relay, client, server, answers=False))
            await relay(server, client, answers=True)
            group.cancel_scope.cancel()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        yield f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}/v1"
        group.cancel_scope.cancel()


async def test_a_cut_stream_kills_the_run_and_it_is_made_up_for(upstream: Upstream, tmp_path: Path) -> None:
    async with cutting_proxy(upstream.base_url, after=600) as url:
        backend = AgentlinBackend(FixedEndpoint(Address(url)))
        bridge = TaskBridge(backend, ledger=tmp_path / "ledger.sqlite3", stream=True, limits=Limits(settle=1))
        with anyio.fail_after(60):
            async with bridge:
                task = await bridge.run("weather Paris", client_tools=[get_weather])
    assert completed(task) == "Results: sunny in Paris"
    assert len({asked.session_id for asked in upstream.model.requests}) <= 2


async def test_progress_in_both_modes(opened: Opened, upstream: Upstream, stream: bool) -> None:
    async with opened(stream=stream) as bridge:
        task = await bridge.create("weather Paris", client_tools=[get_weather])
        seen = [progress async for progress in bridge.events(task.id)]
    assert (seen[-1].status, seen[-1].text) == (TaskStatus.COMPLETED, "Results: sunny in Paris")
    assert all(before != after for before, after in pairwise(seen))
    if stream:
        assert {progress.tool for progress in seen} == {None, "get_weather"}
        assert {progress.step for progress in seen} >= {1, 2}


async def test_parallel_tasks_keep_apart(opened: Opened, stream: bool) -> None:
    async with opened(stream=stream) as bridge:
        requests = [{"instructions": f"weather City{number}", "client_tools": [get_weather]} for number in range(50)]
        tasks = await bridge.run_many(requests, max_concurrency=50)
    assert [completed(task) for task in tasks] == [f"Results: sunny in City{number}" for number in range(50)]
    assert len({task.session_id for task in tasks}) == 50


async def test_a_subagent_that_fails_is_not_taken_for_the_task(opened: Opened) -> None:
    async with opened() as bridge:
        task = await bridge.run("delegate fail 500")
    assert task.status is TaskStatus.FAILED
    assert task.error is not None
    assert "subagent" in task.error.message
    assert not any(isinstance(item, MessageItem) for item in task.output)


@pytest.mark.parametrize("upstream", ["responses"], indirect=True)
async def test_list_ends(opened: Opened, upstream: Upstream) -> None:
    async with opened() as bridge:
        tasks = await bridge.run_many(["a", "b", "c"])
        listed = [found.id async for found in bridge._engine.backends.default.list()]
    assert {task.id for task in tasks} <= set(listed)
    assert len(set(listed)) == len(listed)


async def test_without_the_packages_own_error_bodies(start_upstream: StartUpstream, tmp_path: Path) -> None:
    upstream = start_upstream("responses", handlers=False)
    backend = AgentlinBackend(FixedEndpoint(Address(upstream.base_url)))
    with anyio.fail_after(60):
        async with TaskBridge(backend, ledger=tmp_path / "ledger.sqlite3") as bridge:
            assert completed(await bridge.run("weather Paris", client_tools=[get_weather])) == "Results: sunny in Paris"
            refused = await bridge.run("x", options={"history_messages": [{"nonsense": 1}]})
    assert refused.status is TaskStatus.FAILED
    assert refused.error is not None
    assert "HTTP 422" in refused.error.message
