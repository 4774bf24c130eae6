"""LangChain's standard tests, for every tool, against the embedded server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from langchain_core.tools import BaseTool
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests

from agentlin_bridge import Task, TaskBridge
from agentlin_bridge.hosts.langchain import AgentlinTaskTool
from agentlin_bridge.hosts.langchain.toolkit import AgentlinToolkit

from .conftest import NOTES

OPERATIONS = ["create", "retrieve", "submit", "cancel", "delete", "list", "pause", "resume"]
READ_FILE = {
    "name": "read_file",
    "description": "Read a file.",
    "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
}


def read_file(path: str) -> str:
    return NOTES


def pausing(*, principal: str) -> TaskBridge:
    """A bridge that offers to hold tasks; one that waits for its host is held without the backend's doing."""
    bridge = TaskBridge.from_env(principal=principal)
    backend: Any = bridge._engine.backends.default
    backend.capabilities = replace(backend.capabilities, pause=True, resume=True)
    return bridge


class TaskTool:
    @property
    def tool_constructor(self) -> type[BaseTool]:
        return AgentlinTaskTool

    @property
    def tool_constructor_params(self) -> dict[str, Any]:
        return {"client_tools": [read_file]}

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"instructions": "Digest notes.md"}


class Toolkit:
    """The toolkit's tools, one after the other."""

    @pytest.fixture(autouse=True, params=OPERATIONS)
    def _one_tool(self, request: pytest.FixtureRequest) -> Iterator[None]:
        toolkit = AgentlinToolkit(bridge=pausing)
        create, *others = toolkit.get_tools()
        self.tools = {tool.name.split("_")[1]: tool for tool in (create, *others)}
        assert list(self.tools) == OPERATIONS
        self.chosen = request.param
        self.params: dict[str, Any] = {"instructions": "Digest notes.md", "client_tools": [READ_FILE]}
        if self.chosen == "list":
            self.params = {"status": "input-required", "limit": 3}
        elif self.chosen != "create":
            task_id, call_id = self.waiting_task(create)
            self.params = {"task_id": task_id}
            if self.chosen == "submit":
                self.params["results"] = [{"call_id": call_id, "content": NOTES}]
        yield
        toolkit.close()

    def waiting_task(self, create: BaseTool) -> tuple[str, str]:
        """The ids of a task and of the call it waits for."""
        return "task_1", "call_1"

    @property
    def tool_constructor(self) -> BaseTool:
        return self.tools[self.chosen]

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return self.params


@pytest.mark.anyio
class TestTaskToolUnit(TaskTool, ToolsUnitTests):
    pass


@pytest.mark.anyio
class TestTaskTool(TaskTool, ToolsIntegrationTests):
    pass


@pytest.mark.anyio
class TestToolkitUnit(Toolkit, ToolsUnitTests):
    pass


@pytest.mark.anyio
class TestToolkit(Toolkit, ToolsIntegrationTests):
    def waiting_task(self, create: BaseTool) -> tuple[str, str]:
        task: Task = create.invoke({"type": "tool_call", "id": "1", "name": create.name, "args": self.params}).artifact
        return task.id, task.pending[0].call_id
