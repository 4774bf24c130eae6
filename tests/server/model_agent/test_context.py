"""Staying within the model's context."""

from __future__ import annotations

from typing import Any

import pytest

from agentlin_bridge.server.agent import AgentFailure, Conversation, Round, Turn, answer
from agentlin_bridge.task import ImageContentItem, ImageURL, TextContentItem

from .agents import asked, called, returned, talking, text_in
from .endpoint import Json, Reply

pytestmark = pytest.mark.anyio

SMALL = {"max_context_tokens": 1000}
GOOD = Reply(("Hello",))


def turn(number: int, size: int = 900) -> Turn:
    """A turn of about `size / 3` tokens, most of it a tool's result."""
    one = Round((called("move", f"call_{number}"),), (returned(f"call_{number}", "x" * size),))
    return Turn((TextContentItem(text=f"question {number}"),), (one,), (answer(f"answer {number}"),))


def going_on(*earlier: Turn) -> Conversation:
    return Conversation((TextContentItem(text="and now?"),), earlier=earlier)


def questions(messages: list[Json]) -> list[str]:
    return [message["content"] for message in messages if message["role"] == "user"]


async def test_the_oldest_turns_are_left_out_and_the_model_is_told() -> None:
    async with talking(GOOD, limits=SMALL, prompt="Be brief.") as talk:
        await talk.step(going_on(*map(turn, range(5))))
    system, *messages = talk.endpoint.messages()
    assert questions(messages) == ["question 3", "question 4", "and now?"]
    assert system["content"] == (
        "Be brief.\n\n(The oldest part of this conversation, 3 user messages and their answers, no longer fits.)"
    )
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant"] * 2 + ["user"]


async def test_all_turns_are_told_where_they_fit() -> None:
    async with talking(GOOD) as talk:
        await talk.step(going_on(*map(turn, range(5))))
    assert len(questions(talk.endpoint.messages())) == 6


async def test_a_turn_that_does_not_fit_by_itself_fails_without_asking_the_model() -> None:
    one = Round((called("move"),), (returned("call_1", "x" * 9000),))
    async with talking(GOOD, limits=SMALL) as talk:
        with pytest.raises(
            AgentFailure, match=r"does not fit into the 1000 tokens of openai:scripted\. Next: send less"
        ):
            await talk.step(asked("hi", rounds=(one,)))
    assert talk.endpoint.requests == []


async def test_a_request_can_lower_the_limit_but_not_raise_it() -> None:
    for wanted, kept in ((700, 1), (100_000, 2)):
        async with talking(GOOD, limits=SMALL) as talk:
            conversation = going_on(*map(turn, range(5)))
            request = {"agent_config": {"max_model_length": wanted}}
            await talk.step(Conversation(conversation.user_content, earlier=conversation.earlier, request=request))
        assert len(questions(talk.endpoint.messages())) == kept + 1


def refusing_more_than(turns: int, code: str) -> Any:
    def model(request: Json) -> Reply:
        if len(questions(request["messages"])) > turns:
            return Reply(status=400, error={"message": "too long", "code": code})
        return GOOD

    return model


async def test_where_the_estimate_was_wrong_turns_are_left_out_until_it_fits() -> None:
    async with talking(refusing_more_than(2, "context_length_exceeded")) as talk:
        assert text_in(await talk.step(going_on(*map(turn, range(5))))) == "Hello"
    assert [len(questions(request["messages"])) for request in talk.endpoint.requests] == [6, 3, 2]
    assert "4 user messages" in talk.endpoint.messages()[0]["content"]


async def test_a_turn_the_provider_finds_too_long_fails_and_says_so() -> None:
    async with talking(refusing_more_than(0, "context_length_exceeded")) as talk:
        with pytest.raises(AgentFailure, match=r"does not fit into the context of openai:scripted\. Next: start a new"):
            await talk.step(going_on(turn(1)))
    assert len(talk.endpoint.requests) == 2


async def test_pictures_and_other_media_are_estimated_too() -> None:
    picture = ImageContentItem(image_url=ImageURL(url="data:image/png;base64," + "A" * 100_000))
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 60_000, "format": "wav"}}
    async with talking(GOOD, limits={"max_context_tokens": 3000}) as talk:
        await talk.step(Conversation((TextContentItem(text="look"), picture)))
        with pytest.raises(AgentFailure, match="does not fit"):
            await talk.step(Conversation((TextContentItem(text="look"), picture, picture)))
        with pytest.raises(AgentFailure, match="does not fit"):
            await talk.step(asked("listen", rounds=(Round((called("move"),), (_with(sound),)),)))


def _with(part: Json) -> Any:
    return returned("call_1", "").model_validate({"call_id": "call_1", "message_content": [part, part]})
