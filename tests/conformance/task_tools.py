"""A server of ours with the tools that the suite's scenarios about MCP tasks call, on tasks of a scripted remote.

    python -m tests.conformance.task_tools LEDGER

Each tool delegates a task and attends to it as `agentlin_create_task` does; only its name and its arguments are the
suite's.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import sys

import anyio
import uvicorn
from mcp_types import CallToolResult, TextContent

from agentlin_bridge import TaskBridge
from agentlin_bridge.hosts.mcp.asking import ASK_USER, OFFERED
from agentlin_bridge.hosts.mcp.attending import Answer, attend
from agentlin_bridge.hosts.mcp.leaving import Waits
from agentlin_bridge.hosts.mcp.principals import Principals
from agentlin_bridge.hosts.mcp.server import build_server
from agentlin_bridge.hosts.mcp.serving import Ctx, serving
from agentlin_bridge.hosts.mcp.web import Names, build_app
from tests.support.remote import Json, ScriptedRemote, Turn, call, message, results_of

HOUR = 3600.0
SOON = 0.2
"""Seconds: the suite takes a call of one second for a long one."""


async def delegated(ctx: Ctx, instructions: str) -> Answer:
    bridge = await serving(ctx).bridge_of_caller()
    task = await bridge.create(instructions, client_tools=[ASK_USER], metadata=OFFERED)
    return await attend(ctx, bridge, task, HOUR)


async def greet(name: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=f"Hello, {name}!")])


async def slow_compute(ctx: Ctx, seconds: float, label: str = "") -> Answer:
    return await delegated(ctx, f"sleep {seconds}")


async def failing_job(ctx: Ctx) -> Answer:
    return await delegated(ctx, "fail")


async def confirm_delete(ctx: Ctx, filename: str) -> Answer:
    return await delegated(ctx, "ask really?")


async def multi_input(ctx: Ctx) -> Answer:
    return await delegated(ctx, "ask one? two?")


async def agent(body: Json) -> Turn:
    """What the remote agent does: the first word of its instructions."""
    if results := results_of(body):
        return Turn([message(" ".join(results.values()))])
    what, *rest = str(body["user_message_content"][0]["text"]).split()
    if what == "ask":
        await anyio.sleep(SOON * 2)
        return Turn([call(question, "ask_user", {"question": question}) for question in rest])
    await anyio.sleep(float(rest[0]) if rest else SOON * 2)
    if what == "fail":
        return Turn([message("no")], status="failed", error={"code": -32000, "message": "The job failed."})
    return Turn([message("computed")])


async def main(ledger: str) -> None:
    waits, principals = Waits(), Principals()
    async with ScriptedRemote(agent).serve() as remote:
        server = build_server(
            lambda: TaskBridge.from_env(base_url=remote.base_url, ledger=ledger), waits=waits, soon=SOON
        )
        for tool in (greet, slow_compute, failing_job, confirm_delete, multi_input):
            server.add_tool(tool, structured_output=False)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            security = Names().security(ipaddress.ip_address("127.0.0.1"))
            app, _ = build_app(server, path="/mcp", principals=principals, security=security, waits=waits)
            web = uvicorn.Server(uvicorn.Config(app, lifespan="on", log_config=None, timeout_graceful_shutdown=1))
            logging.getLogger(__name__).info("serving MCP at http://127.0.0.1:%d/mcp", listener.getsockname()[1])
            await web.serve(sockets=[listener])


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    anyio.run(main, sys.argv[1])
