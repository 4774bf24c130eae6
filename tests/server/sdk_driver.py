"""Drives a server with the published SDK, whichever version this interpreter has.

`python sdk_driver.py URL KEY sync|async`: does everything a client does, checks it, and prints as JSON the version
and the operations it used. Nothing but the SDK is imported, so that it runs in an environment of its own. The
server's agent asks `get_weather` for every city in a message and answers with the results joined by " | ".
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from typing import Any

import agentlin_client

TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
used: set[str] = set()


class Driver:
    """One client, sync or async, behind one async face."""

    def __init__(self, client: Any, stream_class: Any) -> None:
        self.client = client
        self.stream_class = stream_class

    async def __call__(self, name: str, *arguments: Any, **fields: Any) -> Any:
        """An operation of `client.tasks`."""
        used.add(name)
        return await _value(getattr(self.client.tasks, name)(*arguments, **fields))

    async def create(self, content: Any, **fields: Any) -> Any:
        answer = await self("create", stream=False, user_message_content=content, **fields)
        assert answer.jsonrpc == "2.0"
        assert answer.error is None
        return answer.result

    async def look(self, task_id: str) -> Any:
        """`info`, which was `retrieve` before 1.11."""
        return await self("info" if hasattr(self.client.tasks, "info") else "retrieve", task_id)

    async def ids(self, **query: Any) -> list[str]:
        """The ids of all pages of a list."""
        used.add("list")
        listed = self.client.tasks.list(**query)
        if hasattr(listed, "__aiter__"):
            return [task.id async for task in listed]
        listed = await _value(listed)
        if isinstance(listed, dict):
            return [task["id"] for task in listed["result"]]
        return [task.id for task in listed]

    async def refused(self, name: str, *arguments: Any, **fields: Any) -> Any:
        """The error an operation is refused with."""
        try:
            await self(name, *arguments, **fields)
        except agentlin_client.APIStatusError as error:
            return error
        raise AssertionError(f"{name} was not refused")

    async def events(self, **fields: Any) -> list[Any]:
        """What the SDK's own decoder makes of a stream."""
        stream = self.client.post(
            "/tasks",
            body={"stream": True, **fields},
            cast_to=object,
            stream=True,
            stream_cls=self.stream_class[object],
        )
        stream = await _value(stream)
        if hasattr(stream, "__aiter__"):
            return [event async for event in stream]
        return list(stream)

    async def lines(self, **fields: Any) -> list[str]:
        """What comes through `with_streaming_response`."""
        opening = self.client.tasks.with_streaming_response.create(stream=True, **fields)
        if hasattr(opening, "__aenter__"):
            async with opening as response:
                return [line async for line in response.iter_lines()]
        with opening as response:
            return list(response.iter_lines())


