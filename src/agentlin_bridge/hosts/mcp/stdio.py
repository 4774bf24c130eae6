"""The life of the stdio server's process: stdout belongs to the protocol, and leaving is quick and clean."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

    from agentlin_bridge.delegation.client_tools import ClientTool

logger = logging.getLogger(__name__)

GRACE = 5.0
"""Seconds the bridge gets to close when a signal ends the process: the tool servers it runs may be slow to end."""
LINGER = 0.5
"""Seconds for which stdin's thread may keep the process once the bridge is closed."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve_stdio(client_tools: Sequence[ClientTool] = ()) -> None:
    """Serve MCP on stdin and stdout until the host closes stdin, or SIGINT or SIGTERM comes.

    The process then ends with status 0; tasks go on without it.

    Args:
        client_tools: offered with every task, and executed by the bridge.

    Raises:
        ConfigurationError: the settings contradict each other or are half set.
    """
    # Until the server is up there is nothing to close.
    for number in SIGNALS:
        signal.signal(number, lambda *_: os._exit(0))
    # Slow imports, after the signals are taken care of.
    from agentlin_bridge import TaskBridge  # noqa: PLC0415
    from agentlin_bridge.hosts.mcp.server import build_server  # noqa: PLC0415
    from agentlin_bridge.settings import load_settings  # noqa: PLC0415

    closed = anyio.Event()
    settings = load_settings()
    server = build_server(
        partial(TaskBridge.from_env, client_tools=client_tools),
        config=settings.load_config(),
        client_tools=client_tools,
        keys=settings.mcp_keys,
        closed=closed,
    )
    anyio.run(_serve, server, closed)
    # The ledger is closed; what is left to do at exit only costs the host time.
    os._exit(0)


async def _serve(server: MCPServer[Any], closed: anyio.Event) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(_leave_once_closed, closed)
        with anyio.CancelScope() as serving:
            if sys.platform != "win32":
                group.start_soon(_leave_on_signal, serving, closed)
            try:
                await server.run_stdio_async()
            except* (BrokenPipeError, ConnectionResetError):
                logger.info("the host has gone")
        group.cancel_scope.cancel()


async def _leave_on_signal(serving: anyio.CancelScope, closed: anyio.Event) -> None:
    with anyio.open_signal_receiver(*SIGNALS) as signals:
        await anext(signals)
        serving.cancel()
        with anyio.move_on_after(GRACE):
            await closed.wait()
        # The thread that reads stdin cannot be stopped, and would keep the process.
        os._exit(0)


async def _leave_once_closed(closed: anyio.Event) -> None:
    """The same thread would keep it when stdout breaks while stdin stays open."""
    await closed.wait()
    await anyio.sleep(LINGER)
    os._exit(0)
