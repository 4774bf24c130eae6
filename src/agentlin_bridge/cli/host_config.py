"""`agentlin-bridge config`: the entry that makes a host start the MCP server.

Shapes and places are those the hosts document; the files in `configs/` hold the same entries with the
bare command instead of this interpreter.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

from agentlin_bridge.errors import ConfigurationError

SERVER_NAME = "agentlin"


@dataclass(frozen=True, slots=True)
class HostConfig:
    """Where a host keeps its MCP servers.

    Attributes:
        file: the host's configuration file, as its users know it.
        key: the top-level key that holds the servers.
        extra: fields the host wants beside command and args.
    """

    file: str
    key: str
    extra: dict[str, Any]

    def entry(self, command: str, arguments: list[str]) -> dict[str, Any]:
        """The file's content with this server as its only one."""
        return {self.key: {SERVER_NAME: {**self.extra, "command": command, "args": arguments}}}


HOSTS = {
    "claude-desktop": HostConfig("claude_desktop_config.json", "mcpServers", {}),
    "claude-code": HostConfig(".mcp.json", "mcpServers", {"type": "stdio"}),
    "cursor": HostConfig(".cursor/mcp.json", "mcpServers", {}),
    "vscode": HostConfig(".vscode/mcp.json", "servers", {"type": "stdio"}),
}


def print_entry(host: str) -> None:
    """Print the entry to stdout and, to stderr, where it belongs.

    Raises:
        ConfigurationError: the host is not known.
    """
    found = HOSTS.get(host)
    if found is None:
        raise ConfigurationError(f"The host {host!r} is not known.", next_step=f"use one of: {', '.join(HOSTS)}")
    entry = found.entry(sys.executable, ["-m", "agentlin_bridge", "mcp"])
    sys.stderr.write(f"Merge this into {found.file}, then restart the host:\n")
    sys.stdout.write(json.dumps(entry, indent=2) + "\n")
