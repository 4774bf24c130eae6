"""A LangChain host on MCP tools, run by an interpreter that has langchain-mcp-adapters: one whole round trip.

Its argument is the server's connection; it prints what came of the calls as JSON.
"""
# mypy: ignore-errors

import asyncio
import json
import sys

from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.tools import load_mcp_tools

READ_FILE = {
    "name": "read_file",
    "description": "Read a text file.",
    "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
}


async def main(connection):
    async with MultiServerMCPClient({"agentlin": connection}).session("agentlin") as session:
        tools = {tool.name: tool for tool in await load_mcp_tools(session)}

        async def call(tool, **arguments):
            """As an agent's tool node does."""
            tool_call = {"type": "tool_call", "id": "call", "name": tool, "args": arguments}
            return await tools[tool].ainvoke(tool_call)

        create = {"instructions": "Summarise notes.md.", "client_tools": [READ_FILE]}
        asked = (await call("agentlin_create_task", **create)).artifact["structured_content"]
        results = [
            {"call_id": one["call_id"], "content": f"# Tides\n\nWhat {one['arguments']['path']} says.\n"}
            for one in asked["tool_calls"]
        ]
        done = await call("agentlin_submit_tool_results", task_id=asked["task_id"], results=results)
        refused = await call("agentlin_retrieve_task", task_id="task_unknown")
        said = {
            "tools": sorted(tools),
            "asked": asked,
            "done": done.artifact["structured_content"],
            "shown": done.content,
            "refused": [refused.status, refused.content],
        }
    print(json.dumps(said))  # noqa: T201


asyncio.run(main(json.loads(sys.argv[1])))
