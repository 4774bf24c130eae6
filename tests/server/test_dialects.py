"""The bridge's own `agentlin` backend against this server, in both dialects, by stream and without."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread

from agentlin_bridge import Limits, Task, TaskBridge, TaskStatus, ToolResult
from agentlin_bridge.events import AgentTaskEvent, TaskTextDeltaEvent, UnknownEvent
from agentlin_bridge.remote.agentlin.backend import AgentlinBackend
from agentlin_bridge.remote.agentlin.dialect import Dialect
from agentlin_bridge.remote.agentlin.endpoint import Address, FixedEndpoint
from agentlin_bridge.remote.backend import StartRequest
from agentlin_bridge.server.agent import Conversation, Item, answer, tool_call
from agentlin_bridge.task import TextContentItem, ToolResultItem, text_of

from .agents import Gated, Scripted, weather
from .conftest import Server, Serving
from .talking import Talking

pytestmark = pytest.mark.anyio

PNG = "data:image/png;base64,AA=="
WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
Opened = Callable[..., AbstractAsyncContextManager[TaskBridge]]


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


@pytest.fixture(params=list(Dialect))
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return Dialect(request.param)


@pytest.fixture(params=[False, True], ids=["durable", "stream"])
def stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def opened(tmp_path: Path, dialect: Dialect, stream: bool) -> Opened:
    @asynccontextmanager
    async def bridge(server: Server, **settings: Any) -> AsyncIterator[TaskBridge]:
        limits = settings.pop("limits", Limits(settle=1))
        with anyio.fail_after(60):
            async with TaskBridge(
                backend_at(server, dialect),
                ledger=tmp_path / "ledger.sqlite3",
                limits=limits,
                stream=stream,
                **settings,
            ) as opened:
                yield opened

    return bridge


def backend_at(server: Server, dialect: Dialect | None) -> AgentlinBackend:
    return AgentlinBackend(FixedEndpoint(Address(server.url), is_local=True), dialect=dialect, user_id="local")


def completed(task: Task) -> str:
    assert task.status is TaskStatus.COMPLETED, task.error
    assert task.answer is not None
    return task.answer


async def test_text(demo: Server, opened: Opened) -> None:
    async with opened(demo) as bridge:
        assert "There is nothing here I can digest" in completed(await bridge.run("Say hello"))


@pytest.mark.parametrize("cities", ["Paris", "Paris Rome Oslo"])
async def test_client_tools(server: Server, opened: Opened, cities: str) -> None:
    async with opened(server) as bridge:
        task = await bridge.run(cities, client_tools=[get_weather])
    assert completed(task) == " | ".join(f"sunny in {city}" for city in cities.split())
    assert task.usage["tool_calls"] == len(cities.split())


def chained(conversation: Conversation) -> Sequence[Item]:
    """Three rounds of one call; then what all of them brought."""
    if len(conversation.rounds) < 3:
        return [answer("Let me look."), tool_call("get_weather", json.dumps({"city": f"c{len(conversation.rounds)}"}))]
    return [answer(" | ".join(result.text for step in conversation.rounds for result in step.results))]


async def test_chained_rounds(serving: Serving, opened: Opened) -> None:
    async with opened(serving(Scripted(chained))) as bridge:
        task = await bridge.run("go", client_tools=[get_weather])
    assert completed(task) == "sunny in c0 | sunny in c1 | sunny in c2"
    assert len([item for item in task.output if isinstance(item, ToolResultItem)]) == 3


async def test_partial_results(server: Server, opened: Opened) -> None:
    async with opened(server) as bridge:
        task = await bridge.run("Paris Rome", client_tools=[WEATHER])
        first, second = task.pending
        await bridge.submit(task.id, {second.call_id: "rain"})
        task = await bridge.wait(task.id)
        assert [call.call_id for call in task.pending] == [first.call_id]
        await bridge.submit(task.id, {first.call_id: "sun"})
        assert completed(await bridge.wait(task.id)) == "sun | rain"


async def test_a_message_after_an_answer_goes_on_in_the_session(serving: Serving, opened: Opened) -> None:
    agent = Scripted(weather)
    async with opened(serving(agent)) as bridge:
        first = await bridge.run("Paris", client_tools=[get_weather])
        completed(await bridge.run("Rome", client_tools=[get_weather], continue_task=first.id))
    (turn,) = agent.seen[-1].earlier
    assert text_of(turn.user_content) == "Paris"
    assert turn.rounds[0].results[0].text == "sunny in Paris"


async def test_an_image_comes_through(serving: Serving, opened: Opened) -> None:
    def looks(conversation: Conversation) -> Sequence[Item]:
        if not conversation.rounds:
            return [tool_call("look", "{}")]
        (step,) = conversation.rounds
        parts: list[Any] = [*step.results[0].message_content, *step.note]
        return [answer(" ".join(sorted({str(part.type) for part in parts})))]

    tool = {"name": "look", "description": "Look.", "parameters": {"type": "object"}}
    async with opened(serving(Scripted(looks))) as bridge:
        task = await bridge.run("see", client_tools=[tool])
        image = {"type": "image_url", "image_url": {"url": PNG}}
        result = ToolResult.model_validate({"content": ["a dot", image]})
        await bridge.submit(task.id, {task.pending[0].call_id: result})
        assert completed(await bridge.wait(task.id)) == "image_url text"


async def test_twenty_tasks_at_once(server: Server, opened: Opened) -> None:
    cities = [f"city-{number}" for number in range(20)]
    async with opened(server) as bridge:
        tasks = await bridge.run_many(
            [{"instructions": city, "client_tools": [get_weather]} for city in cities], max_concurrency=20
        )
    assert [completed(task) for task in tasks] == [f"sunny in {city}" for city in cities]


async def test_a_failed_round_is_told(serving: Serving, opened: Opened) -> None:
    def broken(_: Conversation) -> Sequence[Item]:
        raise ZeroDivisionError("with a secret")

    async with opened(serving(Scripted(broken))) as bridge:
        task = await bridge.run("Paris")
    assert task.status is TaskStatus.FAILED
    assert task.error is not None
    assert "ZeroDivisionError" in task.error.message
    assert "secret" not in task.model_dump_json()


async def test_a_delete_deletes(server: Server, opened: Opened) -> None:
    async with opened(server) as bridge:
        task = await bridge.run("Paris", client_tools=[WEATHER])
        assert len(server.get("tasks").json()["result"]) == 1
        assert (await bridge.delete(task.id)).remote == "stopped"
    assert server.get("tasks").json()["result"] == []


@pytest.mark.parametrize(
    ("dialect", "stream"),
    [(Dialect.DOCUMENTED, False), (Dialect.DOCUMENTED, True), (Dialect.PUBLISHED, False)],
    indirect=True,
)
async def test_a_cancel_cancels(serving: Serving, opened: Opened) -> None:
    """With a stream of the published dialect the bridge takes closing it for a cancel, as it is over there."""
    agent = Gated()
    server = serving(agent)
    async with opened(server) as bridge:
        task = await bridge.create("stay")
        assert await to_thread.run_sync(agent.entered.wait, 10)
        assert (await bridge.cancel(task.id)).remote == "stopped"
        (remote,) = server.get("tasks").json()["result"]
        assert remote["status"] == "canceled"


def fails_once(conversation: Conversation) -> Sequence[Item]:
    if conversation.rounds and not fails_once.nudged:  # type: ignore[attr-defined]
        fails_once.nudged = True  # type: ignore[attr-defined]
        raise ConnectionError("the model is out for lunch")
    return weather(conversation)


@pytest.mark.parametrize("dialect", [Dialect.PUBLISHED], indirect=True)
async def test_a_nudge_goes_on_with_the_turn_that_failed(serving: Serving, opened: Opened) -> None:
    fails_once.nudged = False  # type: ignore[attr-defined]
    agent = Scripted(fails_once)
    async with opened(serving(agent)) as bridge:
        task = await bridge.run("Paris Rome", client_tools=[get_weather])
    assert completed(task) == "sunny in Paris | sunny in Rome"
    assert [len(conversation.rounds) for conversation in agent.seen] == [0, 1, 1]
    assert text_of(agent.seen[-1].user_content) == "Paris Rome"


@pytest.mark.parametrize("dialect", [Dialect.PUBLISHED], indirect=True)
async def test_a_session_that_is_gone_is_replayed(serving: Serving, opened: Opened) -> None:
    agent = Scripted(chained)
    server = serving(agent)
    async with opened(server) as bridge:
        task = await bridge.run("go", client_tools=[WEATHER])
        for number in range(3):
            if number == 2:
                for lost in server.get("tasks").json()["result"]:
                    assert server.delete(f"tasks/{lost['id']}").status_code == 200
            await bridge.submit(task.id, {task.pending[0].call_id: f"weather {number}"})
            task = await bridge.wait(task.id)
    assert completed(task) == "weather 0 | weather 1 | weather 2"
    last = agent.seen[-1]
    assert text_of(last.user_content) == "go"
    items: Sequence[Any] = last.rounds[1].items
    assert [item.type for item in items] == ["message", "tool_call"]
    (remote,) = server.get("tasks").json()["result"]
    assert remote["status"] == "completed"


async def test_text_is_shown_while_it_is_made(serving: Serving, dialect: Dialect) -> None:
    heard: list[AgentTaskEvent] = []
    request = StartRequest("task_1", "s", "u", [TextContentItem(text="hi")], stream=True)
    agent = Talking()

    def listen(event: AgentTaskEvent) -> None:
        heard.append(event)
        agent.gate.set()

    async with backend_at(serving(agent), dialect) as backend:
        task = await backend.start(request, listener=listen)
    assert task.status is TaskStatus.COMPLETED
    assert heard[0].type == "task.created"
    assert "".join(event.delta for event in heard if isinstance(event, TaskTextDeltaEvent)) == "Hello!"
    assert heard[-1].type == "task.completed"
    assert not [event for event in heard if isinstance(event, UnknownEvent)]


async def test_a_task_rests_and_goes_on(serving: Serving, dialect: Dialect) -> None:
    agent = Gated()
    server = serving(agent)
    request = StartRequest("task_1", "s", "u", [TextContentItem(text="stay")])
    async with backend_at(server, dialect) as backend, anyio.create_task_group() as group:
        group.start_soon(backend.start, request)
        assert await to_thread.run_sync(agent.entered.wait, 10)
        assert (await backend.pause("task_1")).status is TaskStatus.PAUSED
        assert (await backend.pause("task_1")).status is TaskStatus.PAUSED
        agent.gate.set()
        assert (await backend.resume("task_1")).status in {TaskStatus.CREATED, TaskStatus.WORKING, TaskStatus.COMPLETED}
    events = server.get("tasks/task_1/events").text
    assert "task.paused" in events
    assert "task.completed" in events


async def test_the_probe_finds_the_documented_dialect(server: Server) -> None:
    """The published one would tell the bridge that closing a stream ends a run, which it does not here."""
    async with backend_at(server, None) as backend:
        await backend.start(StartRequest("task_1", "s", "u", [TextContentItem(text="Paris")]))
        assert dict(backend.notes) == {server.url: Dialect.DOCUMENTED}
        assert not await backend.dies_with_its_stream()
