"""What a person has to decide interrupts the graph, and each answer reaches its own question."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command

from agentlin_bridge import ClientTool, ConfigurationError, InvalidRequestError, TaskBridge
from agentlin_bridge.hosts.langchain import AgentlinTaskTool
from tests.support.planned import Planned

from .conftest import MakeTool
from .models import Delegating

pytestmark = pytest.mark.anyio

ASK = {"name": "ask_user", "description": "Ask.", "parameters": {"type": "object"}}
CONFIG: RunnableConfig = {"configurable": {"thread_id": "1"}}
QUESTION = {"messages": [HumanMessage("Go on")]}


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[Planned]:
    with Planned().serving() as remote:
        monkeypatch.setenv("AGENTLIN_BASE_URL", remote.base_url)
        yield remote


@pytest.fixture
async def saver(tmp_path: Path) -> AsyncIterator[AsyncSqliteSaver]:
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "checkpoints.sqlite3")) as saver:
        yield saver


class Wiper:
    """A dangerous tool, and what it did."""

    def __init__(self) -> None:
        self.wiped: list[str] = []

        @tool
        def wipe(path: str) -> str:
            """Wipe a file."""
            self.wiped.append(path)
            return f"wiped {path}"

        self.tool = wipe


def agent_of(delegate: AgentlinTaskTool, *instructions: str, saver: Any = None) -> Any:
    return create_agent(Delegating(instructions=list(instructions)), [delegate], checkpointer=saver or InMemorySaver())


def node_of(delegate: AgentlinTaskTool, *instructions: str, saver: Any = None) -> tuple[Any, dict[str, Any]]:
    """A graph with one `ToolNode` that runs all delegations in one task, and its input."""
    graph = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode([delegate]))
    graph.add_edge(START, "tools")
    graph.add_edge("tools", END)
    calls = [
        {"type": "tool_call", "name": "agentlin_task", "id": f"host_{number}", "args": {"instructions": each}}
        for number, each in enumerate(instructions)
    ]
    return graph.compile(checkpointer=saver or InMemorySaver()), {"messages": [AIMessage("", tool_calls=calls)]}


def told(state: Mapping[str, Any]) -> list[str]:
    return [message.text for message in state["messages"] if isinstance(message, ToolMessage)]


def actions(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The action requests of all interrupts."""
    return [action for each in state.get("__interrupt__", ()) for action in each.value["action_requests"]]


def named(action: Mapping[str, Any], **decision: Any) -> dict[str, Any]:
    return {**decision, "task_id": action["task_id"], "call_id": action["call_id"]}


# What can be decided ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decision", "said", "wiped"),
    [
        ({"type": "approve"}, "wiped a.txt", ["a.txt"]),
        (
            {"type": "edit", "edited_action": {"name": "wipe", "args": {"path": "b.txt"}}},
            '[The host ran wipe with other arguments: {"path": "b.txt"}]wiped b.txt',
            ["b.txt"],
        ),
        (
            {"type": "reject", "message": "keep it"},
            "ERROR: A person refused the call of wipe, and nothing was executed. The reason: keep it",
            [],
        ),
        (
            {"type": "reject"},
            "ERROR: A person refused the call of wipe, and nothing was executed. Do not call it like that again.",
            [],
        ),
        ({"type": "respond", "message": "was empty anyway"}, "was empty anyway", []),
    ],
)
@pytest.mark.parametrize("is_async", [True, False])
async def test_decisions(
    task_tool: MakeTool, remote: Planned, decision: dict[str, Any], said: str, wiped: list[str], is_async: bool
) -> None:
    remote.plans["Clean"] = [[("call_1", "wipe", {"path": "a.txt"})]]
    host = Wiper()
    agent = agent_of(task_tool(host.tool, interrupt_on={"wipe": True}), "Clean")
    with anyio.fail_after(30):
        state = await agent.ainvoke(QUESTION, CONFIG) if is_async else agent.invoke(QUESTION, CONFIG)
        (interrupt,) = state["__interrupt__"]
        (action,) = interrupt.value["action_requests"]
        assert (action["name"], action["args"], action["call_id"]) == ("wipe", {"path": "a.txt"}, "call_1")
        assert action["task_id"].startswith("task_")
        allowed = ["approve", "edit", "reject", "respond"]
        assert interrupt.value["review_configs"] == [{"action_name": "wipe", "allowed_decisions": allowed}]
        assert host.wiped == []
        # By position, as for LangChain's own middleware.
        answer: Any = Command(resume={"decisions": [decision]})
        state = await agent.ainvoke(answer, CONFIG) if is_async else agent.invoke(answer, CONFIG)
    assert told(state) == [said]
    assert host.wiped == wiped
    assert remote.creates == ["Clean"]


