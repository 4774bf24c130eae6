"""What those who watch a host see of a delegated task: custom events, stream modes, traces."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self
from uuid import UUID

import anyio
import anyio.to_thread
import pytest
from anyio.from_thread import start_blocking_portal
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from agentlin_bridge.hosts.langchain import AgentlinTaskTool
from tests.support.streams import HEAD, Request, ended, frame, raw_remote

from .conftest import MakeTool
from .remote import Remote

pytestmark = pytest.mark.anyio

EVENT = "agentlin_task_progress"
CALL: Any = {"type": "tool_call", "name": "agentlin_task", "id": "host_1", "args": {"instructions": "Go"}}

both_ways = pytest.mark.parametrize("is_async", [True, False])


class Piecemeal:
    """A remote that writes its answer piece by piece, each but the first only when it is told to go on.

    Attributes:
        base_url: where it is.
        lines: the requests as they came.
    """

    def __init__(self) -> None:
        self.base_url = ""
        self.lines: list[str] = []
        self._gates = [anyio.Event(), anyio.Event()]

    async def _handle(self, request: Request) -> None:
        if request.line != "POST /v1/tasks":
            await request.answer({"detail": "not here"}, "404 Not Found")
            return
        send = request.stream.send
        task_id = request.body["task_id"]
        search = {"type": "tool_call", "id": "i", "call_id": "c", "name": "search", "arguments": ""}
        await send(HEAD + frame("task.working", task_id))
        await send(frame("task.text.delta", task_id, item_id="m", delta="Hel", agent_step=1))
        await self._gates[0].wait()
        await send(frame("task.text.delta", task_id, item_id="m", delta="lo", agent_step=1))
        await send(frame("task.output_item.added", task_id, item=search, agent_step=2))
        await self._gates[1].wait()
        await send(ended(task_id, "Hello"))

    def saw(self, progress: dict[str, Any]) -> None:
        """Go on with what comes after this."""
        if progress["text"] == "Hel":
            self._portal.call(self._gates[0].set)
        if progress["tool"] == "search":
            self._portal.call(self._gates[1].set)

    def hurry(self) -> None:
        """Wait for nobody."""
        for gate in self._gates:
            self._portal.call(gate.set)

    @contextmanager
    def serving(self) -> Iterator[Self]:
        with (
            start_blocking_portal() as self._portal,
            self._portal.wrap_async_context_manager(raw_remote(self._handle)) as raw,
        ):
            self.base_url, self.lines = raw.base_url, raw.lines
            try:
                yield self
            finally:
                self.hurry()


@pytest.fixture
def piecemeal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Piecemeal]:
    with Piecemeal().serving() as remote:
        monkeypatch.setenv("AGENTLIN_BASE_URL", remote.base_url)
        monkeypatch.setenv("AGENTLIN_BRIDGE_DIALECT", "documented")
        yield remote


class Watcher(BaseCallbackHandler):
    """Keeps the custom events and the tool runs it is told of."""

    def __init__(self, react: Callable[[dict[str, Any]], object] = lambda _: None) -> None:
        self.told: list[dict[str, Any]] = []
        self.told_below: set[UUID] = set()
        self.runs: dict[str, dict[str, Any]] = {}
        self._react = react

    def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **_: Any) -> None:
        assert name == EVENT
        self.told.append(data)
        self.told_below.add(run_id)
        self._react(data)

    def on_tool_start(self, serialized: dict[str, Any], input_str: str, **keywords: Any) -> None:
        self.runs[serialized["name"]] = keywords


class Clumsy(Watcher):
    """Raises at whatever it is told."""

    def __init__(self, raise_error: bool) -> None:
        super().__init__(self._fail)
        self.raise_error = raise_error

    def _fail(self, _: object) -> None:
        raise ValueError("clumsy")


async def invoked(delegate: AgentlinTaskTool, is_async: bool, **config: Any) -> ToolMessage:
    """The tool's message for a call: awaited in this loop, or called in a thread that has none."""
    given: Any = config
    with anyio.fail_after(30):
        if is_async:
            message = await delegate.ainvoke(CALL, given)
        else:
            message = await anyio.to_thread.run_sync(delegate.invoke, CALL, given)
    assert isinstance(message, ToolMessage)
    return message


def graph_of(delegate: AgentlinTaskTool) -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode([delegate]))
    graph.add_edge(START, "tools")
    return graph.compile()


