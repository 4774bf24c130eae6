"""Which agent serves a request, and what the request may say about it."""

from __future__ import annotations

from typing import Any

import pytest

from agentlin_bridge.errors import ConfigurationError
from agentlin_bridge.server.agent import AgentFailure
from agentlin_bridge.server.model_agent.agents import ModelAgents, configured_agents
from agentlin_bridge.server.model_agent.profiles import read_profiles
from agentlin_bridge.server.protocol.refusals import Refusal
from tests.server.agents import READ_FILE

from .agents import MOVE, WEATHER, asked, refusal, talking
from .endpoint import Call, Reply

pytestmark = pytest.mark.anyio

GOOD = Reply(("Hello",))
OPTIONS = {"api_key": "k"}
TOOLS = {"files": {"command": "files-server"}}


@pytest.fixture(scope="module")
def agents() -> ModelAgents:
    return ModelAgents(
        read_profiles(
            {
                "helper": {"model": "openai:small", "model_options": OPTIONS, "tool_servers": TOOLS},
                "researcher": {"model": "openai:large", "model_options": OPTIONS, "description": "reads a lot"},
            }
        )
    )


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        ({}, "helper"),
        ({"client_id": "somebody"}, "helper"),
        ({"client_id": "researcher"}, "researcher"),
        ({"agent_config": {"agent_id": "researcher"}}, "researcher"),
        ({"agent_config": {"agent_id": "helper"}, "client_id": "researcher"}, "helper"),
        ({"agent_config": {"agent_id": "researcher", "model": "large", "code_for_agent": "x"}}, "researcher"),
        ({"agent_config": {"agent_id": "", "model": "openai:small"}}, "helper"),
        ({"inference_args": {"temperature": 0.5, "use_responses_backend": False}}, "helper"),
    ],
)
def test_a_request_picks_an_agent(agents: ModelAgents, request_: dict[str, Any], name: str) -> None:
    assert agents.pick(request_).name == name


def test_all_agents_are_there(agents: ModelAgents) -> None:
    assert [(agent.name, agent.description, agent.max_steps) for agent in agents] == [
        ("helper", "the model openai:small", 50),
        ("researcher", "reads a lot", 50),
    ]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"agent_config": {"agent_id": "nobody"}}, "no agent 'nobody'.*helper, researcher"),
        ({"agent_config": {"model": "huge"}}, "runs 'small'"),
        ({"agent_config": "helper"}, "agent_config: "),
        ({"agent_config": {"developer_prompt": 3}}, "agent_config.developer_prompt: "),
        ({"inference_args": {"base_url": "http://evil"}}, "inference_args.base_url cannot be chosen.*temperature"),
        ({"inference_args": {"api_key": "k"}}, "inference_args.api_key cannot be chosen"),
        ({"inference_args": {"temperature": 9}}, "inference_args.temperature: .*less than or equal to 2"),
        ({"allowed_tools": "all"}, "allowed_tools: "),
        ({"structured_output": {"type": "nonsense"}}, "structured_output is no JSON Schema: 'nonsense'"),
        (
            {"client_tools": [{**READ_FILE, "function": {"name": "files__read"}}]},
            "'files__read' has a name of the serv",
        ),
    ],
)
def test_a_request_that_cannot_be_served_is_refused(agents: ModelAgents, request_: dict[str, Any], said: str) -> None:
    with pytest.raises(Refusal, match=said) as caught:
        agents.pick(request_)
    assert caught.value.status == 422


def test_client_tools_of_other_names_are_welcome(agents: ModelAgents) -> None:
    agents.pick({"client_tools": [READ_FILE, {**READ_FILE, "function": {"name": "files_read"}}]})


def test_an_agent_owns_the_tools_of_its_servers_and_no_others(agents: ModelAgents) -> None:
    helper, researcher = agents
    assert helper.owns("files__read")
    assert not helper.owns("files_read")
    assert not helper.owns("web__read")
    assert not researcher.owns("files__read")


