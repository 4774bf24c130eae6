"""A person decides whether the remote agent may read a file, and may take days and a restart to do so.

    pip install 'agentlin-bridge[langchain,server]' 'langgraph>=1.2,<1.3' 'langgraph-checkpoint-sqlite>=3.1,<4'
    python examples/approval.py "Digest \\`notes.md\\`."          # prints the question and ends
    python examples/approval.py --approve                       # or: --reject "it is private"

Each run is a process of its own. The graph waits in its SQLite checkpoints, the task in the bridge's ledger, and
`--thread` tells several conversations apart. Runs without a key: the embedded server's demo agent answers, which only
digests text. For a real agent set AGENTLIN_BASE_URL and AGENTLIN_API_KEY.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage, ToolCall
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command

from agentlin_bridge.hosts.langchain import AgentlinTaskTool


def read_file(path: str) -> str:
    """Read any file of the host's; a person has to approve it."""
    print(f"reading {path}")
    return Path(path).read_text(encoding="utf-8")


def graph_with(saver: SqliteSaver) -> Any:
    delegate = AgentlinTaskTool(
        client_tools=[read_file],
        interrupt_on={"read_file": {"allowed_decisions": ["approve", "reject"]}},
    )
    graph = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode([delegate]))
    graph.add_edge(START, "tools")
    return graph.compile(checkpointer=saver)


def delegated(instructions: str) -> dict[str, Any]:
    """What a model's wish to delegate looks like."""
    arguments = {"instructions": instructions}
    call = ToolCall(type="tool_call", name="agentlin_task", id=f"call_{uuid4().hex}", args=arguments)
    return {"messages": [AIMessage("", tool_calls=[call])]}


def decided(interrupts: Any, decision: dict[str, str]) -> Command[Any]:
    """The same decision about all that is asked. Each names its call: a position could be another's by now."""
    named = {
        interrupt.id: [
            {**decision, "task_id": action["task_id"], "call_id": action["call_id"]}
            for action in interrupt.value["action_requests"]
        ]
        for interrupt in interrupts
    }
    return Command(resume={interrupt_id: {"decisions": decisions} for interrupt_id, decisions in named.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description="Delegate a task whose agent has to ask before it reads a file.")
    parser.add_argument("instructions", nargs="?", help="what to delegate")
    parser.add_argument("--thread", default="1", help="which conversation this is")
    parser.add_argument("--checkpoints", default="approval.sqlite3", help="where graphs wait")
    parser.add_argument("--approve", action="store_true", help="let the file be read")
    parser.add_argument("--reject", metavar="REASON", help="do not; the remote agent is told why")
    given = parser.parse_args()
    config: RunnableConfig = {"configurable": {"thread_id": given.thread}}
    with SqliteSaver.from_conn_string(given.checkpoints) as saver:
        graph = graph_with(saver)
        before = graph.get_state(config)
        if given.approve or given.reject is not None:
            if not before.interrupts:
                sys.exit(f"Nothing waits for a decision in thread {given.thread!r}. Next: give instructions.")
            decision = {"type": "approve"} if given.approve else {"type": "reject", "message": given.reject}
            graph.invoke(decided(before.interrupts, decision), config)
        elif before.next:
            # It asks again, or finishes what a dead process left.
            graph.invoke(None, config)
        elif given.instructions:
            graph.invoke(delegated(given.instructions), config)
        else:
            parser.error("give instructions")
        after = graph.get_state(config)
    for interrupt in after.interrupts:
        for action in interrupt.value["action_requests"]:
            print(f"{action['task_id']} wants {action['name']}({action['args']}). Next: --approve or --reject REASON")
    if not after.interrupts:
        print(after.values["messages"][-1].text)


if __name__ == "__main__":
    main()
