"""The published Agentlin task router as a process of its own, for tests. Runs in `.venv-upstream`, not in ours.

`python server.py --directory D --backend responses|chat|chat-stream [--no-handlers]`, with the model named by
OPENAI_BASE_URL. Writes the port to D/port when it can be reached and ends when its standard input does, so
that no server outlives the tests.

Beside the router: the server-side tools `echo` and `sleep`, the subagent `helper`, and `POST /test/forget`, which
leaves the server as a restart would, without sessions and tasks.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import uvicorn
from agentlin.app.api.v1.endpoints.route_task import create_task_router
from agentlin.core.types import BaseTool, ToolResult
from agentlin.route import task_agent_manager
from agentlin.route.agent_config import AgentConfig, load_agent_config
from agentlin.sandbox.server import register_exception_handlers
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

INFERENCE_ARGS = {
    "responses": "{}",
    "chat": "{use_responses_backend: false}",
    "chat-stream": "{use_responses_backend: false, use_stream_backend: true}",
}

MAIN = """---
name: upstream
description: The default agent of the tests.
model: scripted
max_model_length: 128000
max_response_length: 4096
allowed_tools: ["*"]
inference_args: {inference_args}
tool_mcp_config: {{}}
builtin_subagents: [agents]
---
You are the agent of the tests.
"""

HELPER = """---
name: helper
description: Does what it is told.
model: scripted
allowed_tools: ["*"]
---
You are the helper of the agent of the tests.
"""


class Echo(BaseTool):
    """Says what it is told."""

    def __init__(self) -> None:
        text = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
        super().__init__("echo", "Echo", "Say a text.", text)

    async def execute(self, params: dict[str, Any]) -> ToolResult:
        said = {"type": "text", "text": f"echo: {params['text']}"}
        return ToolResult(message_content=[said], block_list=[said])


class Sleep(BaseTool):
    """Takes its time."""

    def __init__(self) -> None:
        seconds = {"type": "object", "properties": {"seconds": {"type": "number"}}, "required": ["seconds"]}
        super().__init__("sleep", "Sleep", "Sleep for some seconds.", seconds)

    async def execute(self, params: dict[str, Any]) -> ToolResult:
        await asyncio.sleep(params["seconds"])
        slept = {"type": "text", "text": f"slept {params['seconds']} s"}
        return ToolResult(message_content=[slept], block_list=[slept])


def write_agent(directory: Path, backend: str) -> None:
    """The files of the default agent and of its subagent."""
    (directory / "agents").mkdir(parents=True)
    (directory / "main.md").write_text(MAIN.format(inference_args=INFERENCE_ARGS[backend]), encoding="utf-8")
    (directory / "agents" / "helper.md").write_text(HELPER, encoding="utf-8")


def application(agent: Path, *, handlers: bool) -> FastAPI:
    """The task router at /v1/tasks, as the packaged server mounts it."""

    async def agent_config(_agent_id: str) -> AgentConfig:
        return await load_agent_config(agent)

    task_agent_manager.get_agent_config = agent_config
    manager = task_agent_manager.TaskAgentManager(builtin_tools=[Echo(), Sleep()])
    app = FastAPI()
    if handlers:
        register_exception_handlers(app)
    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])
    app.include_router(create_task_router(manager), prefix="/v1/tasks")

    @app.post("/test/forget")
    async def forget() -> dict[str, int]:
        forgotten = len(manager.sessions)
        manager.sessions.clear()
        manager.task_store = type(manager.task_store)()
        return {"sessions": forgotten}

    return app


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--backend", choices=INFERENCE_ARGS, required=True)
    parser.add_argument("--no-handlers", dest="handlers", action="store_false")
    options = parser.parse_args()

    agent = options.directory / "agent" / "aime"
    write_agent(agent, options.backend)
    workspace = options.directory / "workspace"
    workspace.mkdir()
    os.chdir(workspace)  # the file tools and Bash work here

    config = uvicorn.Config(application(agent, handlers=options.handlers), timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)

    def end_with_the_tests() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True

    threading.Thread(target=end_with_the_tests, daemon=True).start()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        written = options.directory / "port.new"
        written.write_text(str(listener.getsockname()[1]), encoding="utf-8")
        written.rename(options.directory / "port")
        server.run([listener])


if __name__ == "__main__":
    main()
