"""An agent of LangChain's delegates, and its own tools run for the remote agent."""

from __future__ import annotations

from typing import Annotated, Any

import anyio
import pytest
from langchain.agents import create_agent
from langchain.tools import InjectedState, InjectedStore, ToolRuntime
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore

from agentlin_bridge import Task, TaskStatus

from .conftest import NOTES, MakeTool
from .models import Delegating
from .remote import Remote

pytestmark = pytest.mark.anyio
QUESTION = {"messages": [HumanMessage("What do the notes say?")]}


class Calls:
    """A host tool, and how often it ran."""

    def __init__(self) -> None:
        self.paths: list[str] = []

        @tool
        def read_file(path: str) -> str:
            """Read a file of the host's."""
            self.paths.append(path)
            return NOTES

        self.tool = read_file


class Seen(BaseCallbackHandler):
    """The tools a callback handler of the host's saw start: name, call id and whether below another run."""

    def __init__(self) -> None:
        self.started: list[tuple[str, Any, bool]] = []

    def on_tool_start(self, serialized: dict[str, Any], input_str: str, **keywords: Any) -> None:
        has_parent = keywords.get("parent_run_id") is not None
        self.started.append((serialized["name"], keywords.get("tool_call_id"), has_parent))


def answers(state: dict[str, Any]) -> list[ToolMessage]:
    return [message for message in state["messages"] if isinstance(message, ToolMessage)]


async def test_an_agent_delegates_and_its_tool_is_run_once(task_tool: MakeTool) -> None:
    host, seen = Calls(), Seen()
    agent: Any = create_agent(Delegating(instructions=["Digest notes.md"]), [task_tool(host.tool)])
    with anyio.fail_after(30):
        state = await agent.ainvoke(QUESTION, {"callbacks": [seen]})
    (answer,) = answers(state)
    assert answer.status == "success"
    assert '"Tides"' in answer.text
    assert "2 sections" in answer.text
    assert isinstance(answer.artifact, Task)
    assert answer.artifact.status is TaskStatus.COMPLETED
    assert host.paths == ["notes.md"]
    (ours, theirs) = seen.started
    assert ours[:2] == ("agentlin_task", "host_0")
    (call,) = [item for item in answer.artifact.output if item.type == "tool_call"]
    assert theirs == ("read_file", getattr(call, "call_id", None), True)


def test_an_agent_without_an_event_loop(task_tool: MakeTool) -> None:
    host, seen = Calls(), Seen()
    agent: Any = create_agent(Delegating(instructions=["Digest notes.md"]), [task_tool(host.tool)])
    state = agent.invoke(QUESTION, {"callbacks": [seen]})
    assert "2 sections" in answers(state)[0].text
    assert host.paths == ["notes.md"]
    assert [name for name, *_ in seen.started] == ["agentlin_task", "read_file"]


async def test_several_delegations_in_one_turn(task_tool: MakeTool) -> None:
    host = Calls()
    instructions = [f"Digest part{number}.md" for number in range(3)]
    agent: Any = create_agent(Delegating(instructions=instructions), [task_tool(host.tool)])
    with anyio.fail_after(30):
        state = await agent.ainvoke(QUESTION)
    assert [f"part{number}.md" in answer.text for number, answer in enumerate(answers(state))] == [True] * 3
    assert sorted(host.paths) == ["part0.md", "part1.md", "part2.md"]


@pytest.mark.parametrize("is_async", [True, False])
async def test_what_a_graph_injects_reaches_the_host_tool(task_tool: MakeTool, remote: Remote, is_async: bool) -> None:
    @tool
    def look(
        x: int,
        runtime: ToolRuntime[Any, Any],
        state: Annotated[dict[str, Any], InjectedState],
        messages: Annotated[list[Any], InjectedState("messages")],
        store: Annotated[Any, InjectedStore()],
        missing: Annotated[str, InjectedState("nothing_of_that_name")] = "left out",
    ) -> str:
        """Look at what a graph gives its tools."""
        same = state["messages"] is messages is runtime.state["messages"]
        return f"{x} {runtime.tool_call_id} {messages[0].text} {same} {store is runtime.store} {missing}"

    remote.calls = [("look", '{"x": 3}')]
    agent: Any = create_agent(
        Delegating(instructions=["Look"]), [task_tool(look)], store=InMemoryStore(), checkpointer=InMemorySaver()
    )
    config = {"configurable": {"thread_id": "1"}}
    with anyio.fail_after(30):
        if is_async:
            state = await agent.ainvoke(QUESTION, config)
        else:
            state = agent.invoke(QUESTION, config)
    assert answers(state)[0].text == "3 call_0 What do the notes say? True True left out"
    assert set(remote.offered["look"]["parameters"]["properties"]) == {"x"}


async def test_a_tool_that_interrupts_is_an_error_for_the_remote(task_tool: MakeTool, remote: Remote) -> None:
    from langgraph.types import interrupt

    @tool
    def ask(question: str) -> str:
        """Ask the user."""
        return str(interrupt(question))

    remote.calls = [("ask", '{"question": "Really?"}')]
    agent: Any = create_agent(Delegating(instructions=["Ask"]), [task_tool(ask)], checkpointer=InMemorySaver())
    with anyio.fail_after(30):
        state = await agent.ainvoke(QUESTION, {"configurable": {"thread_id": "1"}})
    assert "__interrupt__" not in state
    assert "interrupt the host's graph, which a client tool cannot. Nobody was asked." in answers(state)[0].text


async def test_a_checkpointed_answer_can_be_read_again(task_tool: MakeTool) -> None:
    agent: Any = create_agent(
        Delegating(instructions=["Digest notes.md"]), [task_tool(Calls().tool)], checkpointer=InMemorySaver()
    )
    config = {"configurable": {"thread_id": "1"}}
    with anyio.fail_after(30):
        await agent.ainvoke(QUESTION, config)
    (answer,) = answers((await agent.aget_state(config)).values)
    assert "2 sections" in answer.text
    task = Task.model_validate(answer.artifact)
    assert (task.status, task.answer) == (TaskStatus.COMPLETED, answer.text)
