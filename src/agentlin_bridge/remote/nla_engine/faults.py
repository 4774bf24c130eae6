"""From an HTTP answer that is no success to one of our errors.

Source: the given document for 401 and 404; everything else is what HTTP means, and unverified here.
"""

from __future__ import annotations

from typing import Any, NoReturn
from urllib.parse import urlsplit

from agentlin_bridge.errors import RemoteError, RemoteNotFound, RemoteRefused, RemoteUnavailable, ReplyLost
from agentlin_bridge.remote.messages import clean_message
from agentlin_bridge.remote.nla_engine.secrets import Secrets

SAYS_NOTHING = frozenset({408, 500, 502, 503, 504})
"""Statuses that do not tell whether the request had its effect."""


def said(payload: Any, secrets: Secrets) -> str:
    """The text of an error body, whatever its shape, fit for a host and a log; empty if there is none."""
    found = payload
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(key):
            found = found[key]
    return clean_message(secrets.redact(found)) if isinstance(found, str) else ""


def raise_error(status: int, payload: Any, secrets: Secrets, *, what: str, location: str = "") -> NoReturn:
    """Raise what a status of 300 or more means.

    Args:
        status: the HTTP status.
        payload: the JSON of the answer, None if it was none.
        secrets: taken out of the remote's text.
        what: the thing that was asked for, for a 404.
        location: where a redirect leads.
    """
    text = said(payload, secrets)
    told = f"HTTP {status}: {text}" if text else f"HTTP {status}"
    if status < 400:
        host = urlsplit(location).netloc.rpartition("@")[2] or "another path"
        raise RemoteError(
            f"NLA Engine redirects to {clean_message(host)} (HTTP {status}); the key is not taken there.",
            next_step="set NLA_ENGINE_BASE_URL to that address if it is right",
            status=status,
        )
    if status in (401, 403):
        raise RemoteRefused(
            f"NLA Engine refused the key ({told}).",
            next_step="check NLA_ENGINE_API_KEY and that it belongs to NLA_ENGINE_BASE_URL",
            status=status,
        )
    if status == 404:
        raise RemoteNotFound(
            f"NLA Engine has no {what} ({told}).",
            next_step="check the id, and that NLA_ENGINE_BASE_URL is the address before /api/v1",
            status=status,
        )
    if status == 429:
        raise RemoteUnavailable(f"NLA Engine is overloaded ({told}).", next_step="try again later", status=status)
    if status in SAYS_NOTHING:
        raise ReplyLost(
            f"NLA Engine failed while answering ({told}).", next_step="look whether it had its effect", status=status
        )
    raise RemoteError(
        f"NLA Engine rejected the request ({told}).", next_step="correct the request or the agent", status=status
    )
