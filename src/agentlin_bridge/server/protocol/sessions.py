"""Names of sessions. Users with keys name theirs without knowing of each other, so each has names of its own. No IO."""

from __future__ import annotations

from hashlib import sha256

LONGEST = 200
"""Characters a stored name may have."""


def stored_name(owner: str, name: str) -> str:
    """Under which name a user's session is stored: the same for ever, and never another user's."""
    mark = _mark(owner)
    if len(name) + len(mark) > LONGEST:
        name = f"{name[:150]}~{sha256(name.encode()).hexdigest()[:16]}"
    return name + mark


def shown_name(owner: str | None, stored: str) -> str:
    """By which name a user, or with None somebody who sees all, is told of a session."""
    return stored if owner is None else stored.removesuffix(_mark(owner))


def _mark(owner: str) -> str:
    return f"~{sha256(owner.encode()).hexdigest()[:16]}"