async def test_a_call_that_nothing_executes_can_be_answered_only(task_tool: MakeTool, remote: Planned) -> None:
    remote.plans["Ask"] = [[("call_1", "ask_user", {"question": "Which?"})]]
    agent = agent_of(task_tool(ASK), "Ask")
    with anyio.fail_after(30):
        state = await agent.ainvoke(QUESTION, CONFIG)
        (interrupt,) = state["__interrupt__"]
        assert interrupt.value["review_configs"][0]["allowed_decisions"] == ["reject", "respond"]
        state = await agent.ainvoke(Command(resume={"decisions": [{"type": "approve"}]}), CONFIG)
        (interrupt,) = state["__interrupt__"]
        assert interrupt.value["problem"] == "'approve' is no decision about call_1; use one of: reject, respond."
        state = await agent.ainvoke(Command(resume={"type": "respond", "message": "the red one"}), CONFIG)
    assert told(state) == ["the red one"]
    assert remote.creates == ["Ask"]


async def test_when_and_description(task_tool: MakeTool, remote: Planned) -> None:
    calls = [("call_1", "wipe", {"path": "/tmp/x"}), ("call_2", "wipe", {"path": "/etc/x"})]
    remote.plans["Clean"] = [calls]
    host = Wiper()
    seen: list[Any] = []

    def described(tool_call: Any, state: Any, runtime: Any) -> str:
        seen.append((state["messages"][0].text, runtime.tool_call_id))
        return f"Wipe {tool_call['args']['path']}?"

    review = {
        "allowed_decisions": ["approve", "reject"],
        "description": described,
        "when": lambda request: request.tool_call["args"]["path"].startswith("/etc"),
    }
    agent = agent_of(task_tool(host.tool, interrupt_on={"wipe": review}), "Clean")
    with anyio.fail_after(30):
        state = await agent.ainvoke(QUESTION, CONFIG)
        (action,) = actions(state)
        assert (action["call_id"], action["description"]) == ("call_2", "Wipe /etc/x?")
        assert seen == [("Go on", "host_0")]
        state = await agent.ainvoke(Command(resume={"decisions": [{"type": "reject"}]}), CONFIG)
    assert host.wiped == ["/tmp/x"]
    assert remote.creates == ["Clean"]


async def test_bad_answers_are_asked_for_again(task_tool: MakeTool, remote: Planned) -> None:
    remote.plans["Clean"] = [[("call_1", "wipe", {"path": "a"}), ("call_2", "wipe", {"path": "b"})]]
    host = Wiper()
    agent = agent_of(task_tool(host.tool, interrupt_on={"wipe": True}), "Clean")

    def edit(**action: Any) -> dict[str, Any]:
        return {"type": "edit", "call_id": "call_1", "edited_action": action}

    answers: list[tuple[Any, str]] = [
        ("yes", "There were 2 calls to decide on; the last answer had 0 decisions."),
        ({"decisions": [{"type": "approve"}]}, "There were 2 calls to decide on; the last answer had 1 decisions."),
        ({"type": "approve", "call_id": "call_9"}, "No decision names one of these calls."),
        ({"type": "respond", "call_id": "call_1"}, "The respond decision about call_1 needs a message, a text."),
        (edit(), "The edit decision about call_1 needs edited_action with name and args."),
        (edit(name="rm", args={}), "The edit decision about call_1 must keep the tool 'wipe'."),
        (edit(name="wipe", args={"path": 5}), "The arguments for 'call_1' do not fit the schema of wipe: ['path']:"),
    ]
    with anyio.fail_after(60):
        await agent.ainvoke(QUESTION, CONFIG)
        for answer, problem in answers:
            state = await agent.ainvoke(Command(resume=answer), CONFIG)
            (interrupt,) = state["__interrupt__"]
            assert interrupt.value["problem"].startswith(problem)
            assert host.wiped == []
        # One of the two, then the other.
        state = await agent.ainvoke(Command(resume={"type": "approve", "call_id": "call_2"}), CONFIG)
        (action,) = actions(state)
        assert (action["call_id"], host.wiped) == ("call_1", ["b"])
        state = await agent.ainvoke(Command(resume={"type": "approve"}), CONFIG)
    assert told(state) == ["wiped a | wiped b"]
    assert host.wiped == ["b", "a"]
    assert remote.creates == ["Clean"]


