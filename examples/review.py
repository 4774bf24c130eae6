"""A reviewer checks what an agent answered, and delegates again with better instructions until it passes.

    pip install 'agentlin-bridge[langchain,server]' 'langgraph>=1.2,<1.3'
    python examples/review.py [--attempts N] [FILE ...]

The check is a real one: the answer has to mention every column of a CSV file and every heading of a Markdown file.
The first instructions do not even name the files, so the first answer fails it; what is missing goes into the next
instructions. Runs without a key: the embedded server's demo agent answers, which only digests text. For a real agent
set AGENTLIN_BASE_URL and AGENTLIN_API_KEY.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from pathlib import Path
from typing import Any, Literal, TypedDict

from langchain_core.messages import ToolCall
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph
from langgraph.types import Command

from agentlin_bridge.hosts.langchain import AgentlinTaskTool

TASK = "Describe each of my files."


class Work(TypedDict):
    """What the graph works on."""

    instructions: str
    attempt: int
    answer: str
    missing: dict[str, list[str]]


def parts_of(path: Path) -> list[str]:
    """What an answer about a file has to mention: its columns or its headings."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        return next(csv.reader(text.splitlines()), [])
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [line.strip("# ") for line in prose.splitlines() if line.startswith(("# ", "## "))]


def corrected(missing: dict[str, list[str]], paths: dict[str, Path]) -> str:
    """The task once more, with what the last answer lacked."""
    lacked = [f"- `{name}`, with {'; '.join(parts)}" for name, parts in missing.items()]
    files = ", ".join(f"`{name}`" for name in paths)
    return f"{TASK} They are {files}: read them all.\nAn earlier answer did not mention:\n" + "\n".join(lacked)


def main() -> None:
    parser = argparse.ArgumentParser(description="Delegate until the answer passes review.")
    parser.add_argument("files", nargs="*", type=Path, default=[Path(__file__).parent / "host_walkthrough.md"])
    parser.add_argument("--attempts", type=int, default=3, help="how often to delegate at most")
    given = parser.parse_args()
    # The remote agent may read these files and no others, whatever path it asks for.
    paths: dict[str, Path] = {path.name: path for path in given.files}

    def read_file(path: str) -> str:
        """Read one of the user's files."""
        return paths[path].read_text(encoding="utf-8")

    delegate = AgentlinTaskTool(client_tools=[read_file])

    def worker(state: Work, config: RunnableConfig) -> dict[str, Any]:
        attempt = state["attempt"] + 1
        arguments = {"instructions": state["instructions"]}
        call = ToolCall(type="tool_call", name=delegate.name, id=f"attempt_{attempt}", args=arguments)
        return {"attempt": attempt, "answer": delegate.invoke(call, config).text}

    def reviewer(state: Work) -> Command[Literal["worker", "__end__"]]:
        found = {name: [part for part in parts_of(path) if part not in state["answer"]] for name, path in paths.items()}
        missing = {name: parts for name, parts in found.items() if parts}
        print(f"attempt {state['attempt']}: {sum(map(len, missing.values()))} things are not mentioned")
        if not missing or state["attempt"] >= given.attempts:
            return Command(goto="__end__", update={"missing": missing})
        return Command(goto="worker", update={"missing": missing, "instructions": corrected(missing, paths)})

    graph = StateGraph(Work)
    graph.add_node("worker", worker)
    graph.add_node("reviewer", reviewer)
    graph.add_edge(START, "worker")
    graph.add_edge("worker", "reviewer")
    state = graph.compile().invoke(Work(instructions=TASK, attempt=0, answer="", missing={}))
    print(f"\n{state['answer']}")
    if state["missing"]:
        sys.exit(f"The answer did not pass review after {state['attempt']} attempts. Not mentioned: {state['missing']}")


if __name__ == "__main__":
    main()