async def streamed(
    graph: Any, modes: list[str], is_async: bool, react: Callable[[str, Any], object]
) -> list[tuple[str, Any]]:
    """What a graph streams for one delegation, by mode; `react` sees it as it comes."""
    question = {"messages": [AIMessage("", tool_calls=[CALL])]}
    seen: list[tuple[str, Any]] = []

    def take(mode: str, chunk: Any) -> None:
        seen.append((mode, chunk))
        react(mode, chunk)

    def in_thread() -> None:
        for mode, chunk in graph.stream(question, stream_mode=modes):
            take(mode, chunk)

    with anyio.fail_after(30):
        if is_async:
            async for mode, chunk in graph.astream(question, stream_mode=modes):
                take(mode, chunk)
        else:
            await anyio.to_thread.run_sync(in_thread)
    return seen


def shown(progress: dict[str, Any]) -> tuple[str, int | None, str | None, str]:
    return progress["status"], progress["step"], progress["tool"], progress["text"]


def assert_tells_the_whole(told: list[dict[str, Any]], task_id: str) -> None:
    """The remote waited for a watcher after each piece, so each was told while the task ran."""
    assert {progress["task_id"] for progress in told} == {task_id}
    pieces = [shown(progress) for progress in told]
    first, last = pieces.index(("working", 1, None, "Hel")), pieces.index(("working", 2, "search", "Hello"))
    assert first < last
    assert len(set(pieces)) == len(pieces)


@both_ways
async def test_a_callback_handler_is_told(task_tool: MakeTool, piecemeal: Piecemeal, is_async: bool) -> None:
    watcher = Watcher(piecemeal.saw)
    message = await invoked(task_tool(streaming=True), is_async, callbacks=[watcher])
    assert message.text == "Hello"
    assert_tells_the_whole(watcher.told, message.artifact.id)
    # What is told belongs to the run of the tool.
    assert watcher.told_below == {watcher.runs["agentlin_task"]["run_id"]}
    # It came by the stream; nothing was asked for it.
    assert piecemeal.lines == ["POST /v1/tasks"]


async def test_stream_events(task_tool: MakeTool, piecemeal: Piecemeal) -> None:
    events: list[Any] = []
    with anyio.fail_after(30):
        async for event in task_tool(streaming=True).astream_events(CALL, {"tags": ["mine"]}, version="v2"):
            events.append(event)
            if event["event"] == "on_custom_event":
                piecemeal.saw(dict(event["data"]))
    kinds = [event["event"] for event in events]
    assert (kinds[0], kinds[-1]) == ("on_tool_start", "on_tool_end")
    told = [event for event in events if event["event"] == "on_custom_event"]
    answer = events[-1]["data"]["output"]
    assert answer.text == "Hello"
    assert_tells_the_whole([event["data"] for event in told], answer.artifact.id)
    assert {event["name"] for event in told} == {EVENT}
    assert {event["run_id"] for event in told} == {events[0]["run_id"]}
    assert all("mine" in event["tags"] for event in told)


@both_ways
async def test_the_custom_stream_of_a_graph(task_tool: MakeTool, piecemeal: Piecemeal, is_async: bool) -> None:
    seen = await streamed(
        graph_of(task_tool(streaming=True)), ["custom"], is_async, lambda _, chunk: piecemeal.saw(chunk)
    )
    told = [chunk for _, chunk in seen]
    assert {chunk["type"] for chunk in told} == {EVENT}
    assert_tells_the_whole(told, told[0]["task_id"])


@both_ways
async def test_the_tools_stream_of_a_graph(task_tool: MakeTool, piecemeal: Piecemeal, is_async: bool) -> None:
    def react(mode: str, chunk: Any) -> None:
        if mode == "custom":
            piecemeal.saw(chunk)

    seen = await streamed(graph_of(task_tool(streaming=True)), ["tools", "custom"], is_async, react)
    of_tools = [chunk for mode, chunk in seen if mode == "tools"]
    assert {chunk["tool_call_id"] for chunk in of_tools} == {"host_1"}
    assert of_tools[0]["event"] == "tool-started"
    assert of_tools[0]["tool_name"] == "agentlin_task"
    assert [chunk["delta"] for chunk in of_tools if chunk["event"] == "tool-output-delta"] == ["Hel", "lo"]
    assert of_tools[-1]["event"] == "tool-finished"
    assert of_tools[-1]["output"].text == "Hello"


@both_ways
async def test_a_delta_comes_while_the_task_runs(task_tool: MakeTool, piecemeal: Piecemeal, is_async: bool) -> None:
    """Nothing but the delta itself lets the remote go on.

    With "tools" alone LangGraph hands out what an async graph streams only at the end of a step.
    """

    def react(mode: str, chunk: Any) -> None:
        if mode == "tools" and chunk["event"] == "tool-output-delta":
            piecemeal.hurry()

    seen = await streamed(graph_of(task_tool(streaming=True)), ["tools", "messages"], is_async, react)
    of_tools = [chunk for mode, chunk in seen if mode == "tools"]
    assert [chunk["event"] for chunk in of_tools][:2] == ["tool-started", "tool-output-delta"]
    assert of_tools[1]["delta"] == "Hel"
    assert of_tools[-1]["output"].text == "Hello"


