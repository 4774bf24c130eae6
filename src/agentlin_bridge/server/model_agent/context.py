"""Keeping a model call within the model's context: the oldest turns are left out first, and whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import BaseMessage

from agentlin_bridge.server.model_agent.messages import History

UNKNOWN_CONTEXT = 100_000
"""Tokens of context of a model that does not tell."""
_BYTES_PER_TOKEN = 3
"""Cautious: English has about four in UTF-8, Chinese about three."""
_MESSAGE_TOKENS = 8
_IMAGE_TOKENS = 1500
_MEDIA_BYTES_PER_TOKEN = 30


@dataclass(frozen=True)
class Fitted:
    """What of a history fits.

    Attributes:
        left_out: how many of its oldest turns do not.
        tokens: the estimated size of the messages.
        fits: whether what is left is within the limit; without earlier turns it may still be too large.
    """

    messages: tuple[BaseMessage, ...]
    left_out: int
    tokens: int
    fits: bool


def fitted(history: History, limit: int) -> Fitted:
    """The newest turns that are together within a limit of tokens, and always the current one."""
    total = sum(map(tokens_of, history.current))
    kept: list[BaseMessage] = list(history.current)
    left_out = len(history.earlier)
    for turn in reversed(history.earlier):
        size = sum(map(tokens_of, turn))
        if total + size > limit:
            break
        total += size
        kept[:0] = turn
        left_out -= 1
    return Fitted(tuple(kept), left_out, total, total <= limit)


def tokens_of(message: BaseMessage) -> int:
    """An estimate of what a message costs."""
    calls = getattr(message, "tool_calls", ())
    return _MESSAGE_TOKENS + _content_tokens(message.content) + sum(text_tokens(str(call)) for call in calls)


def text_tokens(text: str) -> int:
    """An estimate of what a text costs."""
    return len(text.encode(errors="replace")) // _BYTES_PER_TOKEN + 1


def _content_tokens(content: str | Sequence[Any]) -> int:
    return text_tokens(content) if isinstance(content, str) else sum(map(_block_tokens, content))


def _block_tokens(block: Any) -> int:
    if block.get("type") == "image":
        return _IMAGE_TOKENS
    if "base64" in block:
        return len(block["base64"]) // _MEDIA_BYTES_PER_TOKEN
    return text_tokens(str(block))
