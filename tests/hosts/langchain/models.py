"""A chat model that follows a script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult


class Delegating(BaseChatModel):
    """Calls `agentlin_task` once for each of its instructions, all at once, then says it is done."""

    instructions: list[str]

    @property
    def _llm_type(self) -> str:
        return "delegating"

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        if any(isinstance(message, ToolMessage) for message in messages):
            reply = AIMessage("done")
        else:
            calls = [
                {"name": "agentlin_task", "id": f"host_{number}", "args": {"instructions": each}, "type": "tool_call"}
                for number, each in enumerate(self.instructions)
            ]
            reply = AIMessage("", tool_calls=calls)
        return ChatResult(generations=[ChatGeneration(message=reply)])
