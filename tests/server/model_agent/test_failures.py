"""What goes wrong at the provider: repeated where that helps, told without giving anything away."""

from __future__ import annotations

import socket

import httpx2
import pytest

from agentlin_bridge.server.agent import AgentFailure
from agentlin_bridge.server.model_agent.agents import ModelAgents

from .agents import KEY, Heard, asked, profile, talking, text_in
from .endpoint import Reply, endpoint, saying

pytestmark = pytest.mark.anyio

GOOD = Reply(("Hello",))


def refusal(status: int, message: str = "no", code: str | None = None, **headers: str) -> Reply:
    return Reply(status=status, error={"message": message, "code": code}, headers=headers)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "The provider of openai:scripted refused the server's key. Next: the server's operator"),
        (403, "does not permit the server this request"),
        (404, "does not know the model openai:scripted"),
        (400, "refused the request: Invalid schema for function 'x'. Next: correct"),
        (422, "refused the request: Invalid schema for function 'x'. Next: correct"),
    ],
)
async def test_a_refusal_is_told_and_not_repeated(status: int, said: str) -> None:
    async with talking(refusal(status, "Invalid schema for function 'x'")) as talk:
        with pytest.raises(AgentFailure) as caught:
            await talk.step("hi")
    assert said in caught.value.message
    assert len(talk.endpoint.requests) == 1


@pytest.mark.parametrize(
    ("status", "said"),
    [(429, "has no capacity or quota left"), (500, "failed. Next: try again later"), (503, "failed. Next: try again")],
)
async def test_a_passing_failure_is_repeated_and_then_told(status: int, said: str) -> None:
    async with talking(saying(*[refusal(status)] * 3)) as talk:
        with pytest.raises(AgentFailure) as caught:
            await talk.step("hi")
    assert said in caught.value.message
    assert len(talk.endpoint.requests) == 3


async def test_the_providers_package_repeats_nothing_by_itself() -> None:
    async with endpoint(saying(*[refusal(500)] * 3)) as served, httpx2.AsyncClient() as http:
        agent = ModelAgents([profile(served.base_url, model_options={"http_async_client": http})]).pick({})
        async with agent:
            with pytest.raises(AgentFailure, match="failed"):
                await agent.step(asked("hi"), Heard())
    assert len(served.requests) == 3


async def test_a_passing_failure_that_passes_is_not_noticed() -> None:
    async with talking(saying(refusal(429), refusal(500), GOOD)) as talk:
        assert text_in(await talk.step("hi")) == "Hello"
    assert talk.voice.texts == ["Hello"]


async def test_a_provider_that_names_a_bearable_wait_is_waited_for() -> None:
    async with talking(saying(refusal(429, **{"retry-after": "1"}), GOOD)) as talk:
        assert text_in(await talk.step("hi")) == "Hello"


@pytest.mark.parametrize(
    "reply", [refusal(429, code="insufficient_quota"), refusal(429, **{"retry-after": "3600"})], ids=["quota", "hour"]
)
async def test_nothing_is_repeated_where_waiting_does_not_help(reply: Reply) -> None:
    async with talking(reply) as talk:
        with pytest.raises(AgentFailure, match="has no capacity or quota"):
            await talk.step("hi")
    assert len(talk.endpoint.requests) == 1


async def test_an_odd_wish_to_wait_is_overlooked() -> None:
    async with talking(saying(refusal(429, **{"retry-after": "soon"}), GOOD)) as talk:
        assert text_in(await talk.step("hi")) == "Hello"


async def test_a_stream_that_breaks_before_anything_was_said_is_tried_again() -> None:
    async with talking(saying(Reply(cut=True), GOOD)) as talk:
        assert text_in(await talk.step("hi")) == "Hello"


async def test_a_stream_that_breaks_after_something_was_said_fails() -> None:
    async with talking(saying(Reply(("Hel", "lo"), cut=True))) as talk:
        with pytest.raises(AgentFailure, match=r"connection to the provider of openai:scripted failed or broke\. Next"):
            await talk.step("hi")
    assert talk.voice.texts == ["Hel", "lo"]
    assert len(talk.endpoint.requests) == 1


async def test_a_provider_that_is_not_there_is_told_without_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    agent = ModelAgents([profile(f"http://127.0.0.1:{port}/v1")]).pick({})
    async with agent:
        with pytest.raises(AgentFailure) as caught:
            await agent.step(asked("hi"), Heard())
    assert "The connection to the provider" in caught.value.message
    assert str(port) not in caught.value.message


@pytest.mark.parametrize("status", [400, 401])
async def test_no_key_and_no_address_is_told(status: int) -> None:
    says = f"Bad key {KEY}, Bearer abc at http://internal.example/v1: see https://example.com/keys"
    async with talking(refusal(status, says)) as talk:
        with pytest.raises(AgentFailure) as caught:
            await talk.step("hi")
    for secret in (KEY, KEY[8:30], "abc", "internal", "example.com"):
        assert secret not in caught.value.message


async def test_a_long_explanation_is_cut() -> None:
    async with talking(refusal(400, "word " * 1000)) as talk:
        with pytest.raises(AgentFailure) as caught:
            await talk.step("hi")
    assert len(caught.value.message) < 500


async def test_what_the_user_said_is_not_logged_with_a_repetition(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="stamina")
    async with talking(saying(refusal(500), GOOD)) as talk:
        await talk.step("a private matter")
    repeated = [record for record in caplog.records if record.name == "stamina"]
    assert repeated
    assert "private" not in "".join(str(vars(record)) for record in repeated)


async def test_what_is_no_fault_of_the_provider_is_not_told_as_one() -> None:
    async with talking(GOOD) as talk:
        with pytest.raises(UnicodeEncodeError):
            await talk.step("\ud800")
