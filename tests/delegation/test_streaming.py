"""Rounds followed by event stream: what is told as it comes, and what becomes of a stream that breaks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentlin_bridge import Limits, Task, TaskBridge, TaskStatus
from agentlin_bridge.remote.agentlin import transport
from agentlin_bridge.remote.agentlin.backend import AgentlinBackend
from agentlin_bridge.remote.agentlin.dialect import Dialect
from agentlin_bridge.remote.agentlin.endpoint import Address, FixedEndpoint
from tests.support.streams import HEAD, Handler, RawRemote, Request, ended, frame, raw_remote

pytestmark = pytest.mark.anyio

Open = Callable[..., AbstractAsyncContextManager[tuple[TaskBridge, RawRemote]]]


@pytest.fixture
def open_stream(tmp_path: Path) -> Open:
    @asynccontextmanager
    async def opened(
        handler: Handler, dialect: Dialect = Dialect.DOCUMENTED, **settings: Any
    ) -> AsyncIterator[tuple[TaskBridge, RawRemote]]:
        limits = settings.pop("limits", Limits(settle=0.3))
        with anyio.fail_after(20):
            async with raw_remote(handler) as remote:
                backend = AgentlinBackend(FixedEndpoint(Address(remote.base_url)), dialect=dialect)
                async with TaskBridge(
                    backend, ledger=tmp_path / "ledger.sqlite3", stream=True, limits=limits, **settings
                ) as bridge:
                    yield bridge, remote

    return opened


def task_object(task_id: str, status: str, *output: dict[str, Any], **fields: Any) -> dict[str, Any]:
    task = {"object": "task", "id": task_id, "session_id": "s", "user_id": "u", "status": status, "created_at": 1}
    return {"jsonrpc": "2.0", "id": "r", "result": {**task, "output": list(output), **fields}}


def text_item(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "message_content": text}


def streaming(write: Callable[[Request, str], Awaitable[None]], later: dict[str, Any] | None = None) -> Handler:
    """A handler that lets `write` answer the create request, and GET with `later` (or unknown)."""

    async def handler(request: Request) -> None:
        if request.line.startswith("GET"):
            task_id = request.line.rsplit("/", 1)[1]
            unknown = {"jsonrpc": "2.0", "id": "r", "error": {"code": -32001, "message": "Task not found"}}
            await request.answer(unknown if later is None else {**later, "result": {**later["result"], "id": task_id}})
        else:
            await request.stream.send(HEAD)
            await write(request, request.body["task_id"])

    return handler


async def run(open_stream: Open, write: Callable[[Request, str], Awaitable[None]], **settings: Any) -> Task:
    later = settings.pop("later", None)
    async with open_stream(streaming(write, later), **settings) as (bridge, _):
        return await bridge.run("x")


async def test_events_are_told_as_they_come(open_stream: Open) -> None:
    more = [anyio.Event() for _ in range(3)]

    async def write(request: Request, task_id: str) -> None:
        send = request.stream.send
        await send(frame("task.created", task_id, task={"id": task_id, "status": "completed"}))
        await send(frame("task.working", task_id))
        await send(frame("task.text.delta", task_id, item_id="m", delta="Hel", agent_step=1))
        await more[0].wait()
        await send(b": ping\r\n\r\n" + frame("task.text.delta", task_id, item_id="m", delta="lo", agent_step=1))
        await more[1].wait()
        call = {"type": "tool_call", "id": "i", "call_id": "c", "name": "search", "arguments": ""}
        await send(frame("task.output_item.added", task_id, item=call, agent_step=2))
        await send(frame("task.completed", "c", task={"id": "c", "status": "completed"}))
        await send(frame("task.text.delta", "c", item_id="m", delta="not ours"))
        await send(frame("task.unheard_of", task_id, zebra=1))
        await more[2].wait()
        await send(ended(task_id, "Hello"))

    seen = []
    async with open_stream(streaming(write)) as (bridge, remote):
        task = await bridge.create("x")
        async for progress in bridge.events(task.id):
            seen.append((progress.status.value, progress.text, progress.tool, progress.step))
            if progress.text == "Hel":
                more[0].set()
            elif progress.text == "Hello" and not progress.tool:
                more[1].set()
            if progress.tool == "search":
                more[2].set()
        assert (await bridge.retrieve(task.id)).answer == "Hello"
    assert ("working", "Hel", None, 1) in seen
    assert ("working", "Hello", None, 1) in seen
    assert ("working", "Hello", "search", 2) in seen
    assert seen[-1][:2] == ("completed", "Hello")
    assert len(remote.lines) == 1, "a stream that ended well needs no look-up"


async def nothing(request: Request, task_id: str) -> None:
    return


async def half_a_frame(request: Request, task_id: str) -> None:
    await request.stream.send(frame("task.working", task_id) + ended(task_id, "x")[:40])


async def garbage(request: Request, task_id: str) -> None:
    await request.stream.send(b"data: {not json\r\n\r\ndata: [1]\r\n\r\n\xff\xfe\r\n\r\n")


async def of_a_subtask(request: Request, task_id: str) -> None:
    await request.stream.send(frame("task.working", task_id) + ended("call_1", "not ours"))


@pytest.mark.parametrize("write", [nothing, half_a_frame, garbage, of_a_subtask])
async def test_a_cut_stream_is_looked_up(open_stream: Open, write: Callable[[Request, str], Awaitable[None]]) -> None:
    task = await run(open_stream, write, later=task_object("t", "completed", text_item("found")))
    assert (task.status, task.answer) == (TaskStatus.COMPLETED, "found")


async def test_a_silent_stream_is_looked_up(open_stream: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "STREAM_IDLE", 0.1)

    async def silent(request: Request, task_id: str) -> None:
        await request.stream.send(frame("task.working", task_id))
        await request.stream.receive()

    task = await run(open_stream, silent, later=task_object("t", "completed", text_item("found")))
    assert task.answer == "found"


async def test_damaged_frames_cost_nothing_but_themselves(open_stream: Open) -> None:
    async def write(request: Request, task_id: str) -> None:
        for byte in b"data: {half\r\n\r\n" + ended(task_id, "héllo"):
            await request.stream.send(bytes([byte]))

    assert (await run(open_stream, write)).answer == "héllo"


async def test_an_error_frame_without_a_task_ends_it(open_stream: Open) -> None:
    async def write(request: Request, task_id: str) -> None:
        await request.stream.send(b'data: {"jsonrpc":"2.0","id":"r9","error":{"code":-32602,"message":"bad"}}\r\n\r\n')

    task = await run(open_stream, write)
    assert task.status is TaskStatus.FAILED
    assert task.error is not None
    assert (task.error.code, "bad" in task.error.message) == (-32602, True)


async def test_an_answer_that_is_no_stream(open_stream: Open) -> None:
    async def handler(request: Request) -> None:
        if request.body["user_message_content"][0]["text"] == "error":
            await request.answer({"jsonrpc": "2.0", "id": "r", "error": {"code": -32000, "message": "no model"}})
        else:
            await request.answer(task_object(request.body["task_id"], "completed", text_item("whole")))

    async with open_stream(handler) as (bridge, _):
        assert (await bridge.run("x")).answer == "whole"
        refused = await bridge.run("error")
    assert refused.error is not None
    assert "no model" in refused.error.message


async def test_an_id_of_the_remotes_own_is_kept_when_the_stream_is_cut(open_stream: Open) -> None:
    posts = 0

    async def handler(request: Request) -> None:
        nonlocal posts
        if request.line == "GET /v1/tasks/theirs":
            await request.answer(task_object("theirs", "completed", text_item("found")))
        elif request.line.startswith("GET"):
            await request.answer({"jsonrpc": "2.0", "id": "r", "error": {"code": -32001, "message": "Task not found"}})
        else:
            posts += 1
            await request.stream.send(HEAD + frame("task.working", "theirs"))

    async with open_stream(handler) as (bridge, _):
        assert (await bridge.run("x")).answer == "found"
    assert posts == 1


async def test_the_last_event_ends_a_stream_that_stays_open(open_stream: Open) -> None:
    async def write(request: Request, task_id: str) -> None:
        await request.stream.send(ended(task_id, "done"))
        await request.stream.receive()

    assert (await run(open_stream, write)).answer == "done"


async def test_a_failed_task_keeps_its_reason(open_stream: Open) -> None:
    async def write(request: Request, task_id: str) -> None:
        failed = {"id": task_id, "status": "failed", "session_id": "s", "user_id": "u", "created_at": 1}
        error = {"code": -32000, "message": "boom"}
        await request.stream.send(frame("task.working", task_id))
        await request.stream.send(frame("task.failed", "call_1", task={**failed, "id": "call_1"}, error={"code": 1}))
        await request.stream.send(frame("task.failed", task_id, task=failed, error=error))

    task = await run(open_stream, write)
    assert task.status is TaskStatus.FAILED
    assert task.error is not None
    assert task.error.message == "boom"


async def test_an_ending_that_cannot_be_read_is_looked_up(open_stream: Open) -> None:
    async def write(request: Request, task_id: str) -> None:
        await request.stream.send(frame("task.completed", task_id, task="what"))

    task = await run(open_stream, write, later=task_object("t", "completed", text_item("found")))
    assert task.answer == "found"


async def test_a_run_that_died_with_its_stream_is_started_again(open_stream: Open) -> None:
    """On the published server a lost stream kills the run, and its task reads `created` for ever."""
    posts: list[dict[str, Any]] = []

    async def handler(request: Request) -> None:
        if request.line.startswith("GET"):
            await request.answer(task_object(request.line.rsplit("/", 1)[1], "created"))
            return
        posts.append(request.body)
        await request.stream.send(HEAD)
        if len(posts) == 1:
            await request.stream.send(frame("task.working", request.body["task_id"]))
            return
        await request.stream.send(ended(request.body["params"]["id"], "again"))

    async with open_stream(handler, Dialect.PUBLISHED) as (bridge, _):
        task = await bridge.run("x")
    assert task.answer == "again"
    first, second = posts
    assert second["method"] == "tasks/createSubscribe"
    assert second["params"]["payload"]["user_message_content"] == first["user_message_content"]
    assert second["params"]["id"] != first["task_id"]
    assert second["params"]["session_id"] != first["session_id"]


async def test_a_run_that_keeps_dying_fails(open_stream: Open) -> None:
    async def handler(request: Request) -> None:
        if request.line.startswith("GET"):
            await request.answer(task_object(request.line.rsplit("/", 1)[1], "created"))
        else:
            await request.stream.send(HEAD)

    async with open_stream(handler, Dialect.PUBLISHED, limits=Limits(settle=0.1)) as (bridge, remote):
        task = await bridge.run("x")
    assert task.status is TaskStatus.FAILED
    assert task.error is not None
    assert "event stream of the remote task" in task.error.message
    assert len([line for line in remote.lines if line.startswith("POST")]) == 2


async def test_control_requests_survive_a_reset_after_a_500(open_stream: Open) -> None:
    """The published server closes a connection after a 500 without saying so."""
    answers: list[str] = []

    async def handler(request: Request) -> None:
        if request.line.startswith("POST"):
            await request.answer(task_object(request.body["task_id"], "working"))
            return
        answers.append(request.line)
        if len(answers) % 2:
            await request.answer({"success": False, "message": "oops", "data": None}, "500 Internal Server Error")
        else:
            await request.answer(task_object(request.line.rsplit("/", 1)[1], "completed", text_item("x")))

    async with open_stream(handler) as (bridge, _):
        assert (await bridge.run("x", stream=False)).answer == "x"


async def test_progress_without_a_stream_is_looked_at(open_stream: Open) -> None:
    shown: list[dict[str, Any]] = [text_item("first"), {"type": "tool_call", "call_id": "c", "name": "search"}]
    asked = 0
    done = anyio.Event()

    async def handler(request: Request) -> None:
        nonlocal asked
        if request.line.startswith("POST"):
            await done.wait()
            await request.answer(task_object(request.body["task_id"], "completed", text_item("last")))
        else:
            asked += 1
            await request.answer(task_object(request.line.rsplit("/", 1)[1], "working", *shown))

    async with open_stream(handler) as (bridge, _):
        task = await bridge.create("x", stream=False)
        seen = []
        async for progress in bridge.events(task.id):
            seen.append((progress.text, progress.tool))
            if progress.tool == "search":
                done.set()
        assert seen[-1][0] == "last"
        assert ("first", "search") in seen
        before = asked
        again = [progress.status async for progress in bridge.events(task.id)]
        assert again == [TaskStatus.COMPLETED]
        assert asked == before
