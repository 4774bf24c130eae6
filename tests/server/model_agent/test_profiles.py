"""Profiles as operators write them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from agentlin_bridge.errors import ConfigurationError
from agentlin_bridge.server.model_agent.profiles import profile_of_model, read_profiles
from tests.support.processes import subprocess_environment

MODEL = {"model": "openai:small"}


def with_server(**server: Any) -> dict[str, Any]:
    return {**MODEL, "tool_servers": {"files": server}}


def test_a_profile_is_read() -> None:
    (profile,) = read_profiles(
        {
            "helper": {
                **with_server(type="stdio", command="npx", args=["-y", "files"], env={"TOKEN": "t"}, tools=["read"]),
                "description": "helps",
                "prompt": "Be brief.",
                "model_options": {"temperature": 0},
                "limits": {"max_steps": 3, "tool_timeout": 5},
            }
        }
    )
    assert (profile.name, profile.model, profile.limits.max_steps) == ("helper", "openai:small", 3)
    assert profile.tool_servers["files"].env["TOKEN"].get_secret_value() == "t"


def test_variables_are_filled_in_where_secrets_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FILES_TOKEN", "t")
    fields = with_server(command="npx", args=["--key=${FILES_TOKEN}"], env={"A": "x${FILES_TOKEN}y"})
    options = {"api_key": "${FILES_TOKEN}", "temperature": 0}
    (profile,) = read_profiles({"helper": {**fields, "model_options": options, "prompt": "Say ${FILES_TOKEN}."}})
    server = profile.tool_servers["files"]
    assert (server.args, server.env["A"].get_secret_value()) == (["--key=t"], "xty")
    assert (profile.model_options, profile.prompt) == ({"api_key": "t", "temperature": 0}, "Say ${FILES_TOKEN}.")


def test_a_variable_that_is_not_set_is_named() -> None:
    fields = with_server(command="npx", env={"A": "${NO_SUCH_VARIABLE}"})
    with pytest.raises(ConfigurationError, match=r"tool_servers\.files\.env\.A .*NO_SUCH_VARIABLE, which is not set"):
        read_profiles({"helper": fields})


def test_nothing_secret_is_shown() -> None:
    options = {"api_key": "hidden1"}
    server = {"command": "npx", "args": ["--key=hidden2"], "env": {"TOKEN": "hidden3"}}
    remote = {"url": "https://example.com/?key=hidden4", "headers": {"Authorization": "Bearer hidden5"}}
    profiles = read_profiles(
        {"helper": {**MODEL, "model_options": options, "tool_servers": {"files": server, "web": remote}}}
    )
    assert "hidden" not in repr(profiles)
    assert "hidden" not in str(profiles[0])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, r"agents\.helper\.model: Field required\. Next: correct the agent's profile"),
        ("openai:small", r"agents\.helper: Input should be"),
        ({"model": "small"}, r"agents\.helper\.model: String should match"),
        ({**MODEL, "mdoel_options": {}}, r"agents\.helper\.mdoel_options: Extra inputs are not permitted"),
        ({**MODEL, "limits": {"max_steps": 0}}, r"agents\.helper\.limits\.max_steps: "),
        (with_server(), r"tool_servers\.files: give either command or url"),
        (with_server(command="a", url="http://b"), "give either command or url"),
        (with_server(url="http://b", env={"A": "hidden"}), "args, env and cwd belong to a command"),
        (with_server(url="ftp://b"), r"tool_servers\.files\.url: "),
        (with_server(command="a", headers={"A": "hidden"}), "headers belong to a url"),
        (with_server(type="http", command="a"), "type 'http' needs a url"),
        (with_server(type="stdio", url="http://b"), "type 'stdio' needs a command"),
        ({**MODEL, "tool_servers": {"a__b": {"command": "a"}}}, "tool_servers"),
        ({**MODEL, "tool_servers": {"a_": {"command": "a"}}}, "tool_servers"),
    ],
)
def test_a_profile_that_cannot_be_used_is_refused(fields: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        read_profiles({"helper": fields})
    assert "hidden" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_model_needs_its_provider() -> None:
    with pytest.raises(ConfigurationError, match=r"'gpt-5' names no model\. Next: write it provider:model"):
        profile_of_model("gpt-5")


def test_reading_profiles_needs_neither_langchain_nor_mcp() -> None:
    code = (
        "import sys; from agentlin_bridge.server.model_agent import agents, profiles; "
        "print([name for name in ('langchain', 'langchain_core', 'mcp', 'jsonschema') if name in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], env=subprocess_environment(), capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"
