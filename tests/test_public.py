"""What a user imports, and what that costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import agentlin_bridge
from agentlin_bridge import MissingExtraError, errors
from agentlin_bridge.extras import require_extra

HEAVY = {"mcp", "langchain_core", "langgraph", "starlette", "uvicorn", "sqlalchemy", "httpx", "alembic", "pydantic"}


def loaded_by(code: str) -> set[str]:
    listing = f"{code}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    return set(
        subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout.split()
    )


def test_importing_the_package_is_free() -> None:
    assert not loaded_by("import agentlin_bridge") & HEAVY


def test_the_core_needs_no_host_library_and_no_server() -> None:
    loaded = loaded_by("from agentlin_bridge import TaskBridge; TaskBridge.from_env")
    assert not loaded & {"mcp", "langchain_core", "starlette", "uvicorn", "alembic", "httpx"}


def test_the_command_starts_without_the_core() -> None:
    loaded = loaded_by("import agentlin_bridge.cli")
    assert not loaded & (HEAVY - {"pydantic"})


def test_every_public_name_can_be_imported() -> None:
    assert agentlin_bridge.__all__ == sorted(agentlin_bridge.__all__)
    for name in agentlin_bridge.__all__:
        assert getattr(agentlin_bridge, name).__doc__, name
    assert set(agentlin_bridge.__all__) <= set(dir(agentlin_bridge))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = agentlin_bridge.nothing


def test_every_error_is_public_and_in_the_tree() -> None:
    classes = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert classes <= set(agentlin_bridge.__all__)
    assert errors.__doc__ is not None
    for name in classes:
        assert name in errors.__doc__, name


def test_an_extra_that_is_missing_or_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    require_extra("mcp")
    declared = ['absent-thing<2,>=1; extra == "x"', 'pydantic>=999; extra == "x"', "httpx>=0", 'nope; extra == "y"']
    monkeypatch.setattr("agentlin_bridge.extras.requires", lambda _: declared)
    with pytest.raises(MissingExtraError) as raised:
        require_extra("x")
    assert "absent-thing is not installed; pydantic 2." in str(raised.value)
    assert "is installed, but >=999 is needed" in str(raised.value)
    assert raised.value.next_step == "run: pip install --upgrade 'agentlin-bridge[x]'"
    assert isinstance(raised.value, ImportError)
