"""LangChain: `AgentlinTaskTool` delegates a subtask and runs the host's own tools for it; `AgentlinToolkit` has the
single operations.
"""

from agentlin_bridge.extras import require_extra

require_extra("langchain")

from agentlin_bridge.hosts.langchain.task_tool import AgentlinTaskTool  # noqa: E402
from agentlin_bridge.hosts.langchain.toolkit import AgentlinToolkit  # noqa: E402

__all__ = ["AgentlinTaskTool", "AgentlinToolkit"]
