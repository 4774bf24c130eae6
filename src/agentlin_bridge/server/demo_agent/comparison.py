"""Several files side by side."""

from __future__ import annotations

from collections.abc import Mapping

from agentlin_bridge.server.demo_agent.digest import Digest
from agentlin_bridge.server.demo_agent.terms import distinguishing_terms, shared_terms

SHARED_LIMIT = 10


def compared(digests: Mapping[str, Digest]) -> str:
    """What sets two or more texts apart and what they share, each under its name."""
    names = list(digests)
    longest = max(names, key=lambda name: digests[name].words)
    shortest = min(names, key=lambda name: digests[name].words)
    parts = [_counts(digests)]
    if digests[longest].words == digests[shortest].words:
        parts.append(f"All have {digests[longest].words:,} words.")
    else:
        parts.append(
            f"Longest: {longest} ({digests[longest].words:,} words); "
            f"shortest: {shortest} ({digests[shortest].words:,} words)."
        )
    if any(digest.headings for digest in digests.values()):
        parts.append(f"Headings in all: {_listed(_shared_headings(digests))}.")
    terms = [digest.terms for digest in digests.values()]
    parts.append(f"Terms in all: {_listed(shared_terms(terms))}.")
    apart = [
        f"- {name}: {_listed([term for term, _ in own])}"
        for name, own in zip(names, distinguishing_terms(terms), strict=True)
    ]
    parts.append("Terms that tell them apart:\n" + "\n".join(apart))
    return "\n\n".join(parts)


def _counts(digests: Mapping[str, Digest]) -> str:
    lines = [
        "| file | lines | words | characters | sections | links | code blocks |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, digest in digests.items():
        numbers = (
            digest.lines,
            digest.words,
            digest.characters,
            len(digest.headings),
            digest.links,
            digest.code_blocks,
        )
        lines.append(f"| {name.replace('|', chr(92) + '|')} | {' | '.join(map(str, numbers))} |")
    return "\n".join(lines)


def _shared_headings(digests: Mapping[str, Digest]) -> list[str]:
    first, *others = (
        {section.title.casefold(): section.title for section in digest.headings} for digest in digests.values()
    )
    return [title for key, title in first.items() if all(key in other for other in others)]


def _listed(words: list[str]) -> str:
    if not words:
        return "none"
    more = f", ... and {len(words) - SHARED_LIMIT} more" if len(words) > SHARED_LIMIT else ""
    return ", ".join(words[:SHARED_LIMIT]) + more
