"""LangChain: `AgentlinTaskTool` delegates a subtask and runs the host's own tools for it."""

from agentlin_bridge.extras import require_extra

require_extra("langchain")

from agentlin_bridge.hosts.langchain.task_tool import AgentlinTaskTool  # noqa: E402

__all__ = ["AgentlinTaskTool"]
