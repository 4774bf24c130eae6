"""A delegation survives what happens to the graph that made it: one remote task, and nothing run twice."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import RetryPolicy

from agentlin_bridge import TaskBridge, TaskStatus
from agentlin_bridge.hosts.langchain import AgentlinTaskTool
from agentlin_bridge.task import RemoteOutcome
from tests.hosts.langchain.remote import Remote
from tests.support.planned import Planned
from tests.support.processes import subprocess_environment

ROOT = Path(__file__).parents[2]
CONFIG: RunnableConfig = {"configurable": {"thread_id": "1"}}
CALL = {"type": "tool_call", "name": "agentlin_task", "id": "host_1", "args": {"instructions": "Go"}}


@pytest.fixture
def planned() -> Iterator[Planned]:
    with Planned().serving() as remote:
        yield remote


@pytest.fixture
def process(tmp_path: Path, planned: Planned) -> Callable[[str], Any]:
    """Runs the graph in a process until it says something, and kills it then."""
    settings = {
        "AGENTLIN_BASE_URL": planned.base_url,
        "AGENTLIN_BRIDGE_LEDGER": str(tmp_path / "ledger.sqlite3"),
        "GRAPH_DIRECTORY": str(tmp_path),
    }

    def run(answer: str) -> Any:
        command = [sys.executable, "-m", "tests.flow.graph_process", answer]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=subprocess_environment(**settings)) as it:
            assert it.stdout is not None
            said = it.stdout.readline()
            it.send_signal(signal.SIGKILL)
        return json.loads(said)

    return run


def runs_in(directory: Path) -> int:
    return len((directory / "runs.txt").read_text().splitlines())


def test_interrupted_killed_and_resumed_in_a_new_process(
    planned: Planned, process: Callable[[str], Any], tmp_path: Path
) -> None:
    planned.plans["Go"] = [[("call_1", "work", {})], [("call_2", "ask_user", {})], [("call_2", "ask_user", {})]]
    (first,) = process("start")["asked"]
    # Killed once more without an answer, the question is the same.
    assert process("again")["asked"] == [first]
    answer = {"type": "respond", "message": "one", "task_id": first["task_id"], "call_id": first["call_id"]}
    (second,) = process(json.dumps(answer))["asked"]
    assert (first["call_id"], second["call_id"]) == ("call_2", "call_2#2")
    answer = {"type": "respond", "message": "two", "task_id": second["task_id"], "call_id": second["call_id"]}
    assert process(json.dumps(answer)) == {"answer": "worked | one | two"}
    assert planned.creates == ["Go"]
    assert runs_in(tmp_path) == 1
    assert planned.results("Go") == [{"call_1": "worked"}, {"call_2": "one"}, {"call_2": "two"}]


def test_killed_while_a_host_tool_runs(planned: Planned, process: Callable[[str], Any], tmp_path: Path) -> None:
    planned.plans["Go"] = [[("call_1", "work", {"block": True})]]
    assert process("start") == {"blocked": True}
    (asked,) = process("again")["asked"]
    assert asked["description"].startswith("The process that ran work has ended; it may have done its work.")
    answer = {"type": "respond", "message": "it did", "task_id": asked["task_id"], "call_id": asked["call_id"]}
    assert process(json.dumps(answer)) == {"answer": "it did"}
    assert planned.creates == ["Go"]
    assert runs_in(tmp_path) == 1


# In one process -----------------------------------------------------------------------------------------


@pytest.fixture
def remote(embedded: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    with Remote().serving() as remote:
        monkeypatch.setenv("AGENTLIN_BASE_URL", remote.base_url)
        yield remote


@pytest.fixture
async def saver(tmp_path: Path) -> AsyncIterator[AsyncSqliteSaver]:
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "checkpoints.sqlite3")) as saver:
        yield saver


@contextmanager
def delegating(*client_tools: Any) -> Iterator[AgentlinTaskTool]:
    delegate = AgentlinTaskTool(client_tools=client_tools)
    try:
        yield delegate
    finally:
        delegate.close()


async def tasks() -> list[tuple[TaskStatus, RemoteOutcome | None]]:
    """Status and remote outcome of all tasks, oldest first."""
    async with TaskBridge.from_env() as bridge:
        found = [(task.status, task.remote) async for task in bridge.list()]
    return found[::-1]


def creates_and_cancels(remote: Remote) -> list[str]:
    """In the order they came."""
    posts = [request for request in remote.requests if request.startswith("POST")]
    return ["cancel" if request.endswith("/cancel") else "create" for request in posts]


@pytest.mark.anyio
@pytest.mark.parametrize("retries", [False, True])
async def test_a_failing_sibling(remote: Remote, saver: AsyncSqliteSaver, retries: bool) -> None:
    remote.hangs = True
    failures = iter([True])

    async def fails_once(state: MessagesState) -> dict[str, Any]:
        if next(failures, False):
            await anyio.to_thread.run_sync(remote.hanging.wait, 20)
            raise ValueError("sibling")
        return {}

    with delegating() as delegate, anyio.fail_after(30):
        graph = StateGraph(MessagesState)
        # The sibling fails for good, or is run again while the delegation goes on.
        policy = RetryPolicy(initial_interval=0.01, retry_on=ValueError) if retries else None
        graph.add_node("tools", ToolNode([delegate]))
        graph.add_node("sibling", fails_once, retry_policy=policy)
        graph.add_edge(START, "tools")
        graph.add_edge(START, "sibling")
        compiled = graph.compile(checkpointer=saver)
        question: Any = {"messages": [AIMessage("", tool_calls=[CALL])]}
        if retries:
            running = asyncio.ensure_future(compiled.ainvoke(question, CONFIG))
            await anyio.to_thread.run_sync(remote.hanging.wait, 20)
            remote.release()
            state = await running
            assert creates_and_cancels(remote) == ["create"]
        else:
            with pytest.raises(ValueError, match="sibling"):
                await compiled.ainvoke(question, CONFIG)
            state = await compiled.ainvoke(None, CONFIG)
            # The first was over before the second was there.
            assert creates_and_cancels(remote) == ["create", "cancel", "create"]
            assert [status for status, _ in await tasks()] == [TaskStatus.CANCELED, TaskStatus.COMPLETED]
    assert isinstance(state["messages"][-1], ToolMessage)
    assert state["messages"][-1].status == "success"


@pytest.mark.anyio
async def test_the_graph_is_cancelled_while_a_host_tool_runs(remote: Remote, saver: AsyncSqliteSaver) -> None:
    remote.calls = [("work", "{}")]
    began, ended = asyncio.Event(), asyncio.Event()
    runs: list[bool] = []

    @tool
    async def work() -> str:
        """Work."""
        runs.append(True)
        if len(runs) > 1:
            return "worked"
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError("nobody sets it")

    with delegating(work) as delegate, anyio.fail_after(30):
        graph = StateGraph(MessagesState)
        graph.add_node("tools", ToolNode([delegate]))
        graph.add_edge(START, "tools")
        compiled = graph.compile(checkpointer=saver)
        running = asyncio.ensure_future(compiled.ainvoke({"messages": [AIMessage("", tool_calls=[CALL])]}, CONFIG))
        await began.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await ended.wait()
        # Run again at once, it is a new attempt, once the first is over.
        state = await compiled.ainvoke(None, CONFIG)
    assert state["messages"][-1].text == "worked"
    assert await tasks() == [(TaskStatus.CANCELED, "stopped"), (TaskStatus.COMPLETED, None)]
    assert len(runs) == 2
