"""What of a remote's error text may reach a host or a log."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlin_bridge.remote.messages import MESSAGE_LIMIT, clean_message


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("Incorrect API key provided: sk-abcd1234*****wxyz.", "Incorrect API key provided: [removed]."),
        ("Authorization: Bearer abcdef123456 is bad", "Authorization: Bearer [removed] is bad"),
        ("OPENAI_API_KEY=foobarbaz, sorry", "OPENAI_API_KEY=[removed], sorry"),
        ('{"password": "hunter22"}', '{"password": "[removed]"}'),
        ("the secret garden is a password protected place", "the secret garden is a password protected place"),
        ('no\n\nTraceback (most recent call last):\n  File "/srv/x.py"', "no"),
        ("bell\x07 and \x1b[31mred", "bell  and  [31mred"),
        ("", ""),
    ],
)
def test_clean_message(said: str, kept: str) -> None:
    assert clean_message(said) == kept


@given(st.text(), st.text(alphabet="abcdefXYZ0123456789", min_size=12, max_size=40), st.text())
def test_keys_never_get_through(before: str, key: str, after: str) -> None:
    assert f"sk-{key}" not in clean_message(f"{before} sk-{key} {after}")


@given(st.text(max_size=3000))
def test_messages_are_bounded_and_inert(said: str) -> None:
    kept = clean_message(said)
    assert len(kept) <= MESSAGE_LIMIT
    assert not any(ord(character) < 32 and character not in "\t\n" for character in kept)
    assert clean_message(kept) == kept or len(kept) == MESSAGE_LIMIT
