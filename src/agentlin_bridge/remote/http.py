"""What every backend over HTTP needs: bounded answers as JSON, and errors that tell sent from not sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from agentlin_bridge.errors import RemoteProtocolError, RemoteUnavailable, ReplyLost

ANSWER_LIMIT = 64 * 1024 * 1024
"""Bytes of one answer that are read at most."""

CONNECT_TIMEOUT = 5.0
"""Seconds until a remote counts as not reachable."""

NOTHING_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""What httpx raises before anything has left."""


@dataclass(frozen=True, slots=True)
class Counterpart:
    """Who is talked to, as errors put it.

    Attributes:
        name: begins a sentence.
        base_url: where it is.
        url_setting: the setting that says so.
        key_setting: the setting that holds its key.
    """

    name: str
    base_url: str
    url_setting: str
    key_setting: str


@contextmanager
def as_our_errors(counterpart: Counterpart) -> Iterator[None]:
    """Raise errors of ours for what httpx raises while a request is sent and its answer read.

    Raises:
        RemoteUnavailable: nothing was sent.
        ReplyLost: no answer came; the request may have had its effect.
    """
    at = f"{counterpart.name} at {counterpart.base_url}"
    try:
        yield
    except NOTHING_SENT as error:
        raise RemoteUnavailable(
            f"{at} cannot be reached: {str(error) or type(error).__name__}.",
            next_step=f"check that it runs and that {counterpart.url_setting} is right",
        ) from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise RemoteUnavailable(
            f"{counterpart.base_url} is not a usable URL: {error}.", next_step=f"correct {counterpart.url_setting}"
        ) from error
    except (httpx.LocalProtocolError, UnicodeEncodeError):
        # Its text may hold the key.
        raise RemoteUnavailable(
            "The request cannot be sent: a header, most likely the key, holds characters that are not allowed.",
            next_step=f"set {counterpart.key_setting} again, without line breaks",
        ) from None
    except httpx.HTTPError as error:
        raise ReplyLost(
            f"{at} broke the connection before its answer was complete: {str(error) or type(error).__name__}.",
            next_step="retrieve the task to see whether the request had its effect",
        ) from error


async def read_bounded(response: httpx.Response, limit: int, *, next_step: str) -> bytes:
    """The body of a response.

    Args:
        response: whose body has not been read yet.
        limit: bytes it may have.
        next_step: what helps against a longer one.

    Raises:
        RemoteProtocolError: it is longer.
    """
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > limit:
            raise RemoteProtocolError(
                f"The remote's answer is larger than {limit // 2**20} MiB.",
                next_step=next_step,
                status=response.status_code,
            )
    return bytes(body)


def json_of(body: bytes) -> Any:
    """The JSON value that a body holds; None if it holds none."""
    try:
        value = json.loads(body)
        if b"\\ud" in body.lower():
            # Half a surrogate pair is JSON, but no text that could be stored or sent on.
            value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return value
