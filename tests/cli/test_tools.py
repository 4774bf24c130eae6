"""Tools named on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agentlin_bridge import ConfigurationError, InvalidRequestError
from agentlin_bridge.cli.tools import load_tool, load_tools

MODULE = '''
from agentlin_bridge import client_tool

def plain(city: str) -> str:
    """Plain."""
    return city

@client_tool(approval=lambda call: True)
def asks(city: str) -> str:
    """Asks by itself."""
    return city

number = 7
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    name = f"tools_of_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    return name


def test_approval_is_required_unless_said_otherwise(module: str) -> None:
    plain, asks = load_tools([f"{module}:plain", f"{module}:asks"], "always")
    assert plain.approval == "required"
    assert callable(asks.approval)
    (plain,) = load_tools([f"{module}:plain"], "never")
    assert plain.approval is None


def test_what_cannot_be_loaded(module: str) -> None:
    with pytest.raises(ConfigurationError, match="--approval is 'sometimes'"):
        load_tools([], "sometimes")
    with pytest.raises(ConfigurationError, match="names no function"):
        load_tool(module)
    with pytest.raises(ConfigurationError, match="No module named 'nowhere'"):
        load_tool("nowhere:f")
    with pytest.raises(ConfigurationError, match="no attribute 'nothing'"):
        load_tool(f"{module}:nothing")
    with pytest.raises(InvalidRequestError, match="7 is no client tool"):
        load_tool(f"{module}:number")
