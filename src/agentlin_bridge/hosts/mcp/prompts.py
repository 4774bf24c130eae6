"""Prompts: the two things a person may want to start by hand."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server.mcpserver import MCPServer
from pydantic import Field


def add_prompts(server: MCPServer[Any], prefix: str) -> None:
    """Let a host's user delegate, and look after what is open."""

    @server.prompt(name="delegate", title="Delegate a task")
    def delegate(task: Annotated[str, Field(description="What the remote agent shall do")]) -> str:
        """Hand a task to a remote Agentlin agent and see it through."""
        return (
            f"Delegate the following to the remote agent with {prefix}create_task. Put everything it needs into the "
            "instructions, it does not see our conversation. Follow each line 'Next:' until the task has ended, then "
            f"tell me its answer and what you think of it.\n\n{task}"
        )

    @server.prompt(name="review-pending", title="Review open tasks")
    def review_pending() -> str:
        """See which delegated tasks wait for something, and deal with them."""
        return (
            f"List my delegated tasks with {prefix}list_tasks, first those with status input-required. Retrieve each, "
            "tell me what its agent asks for, and whether you can do it or I have to decide. Do what is harmless and "
            "clearly in my interest, and submit the results; ask me before anything else."
        )
