"""One step: what the model says, as deltas, items and usage."""

from __future__ import annotations

import anyio
import pytest

from agentlin_bridge.server.agent import AgentFailure
from agentlin_bridge.task import MessageItem, ReasoningItem, ToolCallItem

from .agents import MOVE, WEATHER, asked, calls_in, refusal, talking, text_in
from .endpoint import Call, Reply, saying

pytestmark = pytest.mark.anyio


async def test_text_is_told_piece_by_piece_and_returned_whole() -> None:
    async with talking(Reply(("Hel", "lo"))) as talk:
        step = await talk.step("hi")
    assert talk.voice.texts == ["Hel", "lo"]
    assert text_in(step) == "Hello"
    assert [type(item) for item in step.items] == [MessageItem]


async def test_a_delta_is_told_before_the_model_has_finished() -> None:
    gate = anyio.Event()
    async with talking(Reply(("Hel", "lo"), gate=gate)) as talk:

        class First:
            def text(self, delta: str) -> None:
                gate.set()

            def reasoning(self, delta: str) -> None: ...

        step = await talk.agent.step(asked("hi"), First())
    assert text_in(step) == "Hello"


async def test_usage_is_what_the_provider_counted() -> None:
    async with talking(Reply(("Hello",)), model_options={"stream_usage": True}) as talk:
        step = await talk.step("hi")
    assert step.usage == {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}


async def test_usage_nobody_counted_is_unknown() -> None:
    async with talking(Reply(("Hello",))) as talk:
        assert (await talk.step("hi")).usage == {}


async def test_reasoning_is_told_and_comes_before_the_message() -> None:
    async with talking(Reply(("Hello",), reasoning=("Let me ", "think")), provider="deepseek") as talk:
        step = await talk.step("hi")
    assert talk.voice.thoughts == ["Let me ", "think"]
    thought, message = step.items
    assert isinstance(thought, ReasoningItem)
    assert isinstance(message, MessageItem)
    assert [part.model_dump(exclude_none=True) for part in thought.content] == [
        {"type": "reasoning_text", "text": "Let me think"}
    ]


async def test_parallel_tool_calls_keep_their_ids_and_arguments() -> None:
    calls = (Call("get_weather", '{"city": "Rom"}', "call_a"), Call("move", "{}", "call_b"))
    async with talking(Reply(("I look.",), calls=calls)) as talk:
        step = await talk.step(asked("hi", tools=[WEATHER, MOVE]))
    message, first, second = step.items
    assert isinstance(message, MessageItem)
    assert isinstance(first, ToolCallItem)
    assert isinstance(second, ToolCallItem)
    assert (first.call_id, first.name, first.arguments) == ("call_a", "get_weather", '{"city": "Rom"}')
    assert (second.call_id, second.name, second.arguments) == ("call_b", "move", "{}")


