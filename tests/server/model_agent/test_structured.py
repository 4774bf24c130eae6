"""Answers by a JSON Schema."""

from __future__ import annotations

from typing import Any

import pytest

from agentlin_bridge.server.agent import AgentFailure
from agentlin_bridge.task import MessageItem, ReasoningItem

from .agents import MOVE, asked, calls_in, talking, text_in
from .endpoint import Call, Reply, saying

pytestmark = pytest.mark.anyio

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "degrees": {"type": "number"}},
    "required": ["city", "degrees"],
}
GOOD = '{"city": "Rom", "degrees": 21}'
BAD = '{"city": "Rom"}'


async def test_the_model_is_told_the_schema_and_its_answer_is_the_value() -> None:
    async with talking(Reply((GOOD,)), prompt="Be brief.") as talk:
        step = await talk.step("hi", structured_output=SCHEMA)
    assert text_in(step) == GOOD
    system = talk.endpoint.messages()[0]["content"]
    assert system.startswith("Be brief.\n\nYour final answer must be one JSON value")
    assert '"required": ["city", "degrees"]' in system


async def test_the_answer_is_told_only_when_it_fits() -> None:
    async with talking(saying(Reply((BAD,)), Reply((GOOD[:5], GOOD[5:])))) as talk:
        step = await talk.step("hi", structured_output=SCHEMA)
    assert talk.voice.texts == [GOOD]
    assert text_in(step) == GOOD


async def test_an_answer_that_does_not_fit_is_corrected_once() -> None:
    async with talking(saying(Reply((BAD,)), Reply((GOOD,))), model_options={"stream_usage": True}) as talk:
        step = await talk.step("hi", structured_output=SCHEMA)
    wrong, correction = talk.endpoint.messages()[-2:]
    assert wrong == {"role": "assistant", "content": BAD}
    assert correction["role"] == "user"
    assert "'degrees' is a required property" in correction["content"]
    assert step.usage["total_tokens"] == 36


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (BAD, "'degrees' is a required property"),
        ("It is warm.", "it is not JSON"),
        ('{"city": "Rom", "degrees": NaN}', "NaN is no JSON number"),
        ('{"city": "Rom", "degrees": "' + "x" * 2000 + '"}', r"is not of type 'number'|\.\.\."),
    ],
)
async def test_a_second_misfit_fails_and_says_why(second: str, why: str) -> None:
    async with talking(saying(Reply((BAD,)), Reply((second,)))) as talk:
        with pytest.raises(AgentFailure, match=why) as caught:
            await talk.step("hi", structured_output=SCHEMA)
    assert "does not fit structured_output, even when asked again" in caught.value.message
    assert len(caught.value.message) < 1000
    assert talk.voice.texts == []


@pytest.mark.parametrize("said", [f"```json\n{GOOD}\n```", f"```\n{GOOD}```\n", f"  {GOOD}\n"])
async def test_a_fence_around_the_value_is_taken_off(said: str) -> None:
    async with talking(Reply((said,))) as talk:
        assert text_in(await talk.step("hi", structured_output=SCHEMA)) == GOOD


async def test_tool_calls_come_before_the_answer() -> None:
    async with talking(Reply(("I look.",), calls=(Call("move"),))) as talk:
        step = await talk.step(asked("hi", tools=[MOVE], structured_output=SCHEMA))
    assert len(calls_in(step)) == 1
    assert text_in(step) == "I look."


async def test_a_correction_may_need_a_tool() -> None:
    async with talking(saying(Reply((BAD,)), Reply(calls=(Call("move"),)))) as talk:
        step = await talk.step(asked("hi", tools=[MOVE], structured_output=SCHEMA))
    assert len(calls_in(step)) == 1


async def test_reasoning_stays_beside_the_value() -> None:
    async with talking(Reply((GOOD,), reasoning=("hm",)), provider="deepseek") as talk:
        step = await talk.step("hi", structured_output=SCHEMA)
    assert [type(item) for item in step.items] == [ReasoningItem, MessageItem]


async def test_a_reference_out_of_the_schema_is_not_fetched() -> None:
    schema = {"$ref": "http://127.0.0.1:1/schema.json"}
    async with talking(saying(Reply((GOOD,)), Reply((GOOD,)))) as talk:
        with pytest.raises(AgentFailure, match="refers to something that is not in it"):
            await talk.step("hi", structured_output=schema)
