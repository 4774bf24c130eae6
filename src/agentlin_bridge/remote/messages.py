"""What a remote says, fit for a host and a log."""

from __future__ import annotations

import re

MESSAGE_LIMIT = 500
"""Characters of a message that are kept."""

_READ_LIMIT = 10_000
_TRACEBACK = re.compile(r"Traceback \(most recent call last\).*", re.DOTALL)
_SECRET = re.compile(r"\b(?:sk|pk|rk|xox[bap]|gh[pousr])[-_][A-Za-z0-9_*-]{6,}|(?<=Bearer )\S{6,}|(?<=Basic )\S{6,}")
_NAMED_SECRET = re.compile(
    r"""((?:api[-_ ]?key|access[-_ ]?token|secret|password)["']?\s*[:=]\s*["']?)(?!\[)[^\s"',;]{4,}""", re.IGNORECASE
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean_message(message: object) -> str:
    """A remote's text without tracebacks, keys and control characters, bounded."""
    text = _TRACEBACK.sub("", str(message)[:_READ_LIMIT])
    text = _CONTROL.sub(" ", _NAMED_SECRET.sub(r"\1[removed]", _SECRET.sub("[removed]", text))).strip(" :\n")
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 1] + "…"
