"""A graph of LangGraph's in a process of its own, to be killed: `python -m tests.flow.graph_process ANSWER`.

ANSWER is `start` for a new question, `again` to run what a dead process left, or a resume value in JSON. The
process prints the action requests it was interrupted with, or the answer; then it waits to be killed. A host
tool that is called with `{"block": true}` never returns.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command

from agentlin_bridge import ClientTool
from agentlin_bridge.hosts.langchain import AgentlinTaskTool

DIRECTORY = Path(os.environ["GRAPH_DIRECTORY"])
CONFIG: RunnableConfig = {"configurable": {"thread_id": "1"}}


def say(**told: object) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def work(block: bool = False) -> str:
    """Work on the host's side."""
    with (DIRECTORY / "runs.txt").open("a") as runs:
        runs.write("run\n")
    if block:
        say(blocked=True)
        threading.Event().wait()
    return "worked"


def main(answer: str) -> None:
    ask_user = ClientTool("ask_user", "Ask.")
    tool = AgentlinTaskTool(client_tools=[work, ask_user])
    graph = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode([tool]))
    graph.add_edge(START, "tools")
    graph.add_edge("tools", END)
    with SqliteSaver.from_conn_string(str(DIRECTORY / "checkpoints.sqlite3")) as saver:
        compiled = graph.compile(checkpointer=saver)
        given: Any = None
        if answer == "start":
            call = {"type": "tool_call", "name": "agentlin_task", "id": "host_1", "args": {"instructions": "Go"}}
            given = {"messages": [AIMessage("", tool_calls=[call])]}
        elif answer != "again":
            given = Command(resume=json.loads(answer))
        state: Any = compiled.invoke(given, CONFIG, durability="sync")
        asked = [action for each in state.get("__interrupt__", ()) for action in each.value["action_requests"]]
        say(asked=asked) if asked else say(answer=state["messages"][-1].text)
        threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1])
