"""Sending a request again that may be sent again without a second effect."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import stamina

from agentlin_bridge.errors import RemoteUnavailable, ReplyLost

P = ParamSpec("P")
T = TypeVar("T")

REPEATABLE = (RemoteUnavailable, ReplyLost)
"""Errors that may be gone the next time."""

_again = stamina.AsyncRetryingCaller(attempts=2, timeout=10, wait_initial=0.1, wait_max=1).on(REPEATABLE)


async def repeated(request: Callable[P, Awaitable[T]], /, *arguments: P.args, **keywords: P.kwargs) -> T:
    """Send a request whose first try has failed, twice at most."""
    return await _again(request, *arguments, **keywords)


async def repeating(request: Callable[P, Awaitable[T]], /, *arguments: P.args, **keywords: P.kwargs) -> T:
    """Send a request, three times at most.

    The retries are stamina's; the first try is not, because its machinery costs a fifth of a request.
    """
    try:
        return await request(*arguments, **keywords)
    except REPEATABLE:
        return await repeated(request, *arguments, **keywords)
