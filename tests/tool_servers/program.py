"""An MCP server for tests: `python -m tests.tool_servers.program NOTES`.

Each start, and what its tools do, is noted as a line in the file NOTES, a start with the server's process id. The
variable `FLAWS` makes it worse: `deaf` ignores that its stdin ends, `nameless` calls itself agentlin-bridge.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, TextContent, ToolAnnotations

READS = ToolAnnotations(read_only_hint=True)
CHANGES = ToolAnnotations(destructive_hint=True)
ADDS = ToolAnnotations(destructive_hint=False)

flaws = os.environ.get("FLAWS", "")
server: MCPServer[Any] = MCPServer("agentlin-bridge" if "nameless" in flaws else "program", log_level="ERROR")


def note(line: str) -> None:
    with Path(sys.argv[1]).open("a", encoding="utf-8") as notes:
        notes.write(f"{line}\n")


@server.tool(annotations=READS)
def look(path: str) -> str:
    """Look at a file."""
    note(f"look {path}")
    return f"{path} is empty"


@server.tool(annotations=CHANGES)
def wipe(path: str) -> str:
    """Wipe a file."""
    note(f"wipe {path}")
    return f"wiped {path}"


@server.tool(annotations=ADDS)
def add(path: str) -> str:
    """Add a file."""
    note(f"add {path}")
    return f"added {path}"


@server.tool()
def guess(path: str) -> str:
    """Do something that is not told."""
    note(f"guess {path}")
    return f"guessed {path}"


@server.tool(annotations=READS)
def die() -> str:
    """Kill the server."""
    note("die")
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


@server.tool(annotations=READS)
async def hang(ctx: Context) -> str:
    """Report progress for ever."""
    note("hang")
    while True:
        await ctx.report_progress(1)
        await anyio.sleep(0.05)


@server.tool()
async def stall() -> str:
    """Take for ever."""
    note("stall")
    await anyio.sleep_forever()
    return "never"


@server.tool(annotations=READS)
async def meet(expected: int) -> str:
    """Wait until so many calls of this are here at once."""
    met.append(expected)
    note(f"meet {len(met)}")
    try:
        if len(met) >= expected:
            together.set()
        await together.wait()
    finally:
        met.pop()
    return "met"


met: list[int] = []
together = anyio.Event()


@server.tool(annotations=READS)
async def grow(ctx: Context) -> str:
    """Have one more tool."""
    server.add_tool(grown, annotations=READS)
    await ctx.notify_tools_changed()
    await ctx.session.send_tool_list_changed()
    return "grown"


def grown() -> str:
    """Be new."""
    return "new"


@server.tool(annotations=READS)
def vague() -> CallToolResult:
    """Return two texts and an error."""
    return CallToolResult(content=[TextContent(text="one"), TextContent(text="two")], is_error=True)


@server.tool(annotations=READS)
def tell() -> str:
    """Tell a secret."""
    raise MCPError(-32000, f"refused for {os.environ.get('TOKEN', '')} at https://me:pass@example.org/x?key=1")


@server.tool(annotations=READS)
def refuse() -> str:
    """Call the request invalid."""
    raise MCPError(-32600, "no such account")


if __name__ == "__main__":
    note(f"start {os.getpid()} {os.environ.get('TOKEN', '')}")
    server.run("stdio")
    if "deaf" in flaws:
        time.sleep(60)
    note("end")