def test_two_agents_of_one_name_are_refused() -> None:
    (one,) = read_profiles({"helper": {"model": "openai:small", "model_options": OPTIONS}})
    with pytest.raises(ConfigurationError, match="Two agents are called 'helper'"):
        ModelAgents([one, one])


def test_no_agent_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"There is no agent\. Next: name a model"):
        ModelAgents([])


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ("nonsense:x", {}, "cannot be used: ValueError"),
        ("cohere:x", {}, r"pip install langchain-cohere`\. Next: install that package"),
        ("openai:x", {"temperature": "hot", "api_key": "sk-secret"}, "temperature: .*valid number"),
        ("openai:x", {}, "set its provider's key in the environment"),
    ],
)
def test_a_model_that_cannot_be_set_up_is_refused(
    model: str, options: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (one,) = read_profiles({"helper": {"model": model, "model_options": options}})
    with pytest.raises(ConfigurationError, match=said) as caught:
        ModelAgents([one])
    assert "secret" not in str(caught.value)


def test_a_model_alone_is_the_default_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    agents = configured_agents("openai:gpt-4o", {"reader": {"model": "openai:large"}})
    assert [(agent.name, agent.description) for agent in agents] == [
        ("default", "the model openai:gpt-4o"),
        ("reader", "the model openai:large"),
    ]
    assert agents.pick({}).name == "default"


def test_without_a_model_the_first_profile_is_the_default() -> None:
    profiles = {name: {"model": "openai:small", "model_options": OPTIONS} for name in ("one", "two")}
    assert configured_agents(None, profiles).pick({}).name == "one"


async def test_a_request_replaces_the_prompt_and_chooses_model_parameters() -> None:
    config = {"developer_prompt": "Be long.", "max_response_length": 99}
    arguments = {"temperature": 0.5, "seed": 3, "stop": ["END"]}
    async with talking(GOOD, prompt="Be brief.", model_options={"temperature": 1}) as talk:
        await talk.step("hi", agent_config=config, inference_args=arguments)
        (request,) = talk.endpoint.requests
    assert request["messages"][0] == {"role": "system", "content": "Be long."}
    assert {name: request[name] for name in ("temperature", "seed", "stop", "max_completion_tokens")} == {
        **arguments,
        "max_completion_tokens": 99,
    }


async def test_max_tokens_come_before_the_configured_length() -> None:
    async with talking(GOOD) as talk:
        await talk.step("hi", agent_config={"max_response_length": 99}, inference_args={"max_tokens": 7})
        assert talk.endpoint.requests[0]["max_completion_tokens"] == 7


@pytest.mark.parametrize(
    ("request_", "offered"),
    [
        ({}, ["get_weather", "move"]),
        ({"allowed_tools": None}, ["get_weather", "move"]),
        ({"allowed_tools": ["move", "fly"]}, ["move"]),
        ({"allowed_tools": []}, []),
        ({"disallowed_tools": ["move"]}, ["get_weather"]),
        ({"allowed_tools": ["move"], "disallowed_tools": ["move"]}, []),
    ],
)
async def test_only_allowed_tools_are_offered(request_: dict[str, Any], offered: list[str]) -> None:
    async with talking(GOOD) as talk:
        await talk.step(asked("hi", tools=[WEATHER, MOVE], **request_))
        assert talk.endpoint.offered() == offered


async def test_a_tool_that_is_not_allowed_is_not_called_either() -> None:
    async with talking(Reply(calls=(Call("move"),))) as talk:
        step = await talk.step(asked("hi", tools=[WEATHER, MOVE], disallowed_tools=["move"]))
        assert "there is no tool 'move' to use here" in await refusal(talk.agent, step)


async def test_a_request_that_became_unusable_fails_the_step() -> None:
    async with talking(GOOD) as talk:
        with pytest.raises(AgentFailure, match="allowed_tools: "):
            await talk.step("hi", allowed_tools="all")
