"""What a person is shown of a call that waits for approval: all of what will run, or nothing."""

from __future__ import annotations

import json

from agentlin_bridge.hosts.text import inert
from agentlin_bridge.task import PendingCall

SHOWN_CHARS = 2_000
"""Characters of arguments that a person can be expected to read."""
TOO_LONG = "its arguments are too long to be shown to a person"


def shown_arguments(call: PendingCall) -> str | None:
    """The arguments as they will be understood, each line marked as cited; None if they cannot be shown as a whole.

    What the agent wrote may say more than that: of a name that stands there twice, the last value counts.
    """
    try:
        understood = json.dumps(json.loads(call.arguments or "{}"), ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
    return cited(understood) if len(understood) <= SHOWN_CHARS else None


def cited(text: str) -> str:
    """Inert text, each line marked as somebody else's words."""
    return "\n".join(f"> {line}" for line in inert(text).splitlines() or [""])
