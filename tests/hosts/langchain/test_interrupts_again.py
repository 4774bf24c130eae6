"""An answer counts once, for the question it was given to, whoever else asks in the same graph task."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware, wrap_tool_call
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command, Send, interrupt

from agentlin_bridge import TaskBridge, TaskStatus
from tests.support.planned import Planned

from .conftest import MakeTool
from .models import Delegating
from .test_interrupts import ASK, CONFIG, QUESTION, Wiper, actions, agent_of, named, node_of, told

APPROVE = {"decisions": [{"type": "approve"}]}
TWICE = [[("call_1", "wipe", {"path": "a"})], [("call_2", "wipe", {"path": "b"})]]


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[Planned]:
    with Planned().serving() as remote:
        monkeypatch.setenv("AGENTLIN_BASE_URL", remote.base_url)
        yield remote


def tool_call(instructions: str, call_id: str = "host_1", name: str = "agentlin_task") -> Any:
    return {"type": "tool_call", "name": name, "id": call_id, "args": {"instructions": instructions}}


async def statuses() -> list[TaskStatus]:
    async with TaskBridge.from_env() as bridge:
        return [task.status async for task in bridge.list()]


@pytest.mark.anyio
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("by_id", [True, False])
async def test_run_again_without_an_answer_nothing_is_approved(
    task_tool: MakeTool, remote: Planned, tmp_path: Path, durability: Any, by_id: bool
) -> None:
    remote.plans["Clean"] = TWICE
    host = Wiper()
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "checkpoints.sqlite3")) as saver:
        agent = agent_of(task_tool(host.tool, interrupt_on={"wipe": True}), "Clean", saver=saver)

        async def run(given: Any) -> Any:
            return await agent.ainvoke(given, CONFIG, durability=durability)

        def answer(state: Any) -> Any:
            return Command(resume={state["__interrupt__"][0].id: APPROVE} if by_id else APPROVE)

        with anyio.fail_after(30):
            state = await run(answer(await run(QUESTION)))
            assert [action["args"] for action in actions(state)] == [{"path": "b"}]
            state = await run(None)
            assert [action["args"] for action in actions(state)] == [{"path": "b"}]
            assert host.wiped == ["a"]
            assert told(await run(answer(state))) == ["wiped a | wiped b"]
    assert host.wiped == ["a", "b"]
    assert remote.creates == ["Clean"]


def test_run_again_in_sync_code_and_in_a_subgraph(task_tool: MakeTool, remote: Planned, tmp_path: Path) -> None:
    remote.plans["Clean"] = TWICE
    for number, nested in enumerate((False, True)):
        host = Wiper()
        delegate = task_tool(host.tool, interrupt_on={"wipe": True})
        with SqliteSaver.from_conn_string(str(tmp_path / f"{number}.sqlite3")) as saver:
            compiled = agent_of(delegate, "Clean", saver=saver)
            if nested:
                graph = StateGraph(MessagesState)
                graph.add_node("agent", create_agent(Delegating(instructions=["Clean"]), [delegate]))
                graph.add_edge(START, "agent")
                compiled = graph.compile(checkpointer=saver)
            compiled.invoke(QUESTION, CONFIG)
            compiled.invoke(Command(resume=APPROVE), CONFIG)
            compiled.invoke(None, CONFIG)
            assert host.wiped == ["a"]
            compiled.invoke(Command(resume=APPROVE), CONFIG)
            assert host.wiped == ["a", "b"]


@pytest.mark.anyio
async def test_the_nodes_own_question_gets_its_own_answer(task_tool: MakeTool, remote: Planned) -> None:
    remote.plans["Clean"] = [[("call_1", "wipe", {"path": "a"})]]
    delegate = task_tool(Wiper().tool, interrupt_on={"wipe": True})
    got: list[Any] = []

    async def node(state: MessagesState, config: RunnableConfig) -> Any:
        answer = await delegate.ainvoke(tool_call("Clean"), config)
        got.append(interrupt("publish?"))
        return {"messages": [answer]}

    @wrap_tool_call
    async def release(request: Any, handler: Any) -> Any:
        result = await handler(request)
        got.append(interrupt("publish?"))
        return result

    graph = StateGraph(MessagesState)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    graphs: list[tuple[Any, Any]] = [
        (graph.compile(checkpointer=InMemorySaver()), {"messages": []}),
        (
            create_agent(
                Delegating(instructions=["Clean"]), [delegate], middleware=[release], checkpointer=InMemorySaver()
            ),
            QUESTION,
        ),
    ]
    for compiled, given in graphs:
        got.clear()
        with anyio.fail_after(30):
            state: Any = await compiled.ainvoke(given, CONFIG)
            (action,) = actions(state)
            state = await compiled.ainvoke(Command(resume=named(action, type="approve")), CONFIG)
            assert state["__interrupt__"][0].value == "publish?"
            await compiled.ainvoke(Command(resume="no"), CONFIG)
        assert got == ["no"]


@pytest.mark.anyio
async def test_a_review_of_the_delegation_is_none_of_what_it_does(task_tool: MakeTool, remote: Planned) -> None:
    remote.plans["Clean"] = [[("call_1", "wipe", {"path": "a"})]]
    host = Wiper()
    agent: Any = create_agent(
        Delegating(instructions=["Clean"]),
        [task_tool(host.tool, interrupt_on={"wipe": True})],
        middleware=[HumanInTheLoopMiddleware({"agentlin_task": True})],
        checkpointer=InMemorySaver(),
    )
    with anyio.fail_after(30):
        (delegation,) = actions(await agent.ainvoke(QUESTION, CONFIG))
        assert "task_id" not in delegation
        (wipe,) = actions(await agent.ainvoke(Command(resume=APPROVE), CONFIG))
        assert wipe["name"] == "wipe"
        (again,) = actions(await agent.ainvoke(None, CONFIG))
        assert (again["call_id"], host.wiped) == (wipe["call_id"], [])
        assert told(await agent.ainvoke(Command(resume=APPROVE), CONFIG)) == ["wiped a"]


def test_several_calls_in_one_task_of_the_graph(task_tool: MakeTool, remote: Planned) -> None:
    """By position, where it cannot be seen that others ask in the same task of the graph."""
    remote.plans = {name: [[("call_1", "wipe", {"path": name})]] for name in ("A", "B")}
    one_after_the_other: RunnableConfig = {**CONFIG, "max_concurrency": 1}
    for how in ("sent", "nested"):
        host = Wiper()
        tools = ToolNode([task_tool(host.tool, interrupt_on={"wipe": True})])
        graph = StateGraph(MessagesState)

        def node(state: MessagesState, config: RunnableConfig, tools: ToolNode = tools) -> Any:
            found = [tools.invoke({"messages": [AIMessage("", tool_calls=[tool_call(n, n)])]}, config) for n in "AB"]
            return {"messages": [message for each in found for message in each["messages"]]}

        if how == "sent":
            graph.add_node("tools", tools)
            graph.add_conditional_edges(START, lambda state: [Send("tools", state)], ["tools"])
        else:
            graph.add_node("node", node)
            graph.add_edge(START, "node")
        compiled = graph.compile(checkpointer=InMemorySaver())
        question: Any = {"messages": [AIMessage("", tool_calls=[tool_call("A", "A"), tool_call("B", "B")])]}
        compiled.invoke(question, one_after_the_other)
        compiled.invoke(Command(resume=APPROVE), one_after_the_other)
        state = compiled.invoke(None, one_after_the_other)
        assert host.wiped in ([], ["A"])
        while asked := actions(state):
            answer: Any = Command(resume=named(asked[0], type="approve"))
            state = compiled.invoke(answer, one_after_the_other)
        assert host.wiped == ["A", "B"]
    assert sorted(remote.creates) == ["A", "A", "B", "B"]


@pytest.mark.anyio
async def test_an_approval_is_none_of_a_later_attempts_call(task_tool: MakeTool, remote: Planned) -> None:
    for answer in ({"type": "approve", "call_id": "call_1"}, {"type": "approve"}, None):
        remote.plans["Clean"] = [[("call_1", "wipe", {"path": "a"})]]
        began = asyncio.Event()
        wiped: list[str] = []

        wipe = endless_wipe(began, wiped)
        graph, question = node_of(task_tool(wipe, interrupt_on={"wipe": True}), "Clean")
        config: RunnableConfig = {"configurable": {"thread_id": str(answer)}}
        with anyio.fail_after(30):
            (action,) = actions(await graph.ainvoke(question, config))
            resume = named(action, type="approve") if answer is None else answer
            running = asyncio.ensure_future(graph.ainvoke(Command(resume=resume), config))
            await began.wait()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            # The new attempt wants something else.
            remote.plans["Clean"] = [[("call_1", "wipe", {"path": "/etc"})]]
            (action,) = actions(await graph.ainvoke(None, config))
        assert action["args"] == {"path": "/etc"}
        assert wiped == ["a"]


def endless_wipe(began: asyncio.Event, wiped: list[str]) -> Any:
    @tool
    async def wipe(path: str) -> str:
        """Wipe a file."""
        wiped.append(path)
        began.set()
        await asyncio.Event().wait()
        return "never"

    return wipe


@pytest.mark.parametrize("is_timed", [True, False])
def test_what_runs_is_not_ended_by_a_question_beside_it(task_tool: MakeTool, remote: Planned, is_timed: bool) -> None:
    remote.plans["Clean"] = [[("call_1", "work", {"n": 1}), ("call_2", "work", {"n": 2})]]
    log: list[str] = []

    @tool
    async def work(n: int) -> str:
        """Work."""
        try:
            for _ in range(200):
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            log.append("killed")
            raise
        log.append("ended")
        return f"worked {n}"

    review = {"allowed_decisions": ["approve"], "when": lambda request: request.tool_call["args"]["n"] == 2}
    delegate = task_tool(work, interrupt_on={"work": review}, timeout=0.2 if is_timed else None)
    agent = agent_of(delegate, "Clean")
    state = asyncio.run(agent.ainvoke(QUESTION, CONFIG))
    assert [action["args"]["n"] for action in actions(state)] == [2]
    assert log == ["ended"]


@pytest.mark.anyio
async def test_a_delegation_inside_a_host_tool_cannot_ask(task_tool: MakeTool, remote: Planned) -> None:
    remote.plans = {"Outer": [[("call_1", "inner", {})]], "Inner": [[("call_1", "ask_user", {})]]}
    delegate = task_tool(ASK, name="inner_task")

    @tool
    async def inner(config: RunnableConfig) -> str:
        """Delegate further."""
        result = await delegate.ainvoke(tool_call("Inner", "inner_1", "inner_task"), config)
        return str(result.text)

    with anyio.fail_after(30):
        state = await agent_of(task_tool(inner), "Outer").ainvoke(QUESTION, CONFIG)
    (answer,) = told(state)
    assert "inner failed: ConfigurationError: A person may have to decide about ask_user" in answer
    assert remote.creates == ["Outer"]


@pytest.mark.anyio
async def test_a_task_that_expires_while_the_person_thinks_is_a_new_attempt(
    task_tool: MakeTool, remote: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "agentlin-bridge.toml"
    config.write_text("[limits]\ntask_deadline = 4.0\n", encoding="utf-8")
    monkeypatch.setenv("AGENTLIN_BRIDGE_CONFIG", str(config))
    remote.plans["Ask"] = [[("call_1", "ask_user", {})]]
    agent = agent_of(task_tool(ASK), "Ask")
    with anyio.fail_after(30):
        (first,) = actions(await agent.ainvoke(QUESTION, CONFIG))
        config.write_text("", encoding="utf-8")
        async with TaskBridge.from_env() as bridge:
            task = await bridge.retrieve(first["task_id"])
            while task.status is not TaskStatus.EXPIRED:
                await anyio.sleep(0.05)
                task = await bridge.retrieve(first["task_id"])
        state = await agent.ainvoke(Command(resume=named(first, type="respond", message="late")), CONFIG)
        (second,) = actions(state)
    assert second["task_id"] != first["task_id"]
    assert remote.creates == ["Ask", "Ask"]


@pytest.mark.anyio
async def test_a_position_is_one_of_what_was_shown(task_tool: MakeTool, remote: Planned) -> None:
    remote.plans["Clean"] = [[("call_1", "wipe", {"path": "precious"}), ("call_2", "wipe", {"path": "junk"})]]
    host = Wiper()
    agent = agent_of(task_tool(host.tool, interrupt_on={"wipe": True}), "Clean")
    with anyio.fail_after(30):
        first, _ = actions(await agent.ainvoke(QUESTION, CONFIG))
        async with TaskBridge.from_env() as bridge:
            await bridge.submit(first["task_id"], {"call_1": "left alone"})
        # Two were shown: one decision is for neither, two are for both.
        (action,) = actions(await agent.ainvoke(Command(resume=APPROVE), CONFIG))
        assert (action["call_id"], host.wiped) == ("call_2", [])
        state = await agent.ainvoke(Command(resume=APPROVE), CONFIG)
    assert told(state) == ["left alone | wiped junk"]


@pytest.mark.anyio
async def test_a_second_run_takes_over_from_one_that_is_being_cancelled(task_tool: MakeTool, remote: Planned) -> None:
    remote.plans["Go"] = [[("call_1", "work", {})]]
    began = asyncio.Event()
    runs: list[int] = []

    @tool
    async def work() -> str:
        """Work."""
        runs.append(len(runs))
        began.set()
        if len(runs) == 1:
            await asyncio.Event().wait()
        return "worked"

    graph, question = node_of(task_tool(work), "Go")
    with anyio.fail_after(30):
        running = asyncio.ensure_future(graph.ainvoke(question, CONFIG))
        await began.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        state = await graph.ainvoke(None, CONFIG)
    assert told(state) == ["worked"]
    assert sorted(await statuses()) == [TaskStatus.CANCELED, TaskStatus.COMPLETED]
    assert len(runs) == 2
