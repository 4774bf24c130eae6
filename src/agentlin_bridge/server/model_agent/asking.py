"""One question to a model and its answer: within the model's context, and fitting the schema if there is one."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable

from agentlin_bridge.server.agent import AgentFailure, Item, Step, Voice
from agentlin_bridge.server.model_agent.context import fitted, text_tokens, tokens_of
from agentlin_bridge.server.model_agent.failures import explained, is_overflow, without_secrets
from agentlin_bridge.server.model_agent.listening import heard
from agentlin_bridge.server.model_agent.messages import History
from agentlin_bridge.server.model_agent.output import EmptyAnswer, items_of, usage_of, with_text
from agentlin_bridge.server.model_agent.replaying import with_original
from agentlin_bridge.server.model_agent.structured import AnswerSchema, Misfit
from agentlin_bridge.task import MessageItem, ToolCallItem

logger = logging.getLogger(__name__)

_LEFT_OUT = "(The oldest part of this conversation, {turns} user messages and their answers, no longer fits.)"


@dataclass(frozen=True)
class Question:
    """What a model is asked.

    Attributes:
        model: with its tools and parameters bound.
        name: what the model is called in messages.
        instructions: the system message; empty for none.
        tools_text: the definitions of the tools, for their size.
        limit: tokens of context.
    """

    model: Runnable[Any, Any]
    name: str
    instructions: str
    tools_text: str
    history: History
    limit: int
    schema: AnswerSchema | None = None


async def answered(question: Question, voice: Voice) -> Step:
    """Ask, and ask once more where the answer is empty or does not fit its schema.

    Raises:
        AgentFailure: there is no usable answer; it says why.
    """
    return await _Asking(question, voice).step()


class _Asking:
    def __init__(self, question: Question, voice: Voice) -> None:
        self._question = question
        self._voice = voice
        self._usage: Counter[str] = Counter()

    async def step(self) -> Step:
        items = await self._said(())
        schema = self._question.schema
        if schema is not None and not _has_calls(items):
            items = await self._fitting(schema, items)
        return Step(items, dict(self._usage))

    async def _fitting(self, schema: AnswerSchema, items: tuple[Item, ...]) -> tuple[Item, ...]:
        """The items with an answer that fits; what was said before it has not been told to anybody."""
        first = _text(items)
        try:
            return self._told(items, await schema.canonical(first))
        except Misfit as misfit:
            logger.info("the answer of %s does not fit its schema: %s", self._question.name, misfit)
            correction = HumanMessage(
                f"That answer does not fit the JSON Schema: {misfit}. Answer again with the corrected JSON value and "
                "nothing else."
            )
        items = await self._said((AIMessage(first), correction))
        if _has_calls(items):
            return items
        try:
            return self._told(items, await schema.canonical(_text(items)))
        except Misfit as misfit:
            raise AgentFailure(
                f"The answer of {self._question.name} does not fit structured_output, even when asked again: "
                f"{misfit}. Next: simplify the schema, or say in the task what belongs into it"
            ) from None

    def _told(self, items: tuple[Item, ...], text: str) -> tuple[Item, ...]:
        self._voice.text(text)
        return with_text(items, text)

    async def _said(self, after: Sequence[BaseMessage]) -> tuple[Item, ...]:
        try:
            return await self._said_once(after)
        except EmptyAnswer as error:
            if error.has_thoughts:
                raise
        return await self._said_once(after)

    async def _said_once(self, after: Sequence[BaseMessage]) -> tuple[Item, ...]:
        message = await self._heard(after)
        self._usage.update(usage_of(message))
        name = self._question.name
        return with_original(items_of(message, name), message, name)

    async def _heard(self, after: Sequence[BaseMessage]) -> AIMessage:
        """The model's answer. Where the estimate was wrong, half of the earlier turns are left out at a time."""
        question = self._question
        history, left_out = question.history, 0
        voice = self._voice if question.schema is None else None
        while True:
            fit = fitted(history, question.limit - self._overhead(after))
            left_out += fit.left_out
            if not fit.fits:
                raise AgentFailure(
                    f"The conversation, about {fit.tokens} tokens without its earlier turns, does not fit into the "
                    f"{question.limit} tokens of {question.name}. Next: send less material, have tools return less, "
                    "or use a model with a larger context"
                )
            messages = (*self._instructions(left_out), *fit.messages, *after)
            try:
                return await heard(question.model, messages, voice)
            except Exception as error:
                kept = history.earlier[fit.left_out :]
                if is_overflow(error) and kept:
                    drop = (len(kept) + 1) // 2
                    left_out += drop
                    history = replace(history, earlier=kept[drop:])
                    continue
                told = explained(error, question.name)
                if told is None:
                    raise
                logger.warning("%s: %s: %s", question.name, type(error).__name__, without_secrets(str(error)))
                raise told from error

    def _overhead(self, after: Sequence[BaseMessage]) -> int:
        fixed = text_tokens(self._question.instructions) + text_tokens(self._question.tools_text)
        return fixed + sum(map(tokens_of, after))

    def _instructions(self, left_out: int) -> tuple[SystemMessage, ...]:
        parts = [self._question.instructions, _LEFT_OUT.format(turns=left_out) if left_out else ""]
        text = "\n\n".join(filter(None, parts))
        return (SystemMessage(text),) if text else ()


def _has_calls(items: Sequence[Item]) -> bool:
    return any(isinstance(item, ToolCallItem) for item in items)


def _text(items: Sequence[Item]) -> str:
    return "".join(item.text for item in items if isinstance(item, MessageItem))
