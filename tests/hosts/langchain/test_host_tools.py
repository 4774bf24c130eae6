"""The host's tools as client tools: what is offered, what reaches them, what goes back."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from typing import Annotated, Any

import anyio
import pytest
from langchain.tools import ToolRuntime
from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, InjectedToolArg, InjectedToolCallId, StructuredTool, Tool, tool
from langgraph.types import Command

from agentlin_bridge import ClientTool, InvalidRequestError, client_tool
from agentlin_bridge.hosts.langchain.host_tools import as_offered
from agentlin_bridge.task import ToolCallItem

from .conftest import MakeTool
from .remote import Remote

ran: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


@tool
def reveal(what: str, secret: Annotated[str, InjectedToolArg] = "the host's own") -> str:
    """Reveal something."""
    ran.append(secret)
    return f"{what}: {secret}"


def named(name: str) -> BaseTool:
    return Tool(name=name, description="Does nothing.", func=lambda text: text)


def test_names_are_made_to_fit() -> None:
    offered = as_offered([named("my tool/1"), named("ütf"), named("x" * 80)])
    assert [each.name for each in offered.values()] == ["my_tool_1", "_tf", "x" * 64]
    assert list(offered) == ["my tool/1", "ütf", "x" * 80]


def test_names_must_differ() -> None:
    with pytest.raises(InvalidRequestError, match="would be called 'a_b'; one of them is 'a/b'"):
        as_offered([named("a b"), named("a/b")])

    def a_b() -> str:
        return ""

    with pytest.raises(InvalidRequestError, match="would be called 'a_b'"):
        as_offered([named("a b"), a_b])


def test_a_tool_without_a_schema_is_refused() -> None:
    @tool
    def strange(value: threading.Event) -> str:
        """Take something no JSON can carry."""
        return ""

    with pytest.raises(InvalidRequestError, match="arguments of the tool 'strange' cannot be described"):
        as_offered([strange])


def test_injected_arguments_are_not_offered() -> None:
    (offered,) = as_offered([reveal]).values()
    assert offered.parameters["properties"] == {"what": {"type": "string"}}
    assert offered.parameters["additionalProperties"] is False


def test_injected_arguments_from_the_remote_are_refused(task_tool: MakeTool, remote: Remote) -> None:
    remote.calls = [("reveal", '{"what": "it", "secret": "EVIL"}'), ("reveal", '{"what": "it"}')]
    task_tool(reveal).invoke({"instructions": "Reveal"})
    assert remote.results["call_0"].startswith("ERROR: The arguments of reveal do not fit its schema")
    assert remote.results["call_1"] == "it: the host's own"
    assert ran == ["the host's own"]


def test_injected_arguments_never_get_through_an_open_schema(task_tool: MakeTool, remote: Remote) -> None:
    def show(what: str, secret: Annotated[str, InjectedToolArg] = "the host's own") -> str:
        return f"{what}: {secret}"

    schema = {
        "type": "object",
        "properties": {"what": {"type": "string"}},
        "required": ["what"],
        "additionalProperties": True,
    }
    open_tool = StructuredTool(name="show", description="Show.", args_schema=schema, func=show)
    remote.calls = [("show", '{"what": "it", "secret": "EVIL", "more": 1}')]
    task_tool(open_tool).invoke({"instructions": "Show"})
    assert remote.results == {"call_0": "it: the host's own"}


@pytest.mark.parametrize("arguments", ['{"what": ', '"what"', "[]", "{}", '{"what": 5}'])
def test_broken_arguments_go_back_as_errors(task_tool: MakeTool, remote: Remote, arguments: str) -> None:
    remote.calls = [("reveal", arguments)]
    task_tool(reveal).invoke({"instructions": "Reveal"})
    assert remote.results["call_0"].startswith("ERROR: The arguments of reveal ")
    assert ran == []


@pytest.mark.anyio
@pytest.mark.parametrize("is_async", [True, False])
async def test_what_goes_wrong_in_a_tool_goes_back_as_an_error(
    task_tool: MakeTool, remote: Remote, is_async: bool
) -> None:
    @tool
    def raises() -> str:
        """Raise."""
        raise ValueError("no such file")

    @tool
    def commands() -> Any:
        """Return a command for the graph."""
        return Command(update={"messages": []})

    @tool
    def fails(tool_call_id: Annotated[str, InjectedToolCallId]) -> ToolMessage:
        """Return a message of its own."""
        return ToolMessage(f"bad luck with {tool_call_id}", tool_call_id="another", status="error")

    remote.calls = [("raises", "{}"), ("commands", "{}"), ("fails", "{}")]
    delegate = task_tool(raises, commands, fails)
    with anyio.fail_after(30):
        if is_async:
            await delegate.ainvoke({"instructions": "Try"})
        else:
            delegate.invoke({"instructions": "Try"})
    assert remote.results == {
        "call_0": "ERROR: raises failed: ValueError: no such file",
        "call_1": "ERROR: commands ran, but returned a Command, which only the host's own graph can use.",
        "call_2": "ERROR: bad luck with call_2",
    }


current_user: ContextVar[str] = ContextVar("current_user", default="nobody")


@tool
def sync_tool(config: RunnableConfig) -> str:
    """Say where it runs."""
    where = "the caller's thread" if threading.current_thread() is threading.main_thread() else "another thread"
    return f"{current_user.get()} {config['tags']} {config['configurable']['shop']} on {where}"


@tool
async def async_tool(config: RunnableConfig) -> str:
    """Say where it runs."""
    where = "the caller's loop" if threading.current_thread() is threading.main_thread() else "another loop"
    return f"{current_user.get()} {config['tags']} {config['configurable']['shop']} on {where}"


@client_tool
async def plain_tool() -> str:
    where = "the caller's loop" if threading.current_thread() is threading.main_thread() else "another loop"
    return f"{current_user.get()} on {where}"


@pytest.mark.anyio
@pytest.mark.parametrize("is_async", [True, False])
async def test_tools_run_as_if_the_caller_ran_them(task_tool: MakeTool, remote: Remote, is_async: bool) -> None:
    current_user.set("anna")
    remote.calls = [("sync_tool", "{}"), ("async_tool", "{}"), ("plain_tool", "{}")]
    delegate = task_tool(sync_tool, async_tool, plain_tool)
    config: RunnableConfig = {"tags": ["mine"], "configurable": {"shop": "7"}}
    with anyio.fail_after(30):
        if is_async:
            await delegate.ainvoke({"instructions": "Say"}, config)
        else:
            delegate.invoke({"instructions": "Say"}, config)
    loop = "the caller's loop" if is_async else "another loop"
    assert remote.results == {
        "call_0": "anna ['agentlin:client_tool', 'mine'] 7 on another thread",
        "call_1": f"anna ['agentlin:client_tool', 'mine'] 7 on {loop}",
        "call_2": f"anna on {loop}",
    }


@pytest.mark.anyio
async def test_an_approval_is_asked_in_the_callers_loop(task_tool: MakeTool, remote: Remote) -> None:
    asked: list[tuple[str, object]] = []

    async def approve(call: ToolCallItem) -> bool:
        asked.append((call.call_id, asyncio.get_running_loop()))
        return False

    remote.calls = [("wipe", "{}")]
    wipe = ClientTool("wipe", "Wipe the disk.", handler=lambda: ran.append("wiped"), approval=approve)
    with anyio.fail_after(30):
        await task_tool(wipe).ainvoke({"instructions": "Wipe"})
    assert asked == [("call_0", asyncio.get_running_loop())]
    assert ran == []
    assert "was not approved" in remote.results["call_0"]


@pytest.mark.anyio
@pytest.mark.parametrize("is_async", [True, False])
async def test_a_tool_that_cancels_itself_is_an_error(task_tool: MakeTool, remote: Remote, is_async: bool) -> None:
    @tool
    async def gives_up() -> str:
        """Give up."""
        raise asyncio.CancelledError

    remote.calls = [("gives_up", "{}")]
    delegate = task_tool(gives_up)
    with anyio.fail_after(30):
        if is_async:
            await delegate.ainvoke({"instructions": "Try"})
        else:
            delegate.invoke({"instructions": "Try"})
    assert remote.results == {"call_0": "ERROR: gives_up failed: BridgeError: It was canceled on the host's side."}


def test_a_tool_that_needs_a_graph_fails_outside_of_one(task_tool: MakeTool, remote: Remote) -> None:
    @tool
    def look(runtime: ToolRuntime[Any, Any]) -> str:
        """Look at the graph."""
        return str(runtime.state)

    remote.calls = [("look", "{}")]
    task_tool(look).invoke({"instructions": "Look"})
    assert remote.results["call_0"].startswith("ERROR: ")
    assert "runtime" in remote.results["call_0"]


def test_a_single_argument_tool_of_the_old_kind(task_tool: MakeTool, remote: Remote) -> None:
    remote.calls = [("shout", '{"__arg1": "hello"}')]
    task_tool(Tool(name="shout", description="Shout.", func=str.upper)).invoke({"instructions": "Shout"})
    assert remote.results == {"call_0": "HELLO"}


def test_a_tool_may_delegate_in_its_turn_but_not_block_the_bridge(task_tool: MakeTool, remote: Remote) -> None:
    inner = task_tool(name="inner")

    @tool
    async def waits_for_itself() -> str:
        """Call sync code from the bridge's own loop."""
        return str(inner.invoke({"instructions": "Go on"}))

    remote.calls = [("waits_for_itself", "{}")]
    task_tool(waits_for_itself).invoke({"instructions": "Try"})
    assert "would wait for itself forever. Next: await the async form (ainvoke) there" in remote.results["call_0"]


def test_a_loop_that_is_gone_is_an_error(task_tool: MakeTool, remote: Remote) -> None:
    """The timeout of the call ended its loop; what the remote asks for after that cannot run there."""

    @tool
    async def late() -> str:
        """Come too late."""
        ran.append("late")
        return "late"

    remote.calls, remote.hangs = [("late", "{}")], True
    anyio.run(task_tool(late, timeout=0.2).ainvoke, {"instructions": "Wait"})
    remote.release()
    assert remote.answered.wait(10)
    assert remote.results["call_0"].endswith("The event loop that delegated the task is closed.")
    assert ran == []
