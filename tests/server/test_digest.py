"""Digests of texts: headings, counts, terms."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlin_bridge.server.demo_agent.comparison import compared
from agentlin_bridge.server.demo_agent.digest import digest_of, written
from agentlin_bridge.server.demo_agent.terms import count_words, distinguishing_terms, telling_terms, term_counts


@pytest.mark.parametrize(
    ("text", "outline"),
    [
        ("# A\n## B ##\n### C\n", [(1, "A"), (2, "B"), (3, "C")]),
        ("Title\n=====\n\nSub\n---\ntext\n", [(1, "Title"), (2, "Sub")]),
        ("text\n\n---\n\nmore\n", []),
        ("a\nb\n---\n", []),
        ("- item\n---\n", []),
        ("---\ntitle: x\n---\n# A\n", [(1, "A")]),
        ("~~~\n# no\n```\n# no\n~~~\n# yes\n", [(1, "yes")]),
        ("````\n```\n# no\n````\n# yes\n", [(1, "yes")]),
        ("```\n# never closed\n", []),
        ("#no\n####### no\n    # no\n#\n", [(1, "(untitled)")]),
        ("# A\r\n\r\ntext\r\n# B\r", [(1, "A"), (1, "B")]),
    ],
)
def test_headings(text: str, outline: list[tuple[int, str]]) -> None:
    assert [(section.level, section.title) for section in digest_of(text).headings] == outline


def test_text_before_the_first_heading_counts_as_a_part() -> None:
    digest = digest_of("A long introduction stands here.\n\n# A\n\nshort\n")
    assert digest.longest is not None
    assert (digest.longest.title, digest.longest.line) == ("(before the first heading)", 1)
    assert len(digest.headings) == 1


def test_links_count_once() -> None:
    text = "[a](https://x.io) ![image](y.png) <https://z.io> https://w.io\n```\nhttps://code.io\n```\n"
    assert digest_of(text).links == 3


def test_an_outline_starts_at_its_own_top_level() -> None:
    assert "Outline:\n- B\n  - C\n- D" in written(digest_of("## B\n### C\n## D\n"))


@given(st.text(alphabet=st.sampled_from("ab #=-`~\n\r\t.|[]()")), st.integers(0, 3))
def test_any_text_has_a_digest(text: str, newlines: int) -> None:
    digest = digest_of(text + "\n" * newlines)
    assert digest.characters <= len(text) + newlines
    assert digest.lines >= len(digest.headings)
    assert digest.longest is None or digest.longest.words <= digest.words
    assert written(digest).startswith("Counts: ")


def test_words_of_scripts_without_spaces() -> None:
    assert count_words("three little words") == 3
    assert count_words("it's 3.5 or well-known") == 4
    assert count_words("桥很长 yes") == 4
    assert term_counts("桥很长")["很长"] == 1


def test_terms_leave_out_what_every_text_has() -> None:
    counts = term_counts("The bridge and the BRIDGE, of a don't-care ox; bridge-deck")
    assert counts == Counter({"bridge": 2, "don't-care": 1, "bridge-deck": 1})
    assert telling_terms(counts, 1) == [("bridge", 2)]


def test_distinguishing_terms_are_not_shared() -> None:
    first, second = (term_counts(text) for text in ("pump walnut walnut", "pump cedar"))
    assert distinguishing_terms([first, second]) == [[("walnut", 2)], [("cedar", 1)]]


def test_equal_texts_are_called_equal() -> None:
    digest = digest_of("pump pump\n")
    text = compared({"a": digest, "b|c": digest})
    assert "All have 2 words." in text
    assert "Headings" not in text
    assert "Terms in all: pump." in text
    assert "- a: none" in text
    assert "| b\\|c |" in text


def test_long_lists_are_cut() -> None:
    text = "".join(f"# Heading {number}\n" for number in range(15))
    assert "Heading 9, ... and 5 more." in compared({"a": digest_of(text), "b": digest_of(text)})
