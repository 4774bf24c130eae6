"""Variables in the configuration, secrets in what is told, and whether a call needs approval."""

from __future__ import annotations

from pathlib import Path

import pytest
from mcp_types import ToolAnnotations
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from agentlin_bridge.database import _engine, database_url
from agentlin_bridge.errors import ConfigurationError
from agentlin_bridge.tool_servers.approval import is_repeatable, needs_approval
from agentlin_bridge.tool_servers.description import Policy
from agentlin_bridge.tool_servers.discretion import Discretion
from agentlin_bridge.tool_servers.variables import Variables
from tests.delegation.ledger.sample import transaction


def test_variables_are_filled_in_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A", "one")
    monkeypatch.delenv("B", raising=False)
    variables = Variables()
    given = {"x": ["${A}", "-${env:A}-"], "y": SecretStr("${B:-two}"), "z": 3, "w": "$A"}
    filled = variables.fill_in(given, "here")
    assert (filled["x"], filled["z"], filled["w"]) == (["one", "-one-"], 3, "$A")
    assert filled["y"].get_secret_value() == "two"
    assert variables.used == {"one", "two"}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("${NO_SUCH}", r"here\.x refers to the environment variable NO_SUCH, which is not set\. Next: set NO_SUCH"),
        ("${input:key}", r"here\.x refers to \$\{input:key\}, which only the host can fill in"),
    ],
)
def test_what_cannot_be_filled_in_is_named(value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_SUCH", "")
    with pytest.raises(ConfigurationError, match=said):
        Variables().fill_in({"x": value}, "here")


def test_secrets_are_left_out_of_what_is_told() -> None:
    told = Discretion(["Bearer abcdefgh", "secret\nof lines", "no"])
    assert told("no abcdefgh, no\nBearer abcdefgh") == "no [...], no [...]"
    assert told("at https://me:pass@example.org:8/a?key=1 it") == "at https://example.org:8 it"
    assert told("x" * 1_000) == "x" * 300 + "..."


@pytest.mark.parametrize(
    ("hints", "needed"),
    [
        (None, True),
        (ToolAnnotations(), True),
        (ToolAnnotations(read_only_hint=False), True),
        (ToolAnnotations(destructive_hint=True), True),
        (ToolAnnotations(read_only_hint=True), False),
        (ToolAnnotations(read_only_hint=True, destructive_hint=True), False),
        (ToolAnnotations(destructive_hint=False), False),
        (ToolAnnotations(idempotent_hint=True), True),
    ],
)
def test_a_call_needs_approval_unless_the_tool_claims_to_be_harmless(
    hints: ToolAnnotations | None, needed: bool
) -> None:
    assert needs_approval("destructive", hints) is needed
    policies: list[Policy] = ["never", "always"]
    assert [needs_approval(policy, hints) for policy in policies] == [False, True]


def test_only_what_reads_may_be_run_again() -> None:
    assert is_repeatable(ToolAnnotations(read_only_hint=True))
    assert not is_repeatable(ToolAnnotations(idempotent_hint=True))
    assert not is_repeatable(None)


def test_what_a_database_refuses_is_named_without_its_values(tmp_path: Path) -> None:
    with pytest.raises(DBAPIError) as caught, transaction(tmp_path / "ledger") as connection:
        connection.execute(text("INSERT INTO no_such_table VALUES (:told)"), {"told": "a secret"})
    assert "no_such_table" in str(caught.value)
    assert "a secret" not in str(caught.value)


def test_nor_are_they_told_by_an_engine_for_postgresql() -> None:
    engine = _engine(database_url("postgresql://nobody@127.0.0.1:1/none"), None, None)
    assert engine.hide_parameters
