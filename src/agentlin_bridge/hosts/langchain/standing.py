"""Where in a LangGraph graph a call stands, so that the graph finds its task when it runs the call again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig

TASK_METADATA = "agentlin_task_id"
"""In the metadata of a host tool's run: the task it runs for."""

_NAMESPACE = UUID("6f0f2b0c-5f0e-4d6e-9a59-0c8f7a3f5d11")


@dataclass(frozen=True, slots=True)
class Standing:
    """A tool call's place in a graph: the same for every run of it, another for every other call.

    Attributes:
        thread_id: the conversation; empty in a graph without one.
        checkpoint_ns: the graph's name for the task that makes the call: it outlives interrupts, retries and
            restarts, and is a new one in the next turn and after time travel.
        call_id: the id of the tool call.
        can_wait: whether the graph keeps checkpoints, so that it can be interrupted and resumed.
        is_alone: whether no other tool call runs in the same task of the graph.
    """

    thread_id: str
    checkpoint_ns: str
    call_id: str
    can_wait: bool
    is_alone: bool

    @property
    def graph_task(self) -> tuple[str, str]:
        """What is interrupted and resumed as one."""
        return self.thread_id, self.checkpoint_ns

    def request_id(self, instructions: str, attempt: int) -> str:
        """The id of the request that the call makes; each attempt makes its own."""
        said = json.dumps([self.thread_id, self.checkpoint_ns, self.call_id, instructions, attempt])
        return f"langgraph-{uuid5(_NAMESPACE, said)}"


def standing_of(config: RunnableConfig, runtime: Any, call_id: str | None) -> Standing | None:
    """Where a call stands; None outside a graph, and for one without an id.

    Args:
        config: what the tool was invoked with.
        runtime: LangGraph's `ToolRuntime`, if a `ToolNode` made the call.
        call_id: the id of the tool call.
    """
    configurable: Mapping[str, Any] = config.get("configurable") or {}
    checkpoint_ns = configurable.get("checkpoint_ns")
    if not checkpoint_ns or not call_id:
        return None
    return Standing(
        thread_id=str(configurable.get("thread_id") or ""),
        checkpoint_ns=str(checkpoint_ns),
        call_id=call_id,
        # LangGraph has no public way to ask. A host tool that runs for a delegation cannot interrupt the graph.
        can_wait=configurable.get("__pregel_checkpointer") not in (None, False)
        and TASK_METADATA not in (config.get("metadata") or {}),
        is_alone=runtime is not None and (_is_sent(config) or _calls_beside(runtime.state) == 1),
    )


def _is_sent(config: RunnableConfig) -> bool:
    """Whether the graph sent this one call to a `ToolNode`, as agents do, rather than a message with its calls."""
    path = (config.get("metadata") or {}).get("langgraph_path") or ("",)
    return bool(path[0] == "__pregel_push")


def _calls_beside(state: Any) -> int:
    """The tool calls of the message that a `ToolNode` answers; 0 if it cannot be told."""
    messages = state if isinstance(state, list) else _field(state, "messages")
    asked = [message for message in messages or () if isinstance(message, AIMessage)]
    return len(asked[-1].tool_calls) if asked else 0


def _field(state: Any, name: str) -> Any:
    return state.get(name) if isinstance(state, Mapping) else getattr(state, name, None)
