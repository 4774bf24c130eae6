"""An MCP server with tools for tests: `python -m tests.server.model_agent.tools STARTS`.

Each start is noted in the file STARTS, with the value of the variable TOKEN.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

server = MCPServer("tools", log_level="ERROR")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def fail() -> str:
    """Fail."""
    raise ToolError("it is broken")


@server.tool()
def die() -> str:
    """Kill the server."""
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


@server.tool()
async def hang() -> str:
    """Never return."""
    await anyio.sleep_forever()
    return "never"


@server.tool()
def write(length: int) -> str:
    """Return a long text."""
    return "x" * length


@server.tool(name="a.dotted/name")
def dotted() -> str:
    """Have a name no model may call."""
    return "dotted"


@server.tool(name="a.dotted.name")
def dotted_too() -> str:
    """Have a name that becomes the same."""
    return "too"


@server.tool()
def everything() -> CallToolResult:
    """Return content of every kind."""
    return CallToolResult(
        content=[
            TextContent(text="text"),
            ImageContent(data="iVBO", mime_type="image/png"),
            AudioContent(data="SUQz", mime_type="audio/mpeg"),
            ResourceLink(name="notes", uri="file:///notes.txt"),
            EmbeddedResource(resource=TextResourceContents(uri="file:///a.txt", text="inside")),
            EmbeddedResource(
                resource=BlobResourceContents(uri="file:///a.pdf", blob="JVBE", mime_type="application/pdf")
            ),
        ]
    )


@server.tool()
def structured() -> Any:
    """Return nothing but structured content."""
    return CallToolResult(content=[], structured_content={"degrees": 21})


@server.tool()
def texts(length: int, count: int) -> CallToolResult:
    """Return many texts."""
    return CallToolResult(content=[TextContent(text="x" * length) for _ in range(count)])


@server.tool()
def picture(size: int) -> CallToolResult:
    """Return a large image."""
    return CallToolResult(content=[ImageContent(data="A" * size, mime_type="image/png")])


if __name__ == "__main__":
    with Path(sys.argv[1]).open("a", encoding="utf-8") as starts:
        starts.write(os.environ.get("TOKEN", "") + "\n")
    server.run("stdio")