async def test_the_model_is_told_the_tools() -> None:
    async with talking(Reply(("Hello",))) as talk:
        await talk.step(asked("hi", tools=[WEATHER, MOVE]))
    weather, move = (tool["function"] for tool in talk.endpoint.requests[0]["tools"])
    assert weather == {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
    assert move["parameters"] == {"type": "object", "properties": {}}


async def test_without_tools_none_are_mentioned() -> None:
    async with talking(Reply(("Hello",))) as talk:
        await talk.step("hi")
    assert "tools" not in talk.endpoint.requests[0]


async def test_a_model_that_does_not_stream_answers_in_one_piece() -> None:
    calls = (Call("get_weather", '{"city": "Rom"}', "call_a"), Call("move", '{"x', "call_b"))
    reply = Reply(("Hello",), calls=calls)
    async with talking(reply, model_options={"disable_streaming": True}) as talk:
        step = await talk.step(asked("hi", tools=[WEATHER, MOVE]))
    assert not talk.endpoint.requests[0]["stream"]
    assert talk.voice.texts == ["Hello"]
    assert [(call.name, call.arguments) for call in calls_in(step)] == [
        ("get_weather", '{"city": "Rom"}'),
        ("move", '{"x'),
    ]
    assert step.usage["total_tokens"] == 18


async def test_broken_arguments_are_answered_with_what_is_wrong() -> None:
    calls = (Call("move", '{"to": [1, 2', "call_a"), Call("get_weather", '{"city": "Rom"}', "call_b"))
    async with talking(Reply(calls=calls)) as talk:
        step = await talk.step(asked("hi", tools=[WEATHER, MOVE]))
        text = await refusal(talk.agent, step)
    broken, sound = calls_in(step)
    assert broken.arguments == '{"to": [1, 2'
    assert text.startswith("ERROR: the arguments of move are not a JSON object")
    assert (sound.call_id, sound.arguments, sound.status) == ("call_b", '{"city": "Rom"}', None)


@pytest.mark.parametrize("arguments", ["[1]", '"Rom"', "3", "[" * 100_000])
async def test_arguments_that_are_no_object_are_answered_too(arguments: str) -> None:
    async with talking(Reply(calls=(Call("move", arguments),))) as talk:
        step = await talk.step(asked("hi", tools=[MOVE]))
        assert "not a JSON object" in await refusal(talk.agent, step)


async def test_a_call_of_an_unknown_tool_is_answered_with_the_names_there_are() -> None:
    async with talking(Reply(calls=(Call("fly"),))) as talk:
        step = await talk.step(asked("hi", tools=[WEATHER, MOVE]))
        text = await refusal(talk.agent, step)
    assert text == "ERROR: there is no tool 'fly' to use here. Next: use one of: get_weather, move"


async def test_a_call_without_id_and_arguments_gets_its_id_later() -> None:
    async with talking(Reply(calls=(Call("move", "", None),))) as talk:
        (call,) = calls_in(await talk.step(asked("hi", tools=[MOVE])))
    assert (call.call_id, call.arguments) == ("", "{}")


async def test_an_empty_answer_is_asked_for_again() -> None:
    async with talking(saying(Reply(), Reply(("Hello",)))) as talk:
        assert text_in(await talk.step("hi")) == "Hello"


async def test_a_second_empty_answer_fails() -> None:
    async with talking(saying(Reply((" ",)), Reply())) as talk:
        with pytest.raises(AgentFailure, match=r"gave an empty answer\. Next: try again"):
            await talk.step("hi")


async def test_an_answer_of_nothing_but_thoughts_fails_at_once() -> None:
    async with talking(saying(Reply(reasoning=("hm",))), provider="deepseek") as talk:
        with pytest.raises(AgentFailure, match="empty answer"):
            await talk.step("hi")


async def test_an_answer_cut_off_at_its_limit_fails_and_says_so() -> None:
    reply = Reply(("Hello",), calls=(Call("move", '{"to'),), finish_reason="length")
    async with talking(reply) as talk:
        with pytest.raises(AgentFailure, match=r"cut off at its length limit after 5 characters\. Next: allow more"):
            await talk.step(asked("hi", tools=[MOVE]))


async def test_an_answer_withheld_by_the_provider_fails_and_says_so() -> None:
    async with talking(Reply(finish_reason="content_filter")) as talk:
        with pytest.raises(AgentFailure, match=r"withheld the answer \(content_filter\)"):
            await talk.step("hi")


async def test_what_was_said_before_the_provider_filtered_is_the_answer() -> None:
    async with talking(Reply(("I cannot help with that.",), finish_reason="content_filter")) as talk:
        assert text_in(await talk.step("hi")) == "I cannot help with that."


async def test_a_models_refusal_is_its_answer() -> None:
    reply = Reply(refusal="I will not.")
    async with talking(reply, model_options={"disable_streaming": True}) as talk:
        (message,) = (await talk.step("hi")).items
    assert isinstance(message, MessageItem)
    assert [(part.model_dump()["type"], part.model_dump()["text"]) for part in message.message_content] == [
        ("refusal", "I will not.")
    ]


async def test_a_stream_that_ends_without_a_reason_is_no_answer() -> None:
    async with talking(Reply(("Hel",), finish_reason="")) as talk:
        with pytest.raises(AgentFailure, match="broke off before its end"):
            await talk.step("hi")


async def test_a_cancelled_step_ends_at_once() -> None:
    async with talking(Reply(("Hel", "lo"), gate=anyio.Event())) as talk, anyio.create_task_group() as group:
        group.start_soon(talk.step, "hi")
        await talk.endpoint.asked.wait()
        group.cancel_scope.cancel()
    assert len(talk.endpoint.requests) == 1


async def test_a_model_that_takes_too_long_fails_and_says_so() -> None:
    reply = Reply(("Hel", "lo"), gate=anyio.Event())
    async with talking(reply, limits={"step_timeout": 0.5}) as talk:
        with pytest.raises(AgentFailure, match=r"did not finish its answer within 0\.5 seconds"):
            await talk.step("hi")