async def _value(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def weather(call_id: str, text: str) -> dict[str, Any]:
    parts = [{"type": "text", "text": text}]
    return {"type": "tool_result", "call_id": call_id, "message_content": parts, "block_list": []}


def text_of(task: Any) -> str:
    (message,) = (item for item in task.output if item.type == "message")
    return str(message.message_content[0].text)


async def rounds(drive: Driver) -> str:
    """A turn with client tools: asked, looked at, answered."""
    task = await drive.create("Paris Rome", task_id="task_1", session_id="s", user_id="u", client_tools=[TOOL])
    assert (task.id, task.session_id, task.user_id, task.status) == ("task_1", "s", "u", "input-required")
    assert task.input_required.name == "get_weather"
    assert json.loads(task.input_required.arguments) == {"city": "Paris"}
    calls = [item.call_id for item in task.output if item.type == "tool_call"]
    assert task.input_required_call_ids == calls
    assert (await drive.look("task_1")).result == task
    again = await drive.create("Paris Rome", task_id="task_1", session_id="s", user_id="u", client_tools=[TOOL])
    assert again == task
    results = [weather(calls[1], "rain"), weather(calls[0], "sun")]
    done = (
        await drive.create([], session_id="s", previous_task_id="task_1", thought_messages=results)
        if ("previous_task_id" in inspect.signature(drive.client.tasks.create).parameters)
        else await drive.create([], session_id="s", thought_messages=results)
    )
    assert (done.status, done.previous_task_id, text_of(done)) == ("completed", "task_1", "sun | rain")
    return str(done.id)


async def lists(drive: Driver, done: str) -> None:
    more = [(await drive.create([], user_id="u", task_id=f"more_{number}")).id for number in range(4)]
    expected = [*reversed(more), done, "task_1"]
    assert await drive.ids(limit=100) == expected
    assert await drive.ids(user_id="u", limit=100) == expected
    assert await drive.ids(user_id="nobody") == []
    assert await drive.ids(session_id="s") == [done, "task_1"]
    assert await drive.ids(status=["input-required", "failed"]) == ["task_1"]
    parameters = inspect.signature(drive.client.tasks.list).parameters
    if "starting_after" in parameters:
        assert await drive.ids(limit=2) == expected
        assert await drive.ids(limit=2, ending_before="task_1") == [*expected[3:5], *expected[1:3], expected[0]]
    if "offset" in parameters:
        assert await drive.ids(limit=2, offset=1) == expected[1:3]


async def endings(drive: Driver) -> None:
    task = await drive.create("Oslo", client_tools=[TOOL])
    canceled = await drive("cancel", task.id)
    result = canceled if canceled.id == task.id else canceled.result  # before 1.11 it was in an envelope
    assert (result.id, result.status, result.object) == (task.id, "canceled", "task")
    deleted = await drive("delete", task.id)
    assert deleted.result.id == task.id
    looking = "info" if hasattr(drive.client.tasks, "info") else "retrieve"
    for name in {looking, "cancel", "pause", "resume"} & set(dir(drive.client.tasks)):
        error = await drive.refused(name, task.id)
        assert isinstance(error, agentlin_client.NotFoundError)
        assert error.body["code"] == -32001  # type: ignore[index]
    assert isinstance(await drive.refused("cancel", "more_0"), agentlin_client.ConflictError)
    wrong = await drive.refused("create", stream=False, user_message_content=7)
    assert isinstance(wrong, agentlin_client.BadRequestError)
    assert "user_message_content" in wrong.body["message"]  # type: ignore[index]


async def streams(drive: Driver) -> None:
    events = await drive.events(user_message_content="Oslo", task_id="task_s", session_id="st")
    kinds = [event["result"]["type"] for event in events]
    assert kinds[0] == "task.created"
    assert kinds[-1] == "task.input_required"
    assert "task.output_item.done" in kinds
    assert {event["result"]["task_id"] for event in events} == {"task_s"}
    last = events[-1]["result"]
    (call_id,) = last["input_required_call_ids"]
    assert last["task"]["input_required"]["call_id"] == call_id
    lines = await drive.lines(
        user_message_content=[], task_id="task_t", session_id="st", thought_messages=[weather(call_id, "snow")]
    )
    sent = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert sent[-1]["result"]["type"] == "task.completed"
    assert sent[-1]["result"]["task"]["output"][-1]["content"] == "snow"
    assert (await drive.look("task_t")).result.status == "completed"


async def main(url: str, key: str, kind: str) -> None:
    make, stream_class = {
        "sync": (agentlin_client.Client, agentlin_client.Stream),
        "async": (agentlin_client.AsyncClient, agentlin_client.AsyncStream),
    }[kind]
    client: Any = make(api_key=key, base_url=url, max_retries=0)
    drive = Driver(client, stream_class)
    await lists(drive, await rounds(drive))
    await endings(drive)
    await streams(drive)
    wrong: Any = make(api_key=f"not {key}", base_url=url, max_retries=0)
    assert isinstance(
        await Driver(wrong, stream_class).refused("delete", "task_1"), agentlin_client.AuthenticationError
    )
    for opened in (client, wrong):
        await _value(opened.close())
    offered = [name for name in dir(client.tasks) if not name.startswith(("_", "with_"))]
    sys.stdout.write(json.dumps({"version": agentlin_client.__version__, "offered": offered, "used": sorted(used)}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