@both_ways
@pytest.mark.parametrize("raises", [True, False])
async def test_a_watcher_that_fails_harms_nothing(
    task_tool: MakeTool, piecemeal: Piecemeal, caplog: pytest.LogCaptureFixture, is_async: bool, raises: bool
) -> None:
    clumsy = Clumsy(raise_error=raises)
    piecemeal.hurry()
    message = await invoked(task_tool(streaming=True), is_async, callbacks=[clumsy])
    assert (message.text, message.status) == ("Hello", "success")
    assert clumsy.told
    assert "clumsy" in caplog.text


@both_ways
async def test_a_stream_that_is_left_harms_nothing(task_tool: MakeTool, piecemeal: Piecemeal, is_async: bool) -> None:
    """A stream writer may raise too: it is the host's own."""
    graph = StateGraph(MessagesState)

    def broken(_: object) -> None:
        raise ValueError("nobody listens")

    def sync_node(request: Any, execute: Any) -> Any:
        piecemeal.hurry()
        request.runtime.stream_writer = broken
        return execute(request)

    async def async_node(request: Any, execute: Any) -> Any:
        piecemeal.hurry()
        request.runtime.stream_writer = broken
        return await execute(request)

    node = ToolNode([task_tool(streaming=True)], wrap_tool_call=sync_node, awrap_tool_call=async_node)
    graph.add_node("tools", node)
    graph.add_edge(START, "tools")
    seen = await streamed(graph.compile(), ["values"], is_async, lambda *_: None)
    assert seen[-1][1]["messages"][-1].text == "Hello"


class Looked(Remote):
    """Knows when it was looked at.

    Attributes:
        looked: set when a task was asked about.
    """

    def __init__(self) -> None:
        super().__init__()
        self.looked = threading.Event()

    async def _retrieve(self, request: HTTPRequest) -> Response:
        self.looked.set()
        return await super()._retrieve(request)

    @property
    def looks(self) -> set[str]:
        """The tasks that were asked about."""
        return {line.removeprefix("GET /tasks/") for line in self.requests if line.startswith("GET")}


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Looked]:
    with Looked().serving() as remote:
        monkeypatch.setenv("AGENTLIN_BASE_URL", remote.base_url)
        yield remote


@both_ways
async def test_nothing_is_asked_for_when_nobody_watches(task_tool: MakeTool, looked: Looked, is_async: bool) -> None:
    looked.hangs = True
    delegate, watcher = task_tool(), Watcher()
    messages: dict[str, ToolMessage] = {}

    async def delegated(name: str, **config: Any) -> None:
        messages[name] = await invoked(delegate, is_async, **config)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(delegated, "unwatched")
            await anyio.to_thread.run_sync(looked.hanging.wait)
            # All watched tasks are looked at in one go, the older ones first.
            group.start_soon(lambda: delegated("watched", callbacks=[watcher]))
            await anyio.to_thread.run_sync(looked.looked.wait)
            looked.release()
    assert looked.looks == {messages["watched"].artifact.id}
    assert {progress["task_id"] for progress in watcher.told} == looked.looks


@both_ways
@pytest.mark.parametrize("in_graph", [True, False])
async def test_the_run_of_a_host_tool_says_for_which_task_it_is(
    task_tool: MakeTool, remote: Remote, is_async: bool, in_graph: bool
) -> None:
    @tool
    def look(what: str) -> str:
        """Look at something."""
        return f"saw {what}"

    remote.calls = [("look", '{"what": "it"}')]
    watcher = Watcher()
    config = {"callbacks": [watcher], "tags": ["mine"], "metadata": {"shop": "7"}}
    if in_graph:
        graph, question = graph_of(task_tool(look)), {"messages": [AIMessage("", tool_calls=[CALL])]}
        with anyio.fail_after(30):
            if is_async:
                state = await graph.ainvoke(question, config)
            else:
                state = await anyio.to_thread.run_sync(graph.invoke, question, config)
        message = state["messages"][-1]
    else:
        message = await invoked(task_tool(look), is_async, **config)
    assert message.text == "saw it"
    ours, theirs = watcher.runs["agentlin_task"], watcher.runs["look"]
    assert theirs["parent_run_id"] == ours["run_id"]
    task_id = watcher.told[0]["task_id"]
    assert (
        theirs["metadata"].items() >= {"shop": "7", "agentlin_task_id": task_id, "agentlin_call_id": "call_0"}.items()
    )
    assert {"mine", "agentlin:client_tool"} <= set(theirs["tags"])
    assert "agentlin:client_tool" not in ours["tags"]
