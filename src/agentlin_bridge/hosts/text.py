"""Making remote text safe to show: inert, bounded, on as many lines as its place has."""

from __future__ import annotations

import re

_SEEN = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
_HIDDEN = re.compile(
    "["
    "\u0080-\u009f"  # C1 controls: some terminals obey them like escape sequences
    "\u200e\u200f\u202a-\u202e\u2066-\u2069"  # text direction: shows one thing and says another
    "\ud800-\udfff"  # lone surrogates: not encodable
    "\ufff9-\ufffb\U000e0000-\U000e007f"  # annotations and tags: invisible, but models read them
    "]"
)


def inert(text: str) -> str:
    """The text with control characters, escapes and invisible marks made visible and harmless."""
    return _HIDDEN.sub("\ufffd", text.replace("\r\n", "\n").translate(_SEEN))


def one_line(text: str, limit: int) -> str:
    """Inert text on one line of at most `limit` characters."""
    line = " ".join(inert(text[: 2 * limit]).split())
    return line if len(line) <= limit else f"{line[:limit]}..."


def quoted(text: str) -> str:
    """Text in double quotes, for a place where the reader copies it."""
    return f'"{inert(text)}"'
