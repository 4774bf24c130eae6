"""A model agent behind the real server: the engine's loop, driven over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread

from agentlin_bridge.server.agent import Agents
from agentlin_bridge.server.model_agent.agents import ModelAgents
from tests.server.agents import result
from tests.server.conftest import Server, Serving

from .agents import profile, tool_process
from .endpoint import Call, Endpoint, Json, Model, Reply, endpoint, saying

pytestmark = pytest.mark.anyio

WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


@asynccontextmanager
async def served(serving: Serving, model: Model | Reply, **fields: Any) -> AsyncIterator[tuple[Server, Endpoint]]:
    async with endpoint(model) as scripted:
        agents: Callable[[], Agents] = partial(ModelAgents, [profile(scripted.base_url, **fields)])
        yield await to_thread.run_sync(partial(serving, agents=agents)), scripted


async def make(server: Server, content: str, **body: Any) -> Json:
    return await to_thread.run_sync(partial(server.make, content, **body))


async def test_a_task_with_a_server_tool_and_a_client_tool(serving: Serving, tmp_path: Path) -> None:
    both = (Call("calc__add", '{"a": 2, "b": 3}', "call_a"), Call("get_weather", '{"city": "Rom"}', "call_b"))
    model = saying(Reply(("I look.",), calls=both), Reply(("Five and sunny.",)))
    async with served(serving, model, tool_servers={"calc": tool_process(tmp_path / "starts")}) as (server, scripted):
        task = await make(server, "hi", client_tools=[WEATHER], session_id="s")
        assert task["status"] == "input-required"
        assert task["input_required_call_ids"] == ["call_b"]
        done = await make(server, "", session_id="s", thought_messages=[result("call_b", "sunny")])
        told = scripted.messages()
    assert done["status"] == "completed"
    assert [message["role"] for message in told] == ["user", "assistant", "tool", "tool"]
    assert [message["content"] for message in told[2:]] == ["5", "sunny"]
    assert done["output"][-1]["content"] == "Five and sunny."


async def test_a_stop_tool_of_the_server_is_answered_by_the_client(serving: Serving, tmp_path: Path) -> None:
    model = saying(Reply(calls=(Call("calc__add", '{"a": 2, "b": 3}', "call_a"),)), Reply(("Nine.",)))
    tools = tool_process(tmp_path / "starts")
    async with served(serving, model, tool_servers={"calc": tools}) as (server, scripted):
        task = await make(server, "hi", session_id="s", stop_tools=["calc__add"])
        assert task["input_required_call_ids"] == ["call_a"]
        done = await make(server, "", session_id="s", thought_messages=[result("call_a", "9")])
        told = scripted.messages()
    assert done["status"] == "completed"
    assert told[-1] == {"role": "tool", "tool_call_id": "call_a", "content": "9"}


async def test_usage_is_counted_over_the_steps_of_a_task(serving: Serving, tmp_path: Path) -> None:
    model = saying(Reply(calls=(Call("calc__add", '{"a": 2, "b": 3}'),)), Reply(("Five.",)))
    tools = tool_process(tmp_path / "starts")
    options = {"stream_usage": True}
    async with served(serving, model, tool_servers={"calc": tools}, model_options=options) as (server, _):
        task = await make(server, "hi")
    assert (task["usage"]["input_tokens"], task["usage"]["output_tokens"]) == (22, 14)


async def test_a_failure_is_the_tasks_error(serving: Serving) -> None:
    async with served(serving, Reply(status=401, error={"message": "no"})) as (server, _):
        task = await make(server, "hi")
    assert task["status"] == "failed"
    assert "refused the server's key" in task["error"]["message"]


async def test_an_answer_by_a_schema(serving: Serving) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    async with served(serving, saying(Reply(("{}",)), Reply(('{"n": 3}',)))) as (server, _):
        task = await make(server, "hi", structured_output=schema)
    assert json.loads(task["output"][-1]["content"]) == {"n": 3}


async def test_the_turns_before_are_told_to_the_model(serving: Serving) -> None:
    async with served(serving, saying(Reply(("One.",)), Reply(("Two.",)))) as (server, scripted):
        await make(server, "first", session_id="s")
        await make(server, "second", session_id="s")
        told = [(message["role"], message["content"]) for message in scripted.messages()]
    assert told == [("user", "first"), ("assistant", "One."), ("user", "second")]


async def test_a_disallowed_server_tool_is_refused_to_the_model_and_not_run(serving: Serving, tmp_path: Path) -> None:
    model = saying(Reply(calls=(Call("calc__add", '{"a": 2, "b": 3}'),)), Reply(("I cannot.",)))
    async with served(serving, model, tool_servers={"calc": tool_process(tmp_path / "starts")}) as (server, scripted):
        task = await make(server, "hi", disallowed_tools=["calc__add"])
        told = scripted.messages()
    assert task["status"] == "completed"
    assert told[-1]["content"].startswith("ERROR: there is no tool 'calc__add' to use here")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (Call("fly", "{}"), "ERROR: there is no tool 'fly' to use here"),
        (Call("get_weather", '{"city": '), "ERROR: "),
    ],
)
async def test_a_call_that_nobody_can_run_is_answered_by_the_server(serving: Serving, call: Call, said: str) -> None:
    async with served(serving, saying(Reply(calls=(call,)), Reply(("Then not.",)))) as (server, scripted):
        task = await make(server, "hi", client_tools=[WEATHER])
        told = scripted.messages()
    assert task["status"] == "completed"
    assert told[-1]["content"].startswith(said)


async def test_a_continuation_need_not_repeat_what_the_turn_was_asked_for(serving: Serving) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    model = saying(Reply(calls=(Call("get_weather", '{"city": "Rom"}'),)), Reply(("sunny",)), Reply(('{"n": 3}',)))
    async with served(serving, model) as (server, scripted):
        config = {"developer_prompt": "Answer in numbers."}
        asked = {"client_tools": [WEATHER], "structured_output": schema, "agent_config": config}
        task = await make(server, "hi", session_id="s", **asked)
        done = await make(
            server, "", session_id="s", thought_messages=[result(task["input_required_call_ids"][0], "3")]
        )
        systems = [[each["content"] for each in scripted.messages(at) if each["role"] == "system"] for at in (0, 1)]
    assert json.loads(done["output"][-1]["content"]) == {"n": 3}
    assert systems[0] == systems[1] != []


async def test_an_agent_that_does_not_exist_is_refused_before_anything_is_created(serving: Serving) -> None:
    async with served(serving, saying()) as (server, _):
        status, error = await to_thread.run_sync(partial(server.refuse, "hi", agent_config={"agent_id": "nobody"}))
        listed = await to_thread.run_sync(partial(server.get, "tasks"))
    assert (status, "nobody" in error["message"]) == (422, True)
    assert listed.json()["result"] == []
