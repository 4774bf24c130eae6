"""MCP servers that are processes: what connects to them, and tells when they have gone."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any, TextIO

import anyio
from anyio.streams.memory import MemoryObjectSendStream
from mcp import StdioServerParameters, stdio_client
from mcp.shared.message import SessionMessage

from agentlin_bridge.tool_servers.description import Reach


@asynccontextmanager
async def process(command: str, reach: Reach, gone: anyio.Event) -> AsyncIterator[Any]:
    """A transport to a server that is a process.

    Args:
        command: starts it.
        reach: what else is needed to.
        gone: set when it has closed its output, even while nobody calls it.
    """
    parameters = StdioServerParameters(
        command=command,
        args=reach.args,
        env={name: value.get_secret_value() for name, value in reach.env.items()},
        cwd=reach.cwd,
    )

    async def listen(source: Any, heard: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        async with heard:
            async for message in source:
                try:
                    await heard.send(message)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    return
        gone.set()

    with ExitStack() as stack:
        connected = stdio_client(parameters, errlog=_stderr(stack))
        async with connected as (read, write), anyio.create_task_group() as group:
            heard, hear = anyio.create_memory_object_stream[SessionMessage | Exception](0)
            with heard, hear:
                group.start_soon(listen, read, heard)
                try:
                    yield hear, write
                finally:
                    group.cancel_scope.cancel()


def _stderr(stack: ExitStack) -> TextIO:
    """Where a server's process may write what it logs: our stderr, unless that is no file, as in a notebook."""
    try:
        sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):
        return stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
    return sys.stderr
