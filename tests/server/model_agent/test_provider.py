"""A real model, for who has a key: `MODEL_AGENT_TEST_MODEL=provider:model` with the provider's own variable.

Without that variable nothing is collected here.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from agentlin_bridge.server.agent import OfferedTool, Round
from agentlin_bridge.server.model_agent.agents import ModelAgents
from agentlin_bridge.server.model_agent.profiles import profile_of_model

from .agents import Heard, asked, calls_in, returned, text_in

MODEL = os.environ.get("MODEL_AGENT_TEST_MODEL", "")
SECRET = OfferedTool("read_word", "Returns the secret word.", {"type": "object", "properties": {}})

if MODEL:
    pytestmark = pytest.mark.anyio

    async def test_a_real_model_calls_a_tool_and_answers_from_its_result() -> None:
        agent = ModelAgents([profile_of_model(MODEL)]).pick({})
        voice = Heard()
        question = "Call read_word, then answer with nothing but the word in upper case."
        async with agent:
            step = await agent.step(asked(question, tools=[SECRET]), voice)
            (call,) = calls_in(step)
            rounds = (Round(step.items, (returned(call.call_id, "marmalade"),)),)
            answer = await agent.step(asked(question, tools=[SECRET], rounds=rounds), voice)
        assert "MARMALADE" in text_in(answer)
        assert "".join(voice.texts).endswith(text_in(answer))

    async def test_a_real_model_answers_by_a_schema() -> None:
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {"sum": {"type": "integer", "const": 5}},
            "required": ["sum"],
        }
        agent = ModelAgents([profile_of_model(MODEL)]).pick({})
        async with agent:
            step = await agent.step(asked("What is 2 + 3?", structured_output=schema), Heard())
        assert '"sum": 5' in text_in(step)
