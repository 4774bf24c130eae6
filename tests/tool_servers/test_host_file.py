"""A host's own file: which of its servers are used, and why others are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentlin_bridge.errors import ConfigurationError
from agentlin_bridge.tool_servers.host_file import is_the_bridge, read_host_file

FILES = {"command": "npx", "args": ["-y", "files"], "env": {"TOKEN": "hidden"}, "timeout": 9, "autoApprove": ["x"]}


def host_file(directory: Path, servers: Any, key: str = "mcpServers") -> Path:
    path = directory / "host.json"
    path.write_text(json.dumps({key: servers, "theme": "dark"}), encoding="utf-8")
    return path


@pytest.mark.parametrize("key", ["mcpServers", "servers", "context_servers"])
def test_servers_in_the_shapes_of_hosts(tmp_path: Path, key: str) -> None:
    servers = {
        "files": FILES,
        "web": {"type": "http", "url": "https://example.org/mcp", "headers": {"Authorization": "hidden"}},
        "surf": {"serverUrl": "https://example.org/surf"},
        "gem": {"httpUrl": "https://example.org/gem"},
    }
    found = read_host_file(host_file(tmp_path, servers, key), None)
    assert list(found) == list(servers)
    assert (found["files"].command, found["files"].args) == ("npx", ["-y", "files"])
    assert found["files"].env["TOKEN"].get_secret_value() == "hidden"
    assert [found[name].url for name in ("web", "surf", "gem")] == [
        "https://example.org/mcp",
        "https://example.org/surf",
        "https://example.org/gem",
    ]
    assert "hidden" not in repr(found)


def test_only_the_servers_that_are_wanted(tmp_path: Path) -> None:
    path = host_file(tmp_path, {"a": FILES, "b": FILES, "c": FILES})
    assert list(read_host_file(path, ["b"])) == ["b"]
    assert list(read_host_file(path, ["b"], ["c"])) == ["b", "c"]
    assert list(read_host_file(path, [])) == []


BRIDGES: list[dict[str, Any]] = [
    {"command": "agentlin-bridge", "args": ["mcp"]},
    {"command": "/opt/venv/bin/agentlin-bridge", "args": ["mcp"]},
    {"command": "C:\\tools\\agentlin-bridge.exe", "args": ["mcp"]},
    {"command": "uvx", "args": ["agentlin-bridge", "mcp"]},
    {"command": "uvx", "args": ["--from", "agentlin-bridge[mcp,server]==0.1.0", "agentlin-bridge", "mcp"]},
    {"command": "uvx", "args": ["--from=agentlin-bridge[all]", "x"]},
    {"command": "/usr/bin/uv", "args": ["tool", "run", "agentlin-bridge@latest"]},
    {"command": "pipx", "args": ["run", "agentlin_bridge"]},
    {"command": "python3.12", "args": ["-m", "agentlin_bridge", "mcp"]},
    {"command": "python", "args": ["/opt/venv/bin/agentlin-bridge", "mcp"]},
]


@pytest.mark.parametrize("entry", BRIDGES, ids=lambda entry: " ".join([entry["command"], *entry["args"]]))
def test_the_bridge_itself_is_left_out_with_a_note(
    tmp_path: Path, entry: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    path = host_file(tmp_path, {"agentlin": entry, "files": FILES})
    assert list(read_host_file(path, None)) == ["files"]
    assert "'agentlin' of" in caplog.text
    assert "it is this bridge, and a remote agent must not delegate to itself" in caplog.text
    # Nor when it is asked for.
    assert list(read_host_file(path, ["agentlin", "files"])) == ["files"]


@pytest.mark.parametrize(
    "entry",
    [
        {"command": "npx", "args": ["files", "/home/me/agentlin-bridge"]},
        {"command": "uvx", "args": ["mcp-server-git", "--repository", "/home/me/agentlin-bridge"]},
        {"command": "agentlin-bridge-helper"},
        {"command": "python", "args": "agentlin-bridge"},
        {"url": "https://agentlin-bridge"},
    ],
)
def test_what_only_looks_like_the_bridge_is_not(entry: dict[str, Any]) -> None:
    assert not is_the_bridge(entry)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({**FILES, "disabled": True}, "it is switched off there"),
        ({**FILES, "enabled": False}, "it is switched off there"),
        ({"type": "sse", "url": "https://example.org"}, "it speaks SSE"),
        ({"note": "empty"}, "it has neither command nor url"),
        ({"command": "a", "url": "https://example.org"}, "give either command or url"),
        ({"command": ["a"]}, "command: Input should be a valid string"),
    ],
)
def test_what_cannot_be_used_is_left_out_unless_it_is_asked_for(
    tmp_path: Path, entry: dict[str, Any], problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = host_file(tmp_path, {"odd": entry, "files": FILES})
    assert list(read_host_file(path, None)) == ["files"]
    assert problem in caplog.text
    with pytest.raises(ConfigurationError, match=r"The MCP server 'odd' of .* cannot be used") as caught:
        read_host_file(path, ["odd"])
    assert problem in str(caught.value)
    assert caught.value.next_step


def test_a_server_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"has no MCP server 'git' \(it has a, b\)"):
        read_host_file(host_file(tmp_path, {"b": FILES, "a": FILES, "odd": 3}), ["git"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        ('{"mcpServers": {"a": {"env": "hidden", }}}', "is no JSON: line 1"),
        (b"\xff\xfe", "is no JSON: it is not UTF-8"),
        ('["hidden"]', "has no mcpServers"),
        ('{"mcpServers": 3}', "has no mcpServers"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: str | bytes | None, said: str) -> None:
    path = tmp_path / "host.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigurationError) as caught:
        read_host_file(path, None)
    assert said in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.next_step
    assert "hidden" not in str(caught.value)


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = host_file(tmp_path, {"a": FILES})
    path.write_text("\ufeff" + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert list(read_host_file(path, None)) == ["a"]
