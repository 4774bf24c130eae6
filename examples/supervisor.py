"""A supervisor delegates one task per file, several at once, and gathers the answers.

    pip install 'agentlin-bridge[langchain,server]' 'langgraph>=1.2,<1.3'
    python examples/supervisor.py [--batch] [--at-once N] [FILE ...]

A LangGraph graph fans out with `Send`; `--batch` does the same without a graph, by `abatch`. Without files: the
Markdown files of this repository. Runs without a key: the embedded server's demo agent answers, which only digests
text. For a real agent set AGENTLIN_BASE_URL and AGENTLIN_API_KEY.
"""

from __future__ import annotations

import argparse
import asyncio
import operator
from pathlib import Path
from typing import Annotated, TypedDict

from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from agentlin_bridge.hosts.langchain import AgentlinTaskTool

REPOSITORY = Path(__file__).parent.parent


class Work(TypedDict):
    """What the graph works on. Each worker adds its own answer; the graph keeps them in the order of the files."""

    files: list[str]
    answers: Annotated[list[ToolMessage], operator.add]
    report: str


class Assignment(TypedDict):
    """What one worker is sent."""

    file: str


def delegated(file: str) -> ToolCall:
    """The call that delegates a file. By its id a graph finds the task again if it runs the call again."""
    return ToolCall(type="tool_call", name="agentlin_task", id=file, args={"instructions": f"Digest `{file}`."})


def report_on(files: list[str], answers: list[ToolMessage]) -> str:
    """All answers, after a line that says how many files got one. A task that failed costs the others nothing."""
    done = sum(answer.status == "success" for answer in answers)
    parts = [f"=== {file}\n{answer.text}" for file, answer in zip(files, answers, strict=True)]
    return "\n\n".join([f"{done} of {len(files)} files have an answer.", *parts])


async def by_graph(delegate: AgentlinTaskTool, files: list[str], at_once: int) -> str:
    def assign(state: Work) -> list[Send]:
        return [Send("worker", Assignment(file=file)) for file in state["files"]]

    async def worker(state: Assignment, config: RunnableConfig) -> dict[str, list[ToolMessage]]:
        return {"answers": [await delegate.ainvoke(delegated(state["file"]), config)]}

    def gather(state: Work) -> dict[str, str]:
        return {"report": report_on(state["files"], state["answers"])}

    graph = StateGraph(Work)
    graph.add_node("worker", worker)
    graph.add_node("gather", gather)
    graph.add_conditional_edges(START, assign, ["worker"])
    graph.add_edge("worker", "gather")
    graph.add_edge("gather", END)
    state = await graph.compile().ainvoke(Work(files=files, answers=[], report=""), {"max_concurrency": at_once})
    return str(state["report"])


async def by_batch(delegate: AgentlinTaskTool, files: list[str], at_once: int) -> str:
    answers = await delegate.abatch([delegated(file) for file in files], {"max_concurrency": at_once})
    return report_on(files, answers)


def main() -> None:
    parser = argparse.ArgumentParser(description="Delegate one task per file and gather the answers.")
    parser.add_argument("files", nargs="*", type=Path, default=sorted(REPOSITORY.glob("*.md")))
    parser.add_argument("--batch", action="store_true", help="without a graph")
    parser.add_argument("--at-once", type=int, default=4, help="how many tasks run at the same time")
    given = parser.parse_args()
    # The remote agent may read these files and no others, whatever path it asks for.
    paths: dict[str, Path] = {str(path): path for path in given.files}

    def read_file(path: str) -> str:
        """Read one of the files the task names."""
        print(f"the agent reads {path}")
        return paths[path].read_text(encoding="utf-8")

    delegate = AgentlinTaskTool(client_tools=[read_file])
    supervise = by_batch if given.batch else by_graph
    print(asyncio.run(supervise(delegate, list(paths), given.at_once)))


if __name__ == "__main__":
    main()
