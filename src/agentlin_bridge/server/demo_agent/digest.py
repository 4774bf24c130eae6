"""The digest of one text or Markdown file: counts, outline, telling terms, longest section."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from agentlin_bridge.server.demo_agent.terms import count_words, telling_terms, term_counts

OUTLINE_LIMIT = 25
TITLE_LIMIT = 100

_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})([^`]*)")
_UNDERLINE = re.compile(r" {0,3}(=+|-{2,})[ \t]*")
_LINK = re.compile(r"(?<!!)\[[^\]\n]{0,300}\]\([^)\n]{1,1000}\)|(?<![(\"'=])\bhttps?://[^\s<>)\]]+", re.IGNORECASE)
_TARGET = re.compile(r"\]\([^)\n]{1,1000}\)|\bhttps?://\S+", re.IGNORECASE)
_NO_PARAGRAPH = re.compile(r"\s*([-*+>|]|\d+[.)]|#)")


@dataclass(frozen=True)
class Section:
    """What stands between one heading and the next.

    Attributes:
        level: 1 to 6; 0 for a part of a text without headings.
        line: where its heading, or its text, starts; counted from 1.
    """

    title: str
    level: int
    line: int
    words: int


@dataclass(frozen=True)
class Digest:
    """What was computed from one text."""

    lines: int
    words: int
    characters: int
    links: int
    code_blocks: int
    headings: tuple[Section, ...]
    longest: Section | None
    terms: Counter[str]


def digest_of(text: str) -> Digest:
    """Compute a digest. Headings, links and fences inside fenced code are left out."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    prose, code_blocks = _without_code(lines)
    headings = _headings(prose)
    sections = _sections(lines, headings) if headings else _paragraphs(lines)
    return Digest(
        lines=len(lines),
        words=count_words(text),
        characters=len(text),
        links=sum(len(_LINK.findall(line)) for line in prose),
        code_blocks=code_blocks,
        headings=tuple(section for section in sections if section.level),
        longest=max(sections, key=lambda section: section.words, default=None),
        terms=term_counts(_TARGET.sub("] ", "\n".join(prose))),
    )


def _without_code(lines: list[str]) -> tuple[list[str], int]:
    """The lines with those of fenced code blanked, and how many blocks there were."""
    prose, blocks, fence = [], 0, ""
    for line in lines:
        match = _FENCE.fullmatch(line)
        if fence:
            prose.append("")
            if match and match[1].startswith(fence) and not match[2].strip():
                fence = ""
        elif match:
            prose.append("")
            fence = match[1]
            blocks += 1
        else:
            prose.append(line)
    return prose, blocks


def _headings(prose: list[str]) -> list[tuple[int, int, str]]:
    """Index, level and title of every heading."""
    found = []
    for index, line in enumerate(prose):
        if match := _ATX.fullmatch(line):
            found.append((index, len(match[1]), match[2] or ""))
        elif (match := _UNDERLINE.fullmatch(line)) and index and _is_paragraph_end(prose, index - 1):
            found.append((index - 1, 1 if match[1][0] == "=" else 2, prose[index - 1].strip()))
    return found


def _is_paragraph_end(prose: list[str], index: int) -> bool:
    line = prose[index]
    alone = index == 0 or not prose[index - 1].strip()
    return bool(line.strip()) and alone and not _NO_PARAGRAPH.match(line)


def _sections(lines: list[str], headings: list[tuple[int, int, str]]) -> list[Section]:
    sections = []
    first = headings[0][0]
    if words := count_words("\n".join(lines[:first])):
        sections.append(Section("(before the first heading)", 0, 1, words))
    ends = [index for index, _, _ in headings[1:]] + [len(lines)]
    for (index, level, title), end in zip(headings, ends, strict=True):
        words = count_words("\n".join(lines[index + 1 : end]))
        sections.append(Section(_shortened(title) or "(untitled)", level, index + 1, words))
    return sections


def _paragraphs(lines: list[str]) -> list[Section]:
    sections = []
    start = 0
    for index, line in enumerate([*lines, ""]):
        if line.strip():
            continue
        if text := "\n".join(lines[start:index]).strip():
            sections.append(Section(_shortened(text.split("\n")[0], 60), 0, start + 1, count_words(text)))
        start = index + 1
    return sections


def _shortened(title: str, limit: int = TITLE_LIMIT) -> str:
    title = " ".join(title.split())
    return title if len(title) <= limit else title[: limit - 3] + "..."


def written(digest: Digest, terms: list[tuple[str, int]] | None = None) -> str:
    """The digest as text.

    Args:
        digest: of one text.
        terms: instead of those telling for this text alone.
    """
    chosen = telling_terms(digest.terms) if terms is None else terms
    parts = [
        f"Counts: {_counted(digest.lines, 'line')}, {_counted(digest.words, 'word')}, "
        f"{_counted(digest.characters, 'character')}, {_counted(len(digest.headings), 'section')}, "
        f"{_counted(digest.links, 'link')}, {_counted(digest.code_blocks, 'code block')}."
    ]
    if digest.headings:
        parts.append("Outline:\n" + _outline(digest.headings))
    if chosen:
        parts.append("Most telling terms: " + ", ".join(f"{term} ({count})" for term, count in chosen) + ".")
    if digest.longest:
        kind = "section" if digest.headings else "paragraph"
        parts.append(
            f'Longest {kind}: "{digest.longest.title}" '
            f"({_counted(digest.longest.words, 'word')}, from line {digest.longest.line})."
        )
    return "\n\n".join(parts)


def _outline(headings: tuple[Section, ...]) -> str:
    top = min(section.level for section in headings)
    lines = [f"{'  ' * (section.level - top)}- {section.title}" for section in headings[:OUTLINE_LIMIT]]
    if len(headings) > OUTLINE_LIMIT:
        lines.append(f"... and {len(headings) - OUTLINE_LIMIT} more")
    return "\n".join(lines)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
