"""A LangChain agent delegates a subtask; the remote agent uses one of the host's LangChain tools to do it.

    pip install 'agentlin-bridge[langchain,server]' langchain
    python examples/langchain_agent.py [FILE]

Runs without a key: the host's model is a script of two turns, and the embedded server's demo agent, which only
digests text, is the remote agent. For a real model replace `ScriptedModel()` by, for example,
`init_chat_model("anthropic:claude-sonnet-4-5")` from `langchain.chat_models`; for a real remote agent set
AGENTLIN_BASE_URL and AGENTLIN_API_KEY.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool

from agentlin_bridge.hosts.langchain import AgentlinTaskTool

FILE = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "host_walkthrough.md"


@tool
def read_file(path: str) -> str:
    """Read the file the user asks about."""
    print(f"host: the remote agent reads {path}")
    if path != FILE.name:
        raise ValueError(f"{path} is not the file this is about")
    return FILE.read_text(encoding="utf-8")


class ScriptedModel(BaseChatModel):
    """Stands in for a model: delegates what the user says, then repeats what came back."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        last = messages[-1]
        if isinstance(last, ToolMessage):
            reply = AIMessage(f"The agent I asked says:\n{last.text}")
        else:
            arguments = {"instructions": last.text}
            reply = AIMessage("", tool_calls=[{"name": "agentlin_task", "args": arguments, "id": "call_1"}])
        return ChatResult(generations=[ChatGeneration(message=reply)])


def main() -> None:
    delegate = AgentlinTaskTool(client_tools=[read_file])
    agent: Any = create_agent(ScriptedModel(), [delegate])
    state = agent.invoke({"messages": [HumanMessage(f"Digest `{FILE.name}`.")]})
    for message in state["messages"]:
        for call in getattr(message, "tool_calls", []):
            print(f"host: calls {call['name']} with {call['args']}")
        if isinstance(message, ToolMessage):
            print(f"host: task {message.artifact.id} is {message.artifact.status}")
    print(state["messages"][-1].text)


if __name__ == "__main__":
    main()
