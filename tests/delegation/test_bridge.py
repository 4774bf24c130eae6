"""TaskBridge against a remote on a real port: creating, answering, submitting, ending."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from agentlin_bridge import (
    AlreadyAnswered,
    BridgeError,
    ClientTool,
    ConfigurationError,
    InvalidRequestError,
    Limits,
    RequestConflict,
    TaskBridge,
    TaskNotFound,
    TaskRequest,
    TaskStatus,
    ToolResult,
    UnknownCall,
    client_tool,
)
from agentlin_bridge.remote.agentlin.backend import AgentlinBackend
from agentlin_bridge.remote.agentlin.endpoint import Address, FixedEndpoint
from agentlin_bridge.task import ImageContentItem, ToolResultItem
from tests.delegation.conftest import Open
from tests.support.remote import Agent, Json, ScriptedRemote, Turn, call, message, results_of

pytestmark = pytest.mark.anyio

ASK_HOST: Json = {
    "name": "ask_host",
    "description": "Ask the host.",
    "parameters": {"type": "object", "properties": {"request": {"type": "string"}}, "required": ["request"]},
}


def weather_agent(*cities: str) -> Agent:
    """Asks for the weather in each city, all at once, and repeats what it is told."""

    def agent(body: Json) -> Turn:
        results = results_of(body)
        if results:
            return Turn([message("; ".join(f"{key}={value}" for key, value in sorted(results.items())))])
        return Turn([call(f"call_{city}", "get_weather", {"city": city}) for city in cities])

    return agent


# Creating and answering ---------------------------------------------------------------------------------


async def test_run_answers_calls_with_handlers(open_bridge: Open) -> None:
    asked = []

    def get_weather(city: str) -> str:
        """Weather."""
        asked.append(city)
        return f"sunny in {city}"

    async with open_bridge(weather_agent("Paris", "Rome")) as (bridge, remote):
        task = await bridge.run("weather?", client_tools=[get_weather])
    assert task.status is TaskStatus.COMPLETED
    assert task.answer == "call_Paris=sunny in Paris; call_Rome=sunny in Rome"
    assert sorted(asked) == ["Paris", "Rome"]
    first, second = remote.posts
    assert first["task_id"] == task.id
    assert first["stream"] is False
    assert first["user_message_content"] == [{"type": "text", "text": "weather?"}]
    assert first["client_tools"][0]["function"]["parameters"]["required"] == ["city"]
    assert second["session_id"] == first["session_id"]
    assert second["previous_task_id"] == task.id
    assert second["task_id"] not in ("", task.id)
    assert second["user_message_content"] == []
    assert second["client_tools"] == first["client_tools"]
    assert [item["type"] for item in second["thought_messages"]] == ["tool_result", "tool_result"]
    assert all(item["block_list"] == [] for item in second["thought_messages"])


async def test_create_returns_at_once_and_wait_has_a_limit(open_bridge: Open) -> None:
    gate = anyio.Event()
    async with open_bridge(lambda body: Turn([message("late")], gate=gate)) as (bridge, remote):
        task = await bridge.create("slow")
        assert task.status is TaskStatus.CREATED
        await remote.posted.wait()
        task = await bridge.wait(task.id, timeout=0.05)
        assert task.status is TaskStatus.WORKING
        assert task.answer is None
        gate.set()
        assert (await bridge.wait(task.id)).answer == "late"


async def test_partial_submission(open_bridge: Open) -> None:
    tool = {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
    async with open_bridge(weather_agent("Paris", "Rome")) as (bridge, remote):
        task = await bridge.run("weather?", client_tools=[tool])
        assert [(c.call_id, c.name, json.loads(c.arguments)) for c in task.pending] == [
            ("call_Paris", "get_weather", {"city": "Paris"}),
            ("call_Rome", "get_weather", {"city": "Rome"}),
        ]
        task = await bridge.submit(task.id, {"call_Rome": "rain"})
        assert [c.call_id for c in task.pending] == ["call_Paris"]
        assert (await bridge.wait(task.id)).pending == task.pending
        assert len(remote.posts) == 1
        await bridge.submit(task.id, {"call_Paris": {"sky": "blue"}})
        task = await bridge.wait(task.id)
    assert task.answer == 'call_Paris={"sky":"blue"}; call_Rome=rain'
    assert len(remote.posts) == 2
    assert [item.type for item in task.output] == ["tool_call", "tool_call", "tool_result", "tool_result", "message"]


async def test_repeated_and_wrong_submissions(open_bridge: Open) -> None:
    async with open_bridge(weather_agent("Paris")) as (bridge, remote):
        task = await bridge.run("weather?", client_tools=[{"name": "get_weather"}])
        with pytest.raises(UnknownCall, match=r"call_Rome.*Nothing was stored.*submit results for: call_Paris"):
            await bridge.submit(task.id, {"call_Paris": "sunny", "call_Rome": "rain"})
        with pytest.raises(InvalidRequestError, match="no results"):
            await bridge.submit(task.id, {})
        await bridge.submit(task.id, {"call_Paris": "sunny"})
        await bridge.submit(task.id, {"call_Paris": "sunny"})
        with pytest.raises(AlreadyAnswered, match="first one stands"):
            await bridge.submit(task.id, {"call_Paris": "rain"})
        done = await bridge.wait(task.id)
        assert done.answer == "call_Paris=sunny"
        assert (await bridge.submit(task.id, {"call_Paris": "sunny"})).answer == done.answer
        with pytest.raises(UnknownCall, match=r"is completed and takes no result"):
            await bridge.submit(task.id, {"call_Oslo": "snow"})
    assert len(remote.posts) == 2


async def test_a_result_that_is_too_large_leaves_the_call_pending(open_bridge: Open) -> None:
    async with open_bridge(weather_agent("Paris")) as (bridge, _):
        task = await bridge.run("weather?", client_tools=[{"name": "get_weather"}])
        with pytest.raises(
            InvalidRequestError, match=r"5,242,880 characters.*limit is 1,000,000.*still pending.*Next: "
        ):
            await bridge.submit(task.id, {"call_Paris": "x" * 5 * 2**20})
        assert [c.call_id for c in (await bridge.retrieve(task.id)).pending] == ["call_Paris"]
        await bridge.submit(task.id, {"call_Paris": "short"})
        assert (await bridge.wait(task.id)).status is TaskStatus.COMPLETED


async def test_a_result_that_is_not_unicode_leaves_the_call_pending(open_bridge: Open) -> None:
    async with open_bridge(weather_agent("Paris")) as (bridge, _):
        task = await bridge.run("weather?", client_tools=[{"name": "get_weather"}])
        for results in ({"call_Paris": "\ud83d"}, {"\ud83d": "x"}):
            with pytest.raises(InvalidRequestError, match="not Unicode"):
                await bridge.submit(task.id, results)
        assert len((await bridge.retrieve(task.id)).pending) == 1


@pytest.mark.parametrize("task_id", ["../../admin", "?limit=1", "x/cancel", "", "a\nb", "\ud83d", "x" * 300])
async def test_what_cannot_be_an_id_reaches_no_remote(open_bridge: Open, task_id: str) -> None:
    async with open_bridge(lambda body: Turn()) as (bridge, remote):
        for operation in (bridge.retrieve, bridge.cancel, bridge.delete, bridge.wait):
            with pytest.raises(TaskNotFound):
                await operation(task_id)
    assert remote.requests == []


async def test_error_results_are_recognisable(open_bridge: Open) -> None:
    async with open_bridge(weather_agent("Paris")) as (bridge, _):
        task = await bridge.run("weather?", client_tools=[{"name": "get_weather"}])
        await bridge.submit(task.id, {"call_Paris": ToolResult.error("no network")})
        assert (await bridge.wait(task.id)).answer == "call_Paris=ERROR: no network"


async def test_images_reach_the_remote(open_bridge: Open) -> None:
    picture = ImageContentItem.model_validate({"image_url": {"url": "data:image/png;base64,AAAA"}})

    def get_weather(city: str) -> list[Any]:
        """Weather."""
        return ["a picture:", picture]

    async with open_bridge(weather_agent("Paris")) as (bridge, remote):
        task = await bridge.run("weather?", client_tools=[get_weather], attachments=[picture, "and a note"])
    kinds = [part["type"] for part in remote.posts[1]["thought_messages"][0]["message_content"]]
    assert kinds == ["text", "image_url"]
    assert [part["type"] for part in remote.posts[0]["user_message_content"]] == ["text", "image_url", "text"]
    result = next(item for item in task.output if isinstance(item, ToolResultItem))
    assert result.message_content[1] == picture


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("{not json", "are not JSON"),
        ('"Paris"', "do not fit its schema"),
        ('{"town": "Paris"}', "do not fit its schema"),
        ('{"city": 7}', "7 is not of type 'string'"),
    ],
)
async def test_bad_arguments_go_back_to_the_remote(open_bridge: Open, arguments: str, said: str) -> None:
    def agent(body: Json) -> Turn:
        results = results_of(body)
        return Turn([message(results["c"])] if results else [call("c", "get_weather", arguments)])

    @client_tool
    def get_weather(city: str) -> str:
        """Weather."""
        raise AssertionError("a bad call must not reach the handler")

    without_handler = ClientTool("get_weather", parameters=get_weather.parameters)
    async with open_bridge(agent) as (bridge, _):
        for tool in (get_weather, without_handler):
            task = await bridge.run("weather?", client_tools=[tool])
            assert task.answer is not None
            assert task.answer.startswith("ERROR: ")
            assert said in task.answer


async def test_unknown_tools_go_back_to_the_remote(open_bridge: Open) -> None:
    def agent(body: Json) -> Turn:
        results = results_of(body)
        return Turn([message(results["c"])] if results else [call("c", "rm", {})])

    async with open_bridge(agent) as (bridge, _):
        task = await bridge.run("weather?", client_tools=[ASK_HOST])
    assert task.answer == "ERROR: There is no tool 'rm' here, and nothing was executed. Tools you can call: ask_host."


async def test_what_goes_wrong_in_a_handler_goes_back_to_the_remote(open_bridge: Open) -> None:
    def raising(city: str) -> str:
        """Raises."""
        raise OSError(f"no such city: {city}")

    async def hanging(city: str) -> str:
        """Never ends."""
        await anyio.sleep_forever()
        return city

    def flooding(city: str) -> str:
        """Says too much."""
        return "x" * 5000

    async def refusing(_: object) -> bool:
        return False

    refused = client_tool(name="get_weather", approval=refusing)(raising)
    expected = [
        (client_tool(name="get_weather")(raising), "ERROR: get_weather failed: OSError: no such city: Paris"),
        (client_tool(name="get_weather")(hanging), "ERROR: get_weather did not finish within 2 seconds."),
        (refused, "ERROR: The call of get_weather was not approved, and nothing was executed."),
    ]
    limits = Limits(handler_timeout=2, result_chars=1000)
    async with open_bridge(weather_agent("Paris"), limits=limits) as (bridge, _):
        for tool, said in expected:
            assert (await bridge.run("weather?", client_tools=[tool])).answer == f"call_Paris={said}"
        cut = (await bridge.run("weather?", client_tools=[client_tool(name="get_weather")(flooding)])).answer
    assert cut is not None
    assert cut.count("x") > 990
    assert cut.endswith("[cut: the result has 5000 characters, the limit is 1000]")


async def test_only_so_many_handlers_run_at_once(open_bridge: Open) -> None:
    running = peak = 0
    three = anyio.Event()

    async def get_weather(city: str) -> str:
        """Weather."""
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        if running == 3:
            three.set()
        await three.wait()
        # As long as a fourth would need to start, were it allowed to.
        await bridge.retrieve(await task_id.receive())
        running -= 1
        return city

    cities = [f"c{number}" for number in range(12)]
    send, task_id = anyio.create_memory_object_stream[str](12)
    async with (
        open_bridge(weather_agent(*cities), limits=Limits(concurrent_handlers=3)) as (bridge, _),
        send,
        task_id,
    ):
        created = await bridge.create("weather?", client_tools=[get_weather])
        for _ in cities:
            send.send_nowait(created.id)
        task = await bridge.wait(created.id)
    assert task.status is TaskStatus.COMPLETED
    assert peak == 3


async def test_rounds_chain_in_one_session(open_bridge: Open) -> None:
    def agent(body: Json) -> Turn:
        done = len(results_of(body)) and int(next(iter(results_of(body).values())))
        return Turn([message("done")] if done >= 3 else [call("again", "count", {"done": done})])

    def count(done: int) -> int:
        """Count."""
        return done + 1

    async with open_bridge(agent) as (bridge, remote):
        task = await bridge.run("count", client_tools=[count])
    assert task.answer == "done"
    assert len({post["task_id"] for post in remote.posts}) == 4
    assert len({post["session_id"] for post in remote.posts}) == 1
    assert [post.get("previous_task_id") for post in remote.posts[1:]] == [post["task_id"] for post in remote.posts[:3]]


# run_many -----------------------------------------------------------------------------------------------


async def test_run_many_keeps_order_and_its_bound(open_bridge: Open) -> None:
    running = peak = 0
    full = anyio.Event()

    async def agent(body: Json) -> Turn:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        if running == 3:
            full.set()
        await full.wait()
        running -= 1
        text = body["user_message_content"][0]["text"]
        return Turn([message(f"re: {text}")], status="failed" if text == "3" else None)

    requests: list[Any] = [str(number) for number in range(6)]
    requests += [TaskRequest("6"), {"instructions": "7"}]
    async with open_bridge(agent) as (bridge, _):
        tasks = await bridge.run_many(requests, max_concurrency=3)
    assert [task.answer for task in tasks] == [None if n == 3 else f"re: {n}" for n in range(8)]
    assert tasks[3].status is TaskStatus.FAILED
    assert peak == 3


async def test_run_many_checks_everything_before_it_creates_anything(open_bridge: Open) -> None:
    async with open_bridge(lambda body: Turn([message("x")])) as (bridge, remote):
        with pytest.raises(InvalidRequestError, match="instructions are empty"):
            await bridge.run_many(["fine", " "])
        with pytest.raises(InvalidRequestError, match="unexpected keyword argument 'tools'"):
            await bridge.run_many(["fine", {"instructions": "x", "tools": []}])
        with pytest.raises(InvalidRequestError, match="max_concurrency is 0"):
            await bridge.run_many(["fine"], max_concurrency=0)
        assert [task async for task in bridge.list()] == []
    assert remote.posts == []


async def test_a_fault_in_run_many_leaves_nothing_running(open_bridge: Open) -> None:
    async def agent(body: Json) -> Turn:
        return Turn([message("never")], gate=anyio.Event())

    async with open_bridge(agent) as (bridge, remote):
        with pytest.raises(ExceptionGroup) as raised:
            await bridge.run_many(["one", {"instructions": "two", "continue_task": "task_nowhere"}])
        assert raised.group_contains(TaskNotFound)
        assert [task.status async for task in bridge.list()] in ([], [TaskStatus.CANCELED])
        assert all(task["status"] == "canceled" for task in remote.tasks.values())


# Requests -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"instructions": "  "}, "instructions are empty"),
        ({"agent": "poet"}, r"no agent profile 'poet' \(known: none are configured\)"),
        ({"options": {"task_id": "x", "stream": True}}, "sets stream, task_id itself"),
        ({"options": {"other": {1, 2}}}, "cannot be written as JSON"),
        ({"options": {"allowed_tools": "Bash"}}, "option allowed_tools cannot be used: Input should be a valid list"),
        ({"options": {"env": {"A": 1}}}, "option env.A cannot be used"),
        ({"metadata": {"x": float("nan")}}, "cannot be written as JSON"),
        ({"output_schema": {"type": "strange"}}, "no valid JSON Schema"),
        ({"attachments": [{"type": "hologram"}]}, "attachment of type 'hologram'"),
        ({"deadline": 0}, "not in the future"),
        ({"client_tools": [{"name": "a b"}]}, "name 'a b' cannot be used"),
        ({"client_tools": [{"nome": "a"}]}, "is no client tool"),
        ({"client_tools": [{"name": "a", "parameters": []}, {"name": "a"}]}, "Two client tools are called 'a'"),
        ({"client_tools": [{"name": "a", "parameters": "x"}]}, "are not an object"),
        ({"client_tools": [{"name": "a", "parameters": {"type": "string"}}]}, "not a JSON Schema of type object"),
        ({"client_tools": [{"name": "a", "parameters": {"type": "object", "required": 3}}]}, "no valid JSON Schema"),
        ({"client_tools": [7]}, "7 is no client tool"),
        ({"client_tools": [lambda city: city]}, "'<lambda>' cannot be used|has no type"),
        ({"continue_task": "task_nowhere"}, "no task 'task_nowhere'"),
        ({"instructions": "half a \ud83d"}, "not Unicode"),
        ({"request_id": "\ud83d"}, "not Unicode"),
    ],
)
async def test_bad_requests_create_nothing(open_bridge: Open, arguments: dict[str, Any], said: str) -> None:
    async with open_bridge(lambda body: Turn([message("x")])) as (bridge, remote):
        with pytest.raises(InvalidRequestError, match=said) as raised:
            await bridge.create(**{"instructions": "x", **arguments})
        assert raised.value.next_step
        assert [task async for task in bridge.list()] == []
    assert remote.posts == []


async def test_request_id(open_bridge: Open) -> None:
    async with open_bridge(lambda body: Turn([message("x")])) as (bridge, remote):
        first = await bridge.create("hello", request_id="r1", metadata={"a": 1})
        again = await bridge.create("hello", request_id="r1", metadata={"a": 1})
        assert again.id == first.id
        with pytest.raises(RequestConflict, match=f"already created task {first.id} with other arguments"):
            await bridge.create("goodbye", request_id="r1")
        await bridge.wait(first.id)
        await bridge.delete(first.id)
        with pytest.raises(TaskNotFound, match="was deleted"):
            await bridge.create("hello", request_id="r1", metadata={"a": 1})
    assert len(remote.posts) == 1


async def test_options_agents_and_metadata(open_bridge: Open) -> None:
    agents = {"poet": {"allowed_tools": ["rhyme"], "client_id": "AIME"}}
    async with open_bridge(lambda body: Turn([message("x")]), agents=agents, user_id="u7") as (bridge, remote):
        task = await bridge.run("x", agent="poet", options={"client_id": "mine"}, metadata={"ticket": 12})
    assert task.metadata == {"ticket": 12}
    post = remote.posts[0]
    assert (post["allowed_tools"], post["client_id"], post["user_id"]) == (["rhyme"], "mine", "u7")
    assert "ticket" not in json.dumps(post)


async def test_continue_task_goes_on_in_the_session(open_bridge: Open) -> None:
    gate = anyio.Event()
    async with open_bridge(lambda body: Turn([message("x")], gate=gate)) as (bridge, remote):
        first = await bridge.create("one")
        with pytest.raises(InvalidRequestError, match="is still created"):
            await bridge.create("two", continue_task=first.id)
        gate.set()
        await bridge.wait(first.id)
        second = await bridge.run("two", continue_task=first.id)
    assert second.session_id == remote.posts[0]["session_id"]
    assert remote.posts[1]["session_id"] == remote.posts[0]["session_id"]
    assert remote.posts[1]["previous_task_id"] == first.id


async def test_the_answer_must_satisfy_the_output_schema(open_bridge: Open) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    answers = {"good": '{"n": 3}', "bad": '{"n": "3"}', "prose": "three"}
    async with open_bridge(lambda body: Turn([message(answers[body["user_message_content"][0]["text"]])])) as opened:
        bridge, remote = opened
        assert (await bridge.run("good", output_schema=schema)).status is TaskStatus.COMPLETED
        for instructions, said in {"bad": "'3' is not of type 'integer'", "prose": "it is not JSON"}.items():
            task = await bridge.run(instructions, output_schema=schema)
            assert task.status is TaskStatus.FAILED
            assert task.error is not None
            assert said in task.error.message
            assert task.answer == answers[instructions]
    assert remote.posts[0]["structured_output"] == schema


# Ending -------------------------------------------------------------------------------------------------


async def test_cancel_reaches_handlers_and_the_remote(open_bridge: Open) -> None:
    started, stopped = anyio.Event(), anyio.Event()

    async def get_weather(city: str) -> str:
        """Weather."""
        started.set()
        try:
            await anyio.sleep_forever()
        finally:
            stopped.set()
        return city

    async with open_bridge(weather_agent("Paris")) as (bridge, remote):
        task = await bridge.create("weather?", client_tools=[get_weather])
        await started.wait()
        assert (await bridge.retrieve(task.id)).status is TaskStatus.WORKING
        task = await bridge.cancel(task.id)
        assert stopped.is_set()
        assert task.status is TaskStatus.CANCELED
        assert task.remote == "stopped"
        assert (await bridge.cancel(task.id)) == task
        assert (await bridge.wait(task.id)).status is TaskStatus.CANCELED
    assert len(remote.posts) == 1


@pytest.mark.parametrize(("cancelable", "outcome"), [(True, "stopped"), (False, "kept running")])
async def test_cancel_says_what_the_remote_did(open_bridge: Open, cancelable: bool, outcome: str) -> None:
    gate = anyio.Event()
    remote = ScriptedRemote(lambda body: Turn([message("x")], gate=gate), cancelable=cancelable)
    async with open_bridge(remote.agent, remote=remote) as (bridge, _):
        task = await bridge.create("slow")
        await remote.posted.wait()
        task = await bridge.cancel(task.id)
        assert (task.status, task.remote) == (TaskStatus.CANCELED, outcome)
        assert remote.tasks[task.id]["status"] == ("canceled" if cancelable else "working")
        gate.set()
        assert (await bridge.retrieve(task.id)).status is TaskStatus.CANCELED


async def test_cancelling_run_cancels_the_task(open_bridge: Open) -> None:
    async with open_bridge(lambda body: Turn([message("x")], gate=anyio.Event())) as (bridge, remote):
        async with anyio.create_task_group() as group:
            group.start_soon(bridge.run, "slow")
            await remote.posted.wait()
            group.cancel_scope.cancel()
        assert [task.status async for task in bridge.list()] == [TaskStatus.CANCELED]
        assert [task["status"] for task in remote.tasks.values()] == ["canceled"]


async def test_an_approval_that_is_required(open_bridge: Open) -> None:
    asked: list[str] = []

    @client_tool(approval="required")
    def get_weather(city: str) -> str:
        """Weather."""
        asked.append(city)
        return "sunny"

    agent = weather_agent("Paris", "Rome", "Oslo")
    async with open_bridge(agent, client_tools=[get_weather]) as (bridge, remote):
        task = await bridge.run("weather?", client_tools=[get_weather])
        assert task.status is TaskStatus.INPUT_REQUIRED
        assert [(c.call_id, c.approval_required) for c in task.pending] == [
            ("call_Paris", True),
            ("call_Rome", True),
            ("call_Oslo", True),
        ]
        with pytest.raises(UnknownCall, match="no tool call 'call_Bern' that waits for approval"):
            await bridge.approve(task.id, ["call_Paris", "call_Bern"])
        assert len((await bridge.wait(task.id)).pending) == 3
        assert asked == []
        await bridge.approve(task.id, ["call_Paris"])
        task = await bridge.wait(task.id)
        assert [c.call_id for c in task.pending] == ["call_Rome", "call_Oslo"]
        assert asked == ["Paris"]
        async with open_bridge(agent, remote=remote) as (elsewhere, _):
            seen = await elsewhere.retrieve(task.id)
            assert [(c.call_id, c.approval_required) for c in seen.pending] == [
                ("call_Rome", True),
                ("call_Oslo", True),
            ]
            await elsewhere.approve(task.id, ["call_Rome"])
        await bridge.submit(task.id, {"call_Oslo": ToolResult.error("The user refused.")})
        await bridge.approve(task.id, ["call_Paris"])
        task = await bridge.wait(task.id)
        assert task.answer == "call_Oslo=ERROR: The user refused.; call_Paris=sunny; call_Rome=sunny"
        with pytest.raises(UnknownCall):
            await bridge.approve(task.id, ["call_Paris"])
    assert sorted(asked) == ["Paris", "Rome"]


async def test_a_cancel_catches_a_request_that_is_still_on_its_way(open_bridge: Open) -> None:
    arriving, arrive = anyio.Event(), anyio.Event()
    remote = ScriptedRemote(lambda body: Turn([message("x")], gate=anyio.Event()))

    async def hold() -> None:
        arriving.set()
        await arrive.wait()

    remote.before_create = hold
    async with open_bridge(remote.agent, remote=remote, limits=Limits(settle=5)) as (bridge, _):
        task = await bridge.create("slow")
        await arriving.wait()
        async with anyio.create_task_group() as group:
            group.start_soon(bridge.cancel, task.id)
            while f"POST /tasks/{task.id}/cancel" not in remote.requests:
                await anyio.lowlevel.checkpoint()
            arrive.set()
        assert remote.tasks[task.id]["status"] == "canceled"
        assert (await bridge.retrieve(task.id)).remote == "stopped"


async def test_handlers_are_forgotten_with_their_task(open_bridge: Open) -> None:
    class Handler:
        def __call__(self, city: str) -> str:
            return city

    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    async with open_bridge(weather_agent("Paris")) as (bridge, _):
        handler = Handler()
        kept = weakref.ref(handler)
        await bridge.run("weather?", client_tools=[ClientTool("get_weather", "", schema, handler)])
        del handler
        while kept() is not None:
            await anyio.lowlevel.checkpoint()
            gc.collect()


async def test_delete_leaves_a_tombstone(open_bridge: Open) -> None:
    async with open_bridge(weather_agent("Paris")) as (bridge, remote):
        task = await bridge.run("weather?", client_tools=[{"name": "get_weather"}])
        first = await bridge.delete(task.id)
        assert (first.status, first.remote, first.pending) == (TaskStatus.CANCELED, "stopped", [])
        assert await bridge.delete(task.id) == first
        assert remote.tasks == {}
        with pytest.raises(TaskNotFound):
            await bridge.retrieve(task.id)
        with pytest.raises(TaskNotFound):
            await bridge.submit(task.id, {"call_Paris": "x"})
        with pytest.raises(TaskNotFound):
            await bridge.cancel(task.id)
        assert [task async for task in bridge.list()] == []


async def test_deadlines(open_bridge: Open) -> None:
    limits = Limits(round_deadline=0.3, settle=0.1)
    async with open_bridge(lambda body: Turn(gate=anyio.Event()), limits=limits) as (bridge, remote):
        task = await bridge.run("slow")
        assert task.status is TaskStatus.EXPIRED
        assert task.error is not None
        assert "round did not end within its deadline" in task.error.message
        assert task.remote == "stopped"
        assert remote.tasks[task.id]["status"] == "canceled"
        task = await bridge.run("slow", deadline=0.1)
        assert task.status is TaskStatus.EXPIRED
        assert task.error is not None
        assert "task did not end within its deadline" in task.error.message


async def test_a_task_waiting_for_its_host_expires_too(open_bridge: Open) -> None:
    async with open_bridge(weather_agent("Paris")) as (bridge, _):
        task = await bridge.run("weather?", client_tools=[{"name": "get_weather"}], deadline=3)
        assert [c.call_id for c in task.pending] == ["call_Paris"]
        while (await bridge.retrieve(task.id)).status is not TaskStatus.EXPIRED:
            await anyio.lowlevel.checkpoint()
        with pytest.raises(UnknownCall, match="is expired"):
            await bridge.submit(task.id, {"call_Paris": "sunny"})


# Looking ------------------------------------------------------------------------------------------------


async def test_list(open_bridge: Open) -> None:
    failing = {"0", "50"}

    def agent(body: Json) -> Turn:
        failed = body["user_message_content"][0]["text"] in failing
        return Turn([message("x")], status="failed" if failed else None)

    async with open_bridge(agent) as (bridge, _):
        tasks = await bridge.run_many([str(number) for number in range(120)], max_concurrency=20)
        created = sorted(tasks, key=lambda task: (task.created_at, task.id), reverse=True)
        assert [task.id async for task in bridge.list()] == [task.id for task in created]
        assert [task.id async for task in bridge.list(limit=3)] == [task.id for task in created[:3]]
        assert [task.id async for task in bridge.list(limit=0)] == []
        failed = {task.id async for task in bridge.list(status="failed")}
        assert failed == {tasks[0].id, tasks[50].id}
        both = [task async for task in bridge.list(status=[TaskStatus.FAILED, TaskStatus.COMPLETED])]
        assert len(both) == 120
        with pytest.raises(InvalidRequestError, match=r"'done' is not a valid TaskStatus.*use one of: created"):
            [task async for task in bridge.list(status="done")]


async def test_a_task_made_elsewhere_is_adopted(open_bridge: Open) -> None:
    async with open_bridge(weather_agent("Paris")) as (bridge, remote):
        elsewhere = {"object": "task", "session_id": "sess_x", "user_id": "u", "created_at": 1700000000}
        remote.tasks["task_677e"] = {
            **elsewhere,
            "id": "task_677e",
            "status": "input-required",
            "output": [call("call_Paris", "get_weather", {"city": "Paris"})],
        }
        remote.tasks["task_done"] = {**elsewhere, "id": "task_done", "status": "completed", "output": [message("hi")]}
        assert (await bridge.wait("task_done")).answer == "hi"
        task = await bridge.wait("task_677e")
        assert [c.call_id for c in task.pending] == ["call_Paris"]
        assert task.created_at.year == 2023
        await bridge.submit("task_677e", {"call_Paris": "sunny"})
        assert (await bridge.wait("task_677e")).answer == "call_Paris=sunny"
        assert remote.posts[0]["session_id"] == "sess_x"
        assert (await bridge.retrieve(remote.posts[0]["task_id"])).id == "task_677e"
        assert (await bridge.delete("task_done")).remote == "stopped"
        assert "task_done" not in remote.tasks
        for operation in (bridge.retrieve, bridge.cancel, bridge.delete):
            with pytest.raises(TaskNotFound, match="no task 'task_nope'"):
                await operation("task_nope")


async def test_principals_do_not_see_each_other(open_bridge: Open) -> None:
    async with (
        open_bridge(weather_agent("Paris"), principal="ann") as (ann, remote),
        open_bridge(weather_agent("Paris"), remote=remote, principal="bob") as (bob, _),
    ):
        task = await ann.run("weather?", client_tools=[{"name": "get_weather"}], request_id="same")
        for operation in (bob.retrieve, bob.wait, bob.cancel, bob.delete):
            with pytest.raises(TaskNotFound):
                await operation(task.id)
        with pytest.raises(TaskNotFound):
            await bob.submit(task.id, {"call_Paris": "x"})
        with pytest.raises(TaskNotFound):
            await bob.create("x", continue_task=task.id)
        assert [found async for found in bob.list()] == []
        other = await bob.create("weather?", client_tools=[{"name": "get_weather"}], request_id="same")
        assert other.id != task.id
        assert (await ann.retrieve(task.id)).pending == task.pending


async def test_the_bridge_must_be_open(tmp_path: Path) -> None:
    backend = AgentlinBackend(FixedEndpoint(Address("http://127.0.0.1:1/v1")))
    bridge = TaskBridge(backend, ledger=tmp_path / "ledger.sqlite3")
    with pytest.raises(BridgeError, match="not open"):
        await bridge.create("x")
    with pytest.raises(BridgeError, match="not open"):
        await bridge.retrieve("task_x")


async def test_an_error_in_the_body_comes_out_as_it_is(tmp_path: Path) -> None:
    backend = AgentlinBackend(FixedEndpoint(Address("http://127.0.0.1:1/v1")))

    async def use() -> None:
        async with TaskBridge(backend, ledger=tmp_path / "ledger.sqlite3"):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await use()


def test_from_env_needs_wiring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TaskBridge, "_factory", None)
    with pytest.raises(ConfigurationError, match="import TaskBridge from agentlin_bridge"):
        TaskBridge.from_env()
