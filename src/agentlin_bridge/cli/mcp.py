"""`agentlin-bridge mcp`: serve the MCP tools on stdio or over HTTP."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from agentlin_bridge.cli.tools import load_tools
from agentlin_bridge.errors import ConfigurationError


def serve_mcp(tools: Sequence[str], approval: str, *, transport: str, host: str, port: int, path: str) -> None:
    """Serve until the host or a signal ends it.

    Raises:
        ConfigurationError: there is no such transport, a tool cannot be loaded, the settings are wrong, or the
            address cannot be listened on.
    """
    if transport not in ("stdio", "http"):
        raise ConfigurationError(f"--transport is {transport!r}.", next_step="use stdio or http")
    if transport == "stdio":
        from agentlin_bridge.hosts.mcp.stdio import serve_stdio

        serve_stdio(load_tools(tools, approval))
        return
    from agentlin_bridge.hosts.mcp.http import Address, serve_http

    logging.getLogger("agentlin_bridge").setLevel(logging.INFO)
    serve_http(Address(host, port, path), load_tools(tools, approval))
