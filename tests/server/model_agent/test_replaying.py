"""A model whose thoughts are signed gets them back with the results of its tool calls."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from agentlin_bridge.server.agent import AgentFailure, Conversation, Round, Step
from agentlin_bridge.server.model_agent.replaying import FIELD
from agentlin_bridge.task import OutputItem, ReasoningItem, ToolCallItem

from .agents import MOVE, asked, calls_in, returned, talking, text_in
from .endpoint import Call, Json, Reply, saying

pytestmark = pytest.mark.anyio

RESPONSES: Json = {"use_responses_api": True}
THINKING = Reply(reasoning=("I should move.",), calls=(Call("move", '{"to": 1}', "call_a"),))
_items = TypeAdapter(list[OutputItem])


def stored(step: Step) -> tuple[Any, ...]:
    """A step's items as they come back from a database."""
    return tuple(_items.validate_json(json.dumps([item.model_dump(mode="json") for item in step.items])))


def answered(step: Step) -> Conversation:
    return asked("hi", tools=[MOVE], rounds=(Round(stored(step), (returned("call_a", "moved"),)),))


async def test_thoughts_are_items_and_go_back_with_the_results() -> None:
    async with talking(saying(THINKING, Reply(("Done.",))), model_options=RESPONSES) as talk:
        step = await talk.step(asked("hi", tools=[MOVE]))
        assert [type(item) for item in step.items] == [ReasoningItem, ToolCallItem]
        assert talk.voice.thoughts == ["I should move."]
        assert calls_in(step)[0].arguments == '{"to": 1}'
        assert text_in(await talk.step(answered(step))) == "Done."
        user, thought, call, result = talk.endpoint.requests[1]["input"]
    assert user["content"] == "hi"
    assert (thought["type"], thought["encrypted_content"]) == ("reasoning", "signed")
    assert thought["summary"][0]["text"] == "I should move."
    assert (call["type"], call["call_id"], call["arguments"]) == ("function_call", "call_a", '{"to": 1}')
    assert (result["type"], result["call_id"], result["output"]) == ("function_call_output", "call_a", "moved")


async def test_thoughts_do_not_go_to_another_model() -> None:
    async with talking(THINKING, model_options=RESPONSES) as talk:
        step = await talk.step(asked("hi", tools=[MOVE]))
    async with talking(Reply(("Done.",)), provider="deepseek") as other:
        await other.step(answered(step))
        messages = other.endpoint.messages()
    assert [message["role"] for message in messages] == ["user", "assistant", "tool"]
    assert "signed" not in json.dumps(messages)


async def test_what_somebody_else_wrote_into_the_field_is_overlooked() -> None:
    async with talking(saying(THINKING, Reply(("Done.",))), model_options=RESPONSES) as talk:
        step = await talk.step(asked("hi", tools=[MOVE]))
        first, call = stored(step)
        odd = first.model_copy(update={FIELD: {"model": "openai:scripted", "content": 3}})
        await talk.step(answered(Step((odd, call))))
        assert [item.get("type") for item in talk.endpoint.requests[1]["input"]] == [
            "message",
            "function_call",
            "function_call_output",
        ]


async def test_plain_answers_carry_nothing_along() -> None:
    plain = Reply(("I move.",), calls=(Call("move"),))
    for reply, options in ((plain, {}), (Reply(("Hello",), reasoning=("hm",)), RESPONSES), (plain, RESPONSES)):
        async with talking(reply, model_options=options) as talk:
            step = await talk.step(asked("hi", tools=[MOVE]))
        assert not any(FIELD in (item.model_extra or {}) for item in step.items)


async def test_a_cut_response_fails_and_says_so() -> None:
    async with talking(Reply(("Hel",), finish_reason="length"), model_options=RESPONSES) as talk:
        with pytest.raises(AgentFailure, match="cut off at its length limit after 3 characters"):
            await talk.step("hi")