async def test_what_cannot_be_reviewed_is_refused_at_once(task_tool: MakeTool, remote: Planned) -> None:
    host = Wiper()
    for interrupt_on, said in [
        ({"wpie": True}, r"interrupt_on names 'wpie', which is no client tool here \(wipe, ask_user\)"),
        ({"wipe": {"allowed_decisions": []}}, r"interrupt_on for 'wipe' has the allowed_decisions \[\]"),
        ({"wipe": {"allow": ["approve"]}}, "interrupt_on for 'wipe' has the allowed_decisions None"),
        ({"ask_user": {"allowed_decisions": ["approve"]}}, "allows approve for 'ask_user', which nothing here"),
    ]:
        with pytest.raises(InvalidRequestError, match=said):
            task_tool(host.tool, ASK, interrupt_on=interrupt_on)
    # False asks nobody, and needs no checkpointer.
    remote.plans["Clean"] = [[("call_1", "wipe", {"path": "a"})]]
    with anyio.fail_after(30):
        assert await task_tool(host.tool, interrupt_on={"wipe": False}).ainvoke({"instructions": "Clean"}) == "wiped a"


async def test_a_graph_that_cannot_wait_is_told_before_anything_is_created(
    task_tool: MakeTool, remote: Planned
) -> None:
    delegate = task_tool(Wiper().tool, interrupt_on={"wipe": True})
    agent: Any = create_agent(Delegating(instructions=["Clean"]), [delegate])
    with pytest.raises(ConfigurationError, match="A person may have to decide about wipe"):
        await agent.ainvoke(QUESTION)

    async def node(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        return {"messages": [await delegate.ainvoke({"instructions": "Clean"}, config)]}

    plain = StateGraph(MessagesState)
    plain.add_node("node", node)
    plain.add_edge(START, "node")
    with pytest.raises(ConfigurationError, match="call the tool with a ToolCall"):
        await plain.compile(checkpointer=InMemorySaver()).ainvoke({"messages": []}, CONFIG)
    assert remote.posts == []


# Each answer to its own question ------------------------------------------------------------------------


async def test_two_rounds_of_one_delegation(task_tool: MakeTool, remote: Planned, saver: AsyncSqliteSaver) -> None:
    # The remote uses its call id again.
    remote.plans["Ask"] = [[("call_1", "ask_user", {"n": 1})], [("call_1", "ask_user", {"n": 2})]]
    agent = agent_of(task_tool(ASK), "Ask", saver=saver)
    with anyio.fail_after(30):
        state = await agent.ainvoke(QUESTION, CONFIG)
        (first,) = actions(state)
        state = await agent.ainvoke(Command(resume=named(first, type="respond", message="one")), CONFIG)
        (second,) = actions(state)
        assert (first["call_id"], second["call_id"]) == ("call_1", "call_1#2")
        assert second["args"] == {"n": 2}
        state = await agent.ainvoke(Command(resume=named(second, type="respond", message="two")), CONFIG)
    assert told(state) == ["one | two"]
    assert remote.creates == ["Ask"]
    assert remote.results("Ask") == [{"call_1": "one"}, {"call_1": "two"}]


async def test_two_rounds_answered_by_position(task_tool: MakeTool, remote: Planned) -> None:
    remote.plans["Ask"] = [[("call_1", "ask_user", {})], [("call_2", "ask_user", {})]]
    agent = agent_of(task_tool(ASK), "Ask")
    with anyio.fail_after(30):
        await agent.ainvoke(QUESTION, CONFIG)
        state = await agent.ainvoke(Command(resume={"type": "respond", "message": "one"}), CONFIG)
        # The answer to the first question is none to the second.
        assert [action["call_id"] for action in actions(state)] == ["call_2"]
        state = await agent.ainvoke(Command(resume={"type": "respond", "message": "two"}), CONFIG)
    assert told(state) == ["one | two"]
    assert remote.results("Ask") == [{"call_1": "one"}, {"call_2": "two"}]


async def test_parallel_delegations_of_an_agent(task_tool: MakeTool, remote: Planned) -> None:
    remote.plans = {name: [[("call_1", "ask_user", {"of": name})]] for name in ("A", "B")}
    agent = agent_of(task_tool(ASK), "A", "B")
    with anyio.fail_after(30):
        state = await agent.ainvoke(QUESTION, CONFIG)
        resume = {
            each.id: {"decisions": [{"type": "respond", "message": each.value["action_requests"][0]["args"]["of"]}]}
            for each in state["__interrupt__"]
        }
        assert len(resume) == 2
        state = await agent.ainvoke(Command(resume=resume), CONFIG)
    assert told(state) == ["A", "B"]
    assert sorted(remote.creates) == ["A", "B"]


@pytest.mark.parametrize("is_async", [True, False])
async def test_two_delegations_in_one_node_with_crossed_answers(
    task_tool: MakeTool, remote: Planned, saver: AsyncSqliteSaver, is_async: bool
) -> None:
    remote.plans = {name: [[("call_1", "ask_user", {"of": name})]] for name in ("A", "B")}
    graph, question = node_of(task_tool(ASK), "A", "B", saver=saver if is_async else None)
    with anyio.fail_after(60):
        state = await graph.ainvoke(question, CONFIG) if is_async else graph.invoke(question, CONFIG)
        asked = {action["args"]["of"]: action for action in actions(state)}
        assert sorted(asked) == ["A", "B"]
        # Positions say nothing here, nor does an id that both use.
        for unclear in (
            {"decisions": [{"type": "respond", "message": "?"}] * 2},
            {"decisions": [{"type": "respond", "message": "?", "call_id": "call_1"}]},
        ):
            again: Any = Command(resume=unclear)
            state = await graph.ainvoke(again, CONFIG) if is_async else graph.invoke(again, CONFIG)
            assert {action["args"]["of"] for action in actions(state)} == {"A", "B"}
        crossed = [named(asked[name], type="respond", message=f"for {name}") for name in ("B", "A")]
        answer: Any = Command(resume={"decisions": crossed})
        state = await graph.ainvoke(answer, CONFIG) if is_async else graph.invoke(answer, CONFIG)
    assert told(state) == ["for A", "for B"]
    assert sorted(remote.creates) == ["A", "B"]
    assert (remote.results("A"), remote.results("B")) == ([{"call_1": "for A"}], [{"call_1": "for B"}])


async def test_one_of_two_in_a_node_answered_first(task_tool: MakeTool, remote: Planned) -> None:
    remote.plans = {
        "A": [[("call_a", "ask_user", {"of": "A"})]],
        "B": [[("call_b", "wipe", {"path": "b"})], [("call_c", "ask_user", {"of": "B"})]],
    }
    host = Wiper()
    graph, question = node_of(task_tool(ASK, host.tool), "A", "B")
    with anyio.fail_after(60):
        state = await graph.ainvoke(question, CONFIG)
        assert sorted(action["call_id"] for action in actions(state)) == ["call_a", "call_c"]
        # Its id is nobody else's.
        state = await graph.ainvoke(Command(resume={"type": "respond", "message": "b", "call_id": "call_c"}), CONFIG)
        assert [action["call_id"] for action in actions(state)] == ["call_a"]
        state = await graph.ainvoke(Command(resume={"type": "respond", "message": "a", "call_id": "call_a"}), CONFIG)
    assert told(state) == ["a", "wiped b | b"]
    assert host.wiped == ["b"]
    assert sorted(remote.creates) == ["A", "B"]


async def test_two_delegations_one_after_the_other_in_one_node(task_tool: MakeTool, remote: Planned) -> None:
    remote.plans = {name: [[("call_1", "ask_user", {"of": name})]] for name in ("A", "B")}
    delegate = task_tool(ASK)

    async def node(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
        messages = [
            await delegate.ainvoke(
                {"type": "tool_call", "name": "agentlin_task", "id": name, "args": {"instructions": name}}, config
            )
            for name in ("A", "B")
        ]
        return {"messages": messages}

    graph = StateGraph(MessagesState)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    compiled = graph.compile(checkpointer=InMemorySaver())
    with anyio.fail_after(30):
        state: Any = await compiled.ainvoke({"messages": []}, CONFIG)
        for name in ("A", "B"):
            (action,) = actions(state)
            assert action["args"] == {"of": name}
            # Which of the node's calls a position is for cannot be told.
            state = await compiled.ainvoke(Command(resume={"type": "respond", "message": "?"}), CONFIG)
            (action,) = actions(state)
            answer = named(action, type="respond", message=f"for {name}")
            state = await compiled.ainvoke(Command(resume=answer), CONFIG)
    assert told(state) == ["for A", "for B"]
    assert remote.creates == ["A", "B"]


# Runs again ---------------------------------------------------------------------------------------------


async def test_time_travel_to_before_the_call_is_a_new_task(task_tool: MakeTool, remote: Planned) -> None:
    remote.plans["Ask"] = [[("call_1", "ask_user", {})]]
    agent = agent_of(task_tool(ASK), "Ask")
    with anyio.fail_after(30):
        state = await agent.ainvoke(QUESTION, CONFIG)
        (first,) = actions(state)
        await agent.ainvoke(Command(resume=named(first, type="respond", message="one")), CONFIG)
        history = [snapshot async for snapshot in agent.aget_state_history(CONFIG)]
        before = [snapshot for snapshot in history if snapshot.next == ("model",)][-1]
        state = await agent.ainvoke(None, before.config)
        (second,) = actions(state)
        assert second["task_id"] != first["task_id"]
        # The old answer is none to the new question.
        state = await agent.ainvoke(Command(resume=named(second, type="respond", message="two")), CONFIG)
    assert told(state) == ["two"]
    assert remote.creates == ["Ask", "Ask"]


async def test_a_task_that_was_canceled_meanwhile_is_a_new_attempt(task_tool: MakeTool, remote: Planned) -> None:
    remote.plans["Ask"] = [[("call_1", "ask_user", {})]]
    agent = agent_of(task_tool(ASK), "Ask")
    with anyio.fail_after(30):
        (first,) = actions(await agent.ainvoke(QUESTION, CONFIG))
        async with TaskBridge.from_env() as bridge:
            await bridge.delete(first["task_id"])
        state = await agent.ainvoke(Command(resume=named(first, type="respond", message="one")), CONFIG)
        (second,) = actions(state)
        async with TaskBridge.from_env() as bridge:
            await bridge.cancel(second["task_id"])
        state = await agent.ainvoke(Command(resume=named(second, type="respond", message="two")), CONFIG)
        (third,) = actions(state)
        state = await agent.ainvoke(Command(resume=named(third, type="respond", message="three")), CONFIG)
    assert told(state) == ["three"]
    assert len({first["task_id"], second["task_id"], third["task_id"]}) == 3
    assert remote.creates == ["Ask"] * 3


async def test_a_graph_goes_on_though_its_tools_are_described_otherwise(
    task_tool: MakeTool, remote: Planned, saver: AsyncSqliteSaver
) -> None:
    remote.plans["Ask"] = [[("call_1", "ask_user", {})]]
    with anyio.fail_after(30):
        (action,) = actions(await agent_of(task_tool(ASK), "Ask", saver=saver).ainvoke(QUESTION, CONFIG))
        later = agent_of(task_tool({**ASK, "description": "Ask the user."}), "Ask", saver=saver)
        state = await later.ainvoke(Command(resume=named(action, type="respond", message="yes")), CONFIG)
    assert told(state) == ["yes"]
    assert remote.creates == ["Ask"]


async def test_what_a_dead_process_left_is_asked_about(task_tool: MakeTool, remote: Planned) -> None:
    """A call that had been started and whose outcome nobody knows is the person's to report."""
    remote.plans["Ask"] = [[("call_1", "ask_user", {})]]
    agent = agent_of(task_tool(ClientTool("ask_user", approval="required", handler=lambda: "ran")), "Ask")
    with anyio.fail_after(30):
        (action,) = actions(await agent.ainvoke(QUESTION, CONFIG))
        assert "wants ask_user to be run here" in action["description"]
        state = await agent.ainvoke(Command(resume=named(action, type="approve")), CONFIG)
    assert told(state) == ["ran"]
