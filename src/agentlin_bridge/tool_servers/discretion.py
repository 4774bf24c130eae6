"""Errors in words that give no secret away."""

from __future__ import annotations

import re
from collections.abc import Iterable

_QUOTED = 300
_READ = 2_000
_SHORTEST = 6
_URL = re.compile(r"(\w+://)(?:[^\s/@'\"]*@)?([^\s/?#'\"]+)[^\s'\"]*")


class Discretion:
    """Knows what must not be said.

    Args:
        secrets: values that are left out of everything told. Very short ones cannot be told from common words.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        parts = {part for secret in secrets for part in (secret, *secret.split())}
        self._secrets = sorted((part for part in parts if len(part) >= _SHORTEST), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """A text on one short line, without secrets; of URLs only the host."""
        return shortened(_URL.sub(r"\1\2", self.masked(text)[:_READ]))

    @property
    def longest(self) -> int:
        """Bytes of the longest secret: of a text that has lost its beginning, so many may be the rest of one."""
        return max((len(secret.encode(errors="replace")) for secret in self._secrets), default=0)

    def masked(self, text: str) -> str:
        """A text without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "[...]")
        return text


def shortened(text: str) -> str:
    """A text on one short line."""
    line = " ".join(text.split())
    return line if len(line) <= _QUOTED else line[:_QUOTED] + "..."
