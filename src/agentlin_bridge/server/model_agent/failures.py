"""What went wrong with a model call: may it be repeated, and how is it told without giving anything away."""

from __future__ import annotations

import re
from http import HTTPStatus

import httpx
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelPermissionDeniedError,
    ModelRateLimitError,
    ModelTimeoutError,
)

from agentlin_bridge.server.agent import AgentFailure

LONGEST_WAIT = 30.0
"""Seconds waited at a provider's wish before a repetition."""

_QUOTED = 300
_READ = 1000
_TOKEN = re.compile(r"[A-Za-z0-9_\-+/=*.]*[0-9A-Z*][A-Za-z0-9_\-+/=*.]{15,}|\bsk-\S+|(?i:bearer)\s+\S+")
_STATUS_PREFIX = re.compile(r"^Error code: \d+ - ")
_URL = re.compile(r"\w+://\S+")
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
_NO_LUCK_LATER = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_OVERFLOWS = frozenset({"context_length_exceeded", "string_above_max_length"})
_KINDS: dict[int, type[ModelError]] = {
    HTTPStatus.UNAUTHORIZED: ModelAuthenticationError,
    HTTPStatus.FORBIDDEN: ModelPermissionDeniedError,
    HTTPStatus.NOT_FOUND: ModelNotFoundError,
    HTTPStatus.TOO_MANY_REQUESTS: ModelRateLimitError,
}


def without_secrets(text: str) -> str:
    """A provider's words on one short line, without what looks like a key or an address."""
    line = " ".join(_TOKEN.sub("[...]", _URL.sub("[...]", text[:_READ])).split())
    return line if len(line) <= _QUOTED else line[:_QUOTED] + "..."


def is_overflow(error: Exception) -> bool:
    """Whether the model's context was too small for the request."""
    return isinstance(error, ContextOverflowError) or getattr(error, "code", None) in _OVERFLOWS


def may_be_repeated(error: Exception) -> bool | float:
    """Whether the same request may succeed later; a number is the seconds the provider asks to wait."""
    if getattr(error, "code", None) in _NO_LUCK_LATER:
        return False
    transient = _kind(error) in (ModelConnectionError, ModelTimeoutError) or _status(error) in _TRANSIENT
    if not transient and not (isinstance(error, ModelError) and error.is_retryable):
        return False
    wait = _wished_wait(error)
    return wait if wait is not None and wait <= LONGEST_WAIT else wait is None


def explained(error: Exception, model: str) -> AgentFailure | None:
    """What to tell the client; None for an error that is no provider's."""
    kind = ContextOverflowError if is_overflow(error) else _kind(error)
    if kind is None:
        return None
    if kind is ModelInvalidRequestError:
        says = without_secrets(_STATUS_PREFIX.sub("", getattr(error, "message", "") or str(error)))
        return AgentFailure(f"The provider of {model} refused the request: {says}. Next: correct the task or the agent")
    cause, next_step = _WORDS[kind]
    return AgentFailure(f"{cause.format(model=model)}. Next: {next_step}")


_WORDS: dict[type[ModelError], tuple[str, str]] = {
    ContextOverflowError: (
        "The conversation does not fit into the context of {model}",
        "start a new session, send less material, or use a model with a larger context",
    ),
    ModelAuthenticationError: (
        "The provider of {model} refused the server's key",
        "the server's operator has to correct it",
    ),
    ModelPermissionDeniedError: (
        "The provider of {model} does not permit the server this request",
        "the server's operator has to ask for access, or choose another model",
    ),
    ModelNotFoundError: (
        "The provider does not know the model {model}",
        "the server's operator has to correct the model's name",
    ),
    ModelRateLimitError: ("The provider of {model} has no capacity or quota left for the server", "try again later"),
    ModelAPIError: ("The provider of {model} failed", "try again later"),
    ModelConnectionError: (
        "The connection to the provider of {model} failed or broke",
        "try again; if it stays, the server's operator has to look at the network",
    ),
    ModelTimeoutError: ("The provider of {model} did not answer in time", "try again later"),
}


def _kind(error: Exception) -> type[ModelError] | None:
    """LangChain's class for an error. Not every provider's package uses them yet."""
    for known in (*_WORDS, ModelInvalidRequestError):
        if isinstance(error, known):
            return known
    if (status := _status(error)) is not None:
        by_range = ModelAPIError if status >= HTTPStatus.INTERNAL_SERVER_ERROR else ModelInvalidRequestError
        return _KINDS.get(status, by_range)
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return ModelTimeoutError
    if isinstance(error, ConnectionError | httpx.TransportError):
        return ModelConnectionError
    return None


def _status(error: Exception) -> int | None:
    response = getattr(error, "response", None)
    for status in (getattr(error, "status_code", None), getattr(response, "status_code", None)):
        if isinstance(status, int):
            return status
    return None


def _wished_wait(error: Exception) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError, TypeError):
        return None
