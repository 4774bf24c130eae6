"""Hearing a model out: its deltas go to the voice, the whole comes back. What broke early is tried again."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, cast

import stamina
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.runnables import Runnable

from agentlin_bridge.server.agent import Voice
from agentlin_bridge.server.model_agent.failures import may_be_repeated

ATTEMPTS = 3
_PATIENCE = 90.0
"""Seconds after which nothing is tried again."""


async def heard(model: Runnable[Any, Any], messages: Sequence[BaseMessage], voice: Voice | None) -> AIMessage:
    """Call the model until it has said all.

    Args:
        voice: told the deltas; None to keep them back.

    Raises:
        Exception: what the provider's package raises, after the last attempt. Once something was told to the
            voice there is no other attempt.
    """
    telling = _Telling(voice)

    def again(error: Exception) -> bool | float:
        return False if telling.has_told else may_be_repeated(error)

    # Without arguments: stamina logs them, and they are what the user said.
    async def attempt() -> AIMessage:
        return await _once(model, messages, telling)

    caller = stamina.AsyncRetryingCaller(attempts=ATTEMPTS, timeout=_PATIENCE, wait_initial=0.2)
    return await caller(again, attempt)


class _Telling:
    def __init__(self, voice: Voice | None) -> None:
        self._voice = voice
        self.has_told = False

    def tell(self, chunk: AIMessage) -> None:
        if self._voice is None:
            return
        for block in chunk.content_blocks:
            text, thought = block.get("text"), block.get("reasoning")
            if block["type"] == "text" and isinstance(text, str) and text:
                self.has_told = True
                self._voice.text(text)
            elif block["type"] == "reasoning" and isinstance(thought, str) and thought:
                self.has_told = True
                self._voice.reasoning(thought)


async def _once(model: Runnable[Any, Any], messages: Sequence[BaseMessage], telling: _Telling) -> AIMessage:
    chunks: list[AIMessage] = []
    # The stream is closed at once when the step is cancelled, so that nobody pays for the rest.
    async with aclosing(cast(Any, model.astream(list(messages)))) as stream:
        async for chunk in stream:
            telling.tell(chunk)
            chunks.append(chunk)
    first, *rest = chunks or [AIMessage("")]
    if not isinstance(first, AIMessageChunk):
        return first
    # Merged at once: one by one costs time in the square of their number.
    return cast(AIMessage, first + rest) if rest else first
