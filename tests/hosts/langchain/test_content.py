"""Content between LangChain's blocks and Agentlin's items: results of host tools, answers of the remote agent."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command

from agentlin_bridge import Task
from agentlin_bridge.hosts.langchain.content import result_of
from tests.support.remote import Json, Turn

from .conftest import MakeTool
from .remote import Remote


def items_of(*blocks: Any) -> list[dict[str, Any]]:
    message = ToolMessage(list(blocks), tool_call_id="call_1")
    return [item.model_dump(exclude_none=True) for item in result_of("tool", message).content]


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


@pytest.mark.parametrize(
    ("block", "item"),
    [
        ("plain", text("plain")),
        ({"type": "text", "text": "hello"}, text("hello")),
        ({"type": "text-plain", "text": "a file's text", "mime_type": "text/plain"}, text("a file's text")),
        (
            {"type": "text-plain", "url": "https://a.example/b.txt", "mime_type": "text/plain"},
            {"type": "file", "file": {"file_url": "https://a.example/b.txt"}},
        ),
        (
            {"type": "image", "url": "https://a.example/b.png"},
            {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}},
        ),
        (
            {"type": "image", "base64": "QUJD", "mime_type": "image/jpeg"},
            {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,QUJD"}},
        ),
        (
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
        ),
        ({"type": "image", "file_id": "f_1"}, text('{"type": "image", "file_id": "f_1"}')),
        (
            {"type": "audio", "base64": "QUJD", "mime_type": "audio/mpeg"},
            {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "mp3"}},
        ),
        (
            {"type": "audio", "base64": "QUJD", "mime_type": "audio/wav"},
            {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
        ),
        (
            {"type": "audio", "url": "https://a.example/b.mp3"},
            {"type": "file", "file": {"file_url": "https://a.example/b.mp3"}},
        ),
        (
            {"type": "file", "base64": "QUJD", "mime_type": "application/pdf", "extras": {"filename": "b.pdf"}},
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,QUJD", "filename": "b.pdf"}},
        ),
        (
            {"type": "video", "url": "https://a.example/b.mp4", "filename": "b.mp4"},
            {"type": "file", "file": {"file_url": "https://a.example/b.mp4", "filename": "b.mp4"}},
        ),
        ({"type": "file", "file_id": "f_1"}, text('{"type": "file", "file_id": "f_1"}')),
        ({"type": "search_result", "title": "é"}, text('{"type": "search_result", "title": "é"}')),
        ({"type": "json", "json": {"a": 1}}, text('{"type": "json", "json": {"a": 1}}')),
    ],
)
def test_each_kind_of_block(block: Any, item: dict[str, Any]) -> None:
    assert items_of(block) == [item]


def test_order_is_kept() -> None:
    assert [item["type"] for item in items_of("a", {"type": "image", "url": "https://a.example"}, "b")] == [
        "text",
        "image_url",
        "text",
    ]


def test_nothing_is_an_empty_result() -> None:
    result = result_of("tool", ToolMessage("", tool_call_id="call_1"))
    assert result.content == []
    assert not result.is_error


# What the remote agent answers ---------------------------------------------------------------------------

CALL: Any = {"type": "tool_call", "name": "agentlin_task", "id": "host_1", "args": {"instructions": "Show"}}
PLAIN: Any = {"instructions": "Show"}

SHOWN: list[tuple[Json, Json]] = [
    (text("Here they are:"), text("Here they are:")),
    (
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
        {"type": "image", "base64": "QUJD", "mime_type": "image/png"},
    ),
    (
        {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}},
        {"type": "image", "url": "https://a.example/b.png"},
    ),
    (
        {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "mp3"}},
        {"type": "audio", "base64": "QUJD", "mime_type": "audio/mpeg"},
    ),
    (
        {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
        {"type": "audio", "base64": "QUJD", "mime_type": "audio/wav"},
    ),
    (
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,QUJD", "filename": "b.pdf"}},
        {"type": "file", "base64": "QUJD", "mime_type": "application/pdf", "extras": {"filename": "b.pdf"}},
    ),
    (
        {"type": "file", "file": {"file_url": "https://a.example/b.csv"}},
        {"type": "file", "url": "https://a.example/b.csv"},
    ),
]
"""Agentlin's items, and the blocks they become."""
ITEMS = [item for item, _ in SHOWN]
BLOCKS = [block for _, block in SHOWN]


def said(*content: Json) -> Turn:
    return Turn([{"type": "message", "role": "assistant", "message_content": list(content)}])


def graph_with(*tools: Any) -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "tools")
    return graph.compile()


def untyped(block: Any) -> Json:
    return {name: value for name, value in dict(block).items() if name != "type"}


both_ways = pytest.mark.parametrize("is_async", [True, False])


@pytest.mark.anyio
@both_ways
async def test_an_answer_for_a_tool_call(task_tool: MakeTool, remote: Remote, is_async: bool) -> None:
    remote.ending = said(*ITEMS)
    delegate = task_tool()
    with anyio.fail_after(30):
        message = await delegate.ainvoke(CALL) if is_async else delegate.invoke(CALL)
    assert isinstance(message, ToolMessage)
    assert (message.tool_call_id, message.name, message.status) == ("host_1", "agentlin_task", "success")
    assert message.content == BLOCKS
    assert message.content_blocks == BLOCKS
    assert isinstance(message.artifact, Task)
    assert message.artifact.answer == "Here they are:"


@pytest.mark.anyio
@both_ways
async def test_an_answer_for_plain_arguments(task_tool: MakeTool, remote: Remote, is_async: bool) -> None:
    remote.ending = said(*ITEMS)
    delegate = task_tool()
    with anyio.fail_after(30):
        assert (await delegate.ainvoke(PLAIN) if is_async else delegate.invoke(PLAIN)) == BLOCKS


@pytest.mark.anyio
@both_ways
async def test_an_answer_in_a_graph(task_tool: MakeTool, remote: Remote, is_async: bool) -> None:
    remote.ending = said(*ITEMS)
    graph, question = graph_with(task_tool()), {"messages": [AIMessage("", tool_calls=[CALL])]}
    with anyio.fail_after(30):
        state = await graph.ainvoke(question) if is_async else graph.invoke(question)
    message = state["messages"][-1]
    assert isinstance(message, ToolMessage)
    # A ToolNode writes all content as one JSON text if there is a block of type audio, so that may be a file there.
    assert [untyped(block) for block in message.content] == [untyped(block) for block in BLOCKS]
    assert {block["type"] for block in message.content if isinstance(block, dict)} <= {"text", "image", "audio", "file"}
    assert isinstance(message.artifact, Task)


def test_an_answer_of_a_kind_nobody_knows(task_tool: MakeTool, remote: Remote) -> None:
    hologram = {"type": "hologram", "depth": 3}
    remote.ending = said(text("Look:"), hologram)
    assert task_tool().invoke(PLAIN) == [text("Look:"), {"type": "non_standard", "value": hologram}]


def test_only_the_final_message_counts(task_tool: MakeTool, remote: Remote) -> None:
    first, last = said(*ITEMS).output, said(text("So much for that.")).output
    remote.ending = Turn([*first, *last])
    assert task_tool().invoke(PLAIN) == "So much for that."


def image_of(characters: int) -> Json:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{'A' * characters}"}}


def test_media_are_bounded(task_tool: MakeTool, remote: Remote) -> None:
    remote.ending = said(image_of(6_000_000), text("and"), image_of(4_000_000))
    message = task_tool().invoke(CALL)
    first, between, second = message.content
    assert len(first["base64"]) == 6_000_000
    assert between == text("and")
    assert second == text("[left out: content of type 'image', too large to show; the artifact has it]")
    assert len(message.artifact.output[-1].message_content[2].image_url.url) > 4_000_000


def test_text_beside_media_is_bounded(task_tool: MakeTool, remote: Remote) -> None:
    remote.ending = said(image_of(3), text("x" * 150_000))
    _, shown = task_tool().invoke(PLAIN)
    assert len(shown["text"]) < 101_000
    assert shown["text"].endswith("[cut: the answer has 150,000 characters; the artifact has all of it]")


def test_many_texts_beside_media_are_bounded_together(task_tool: MakeTool, remote: Remote) -> None:
    remote.ending = said(image_of(3), *(text(f"{number}{'x' * 90_000}") for number in range(4)))
    shown = task_tool().invoke(PLAIN)
    assert shown[1]["text"].startswith("0xxx")
    assert sum(len(block.get("text", "")) for block in shown) < 101_000


def test_a_long_reason_to_fail_is_bounded(task_tool: MakeTool, remote: Remote) -> None:
    remote.ending = Turn(status="failed", error={"code": -32000, "message": "x" * 1_000_000})
    message = task_tool().invoke(CALL)
    assert message.status == "error"
    assert len(message.text) < 101_000


# What host tools return for the graph they are in --------------------------------------------------------


@tool
def answers_and_more(tool_call_id: str = "call_0") -> Any:
    """Answer, and change the graph's state."""
    done = ToolMessage("done", tool_call_id=tool_call_id)
    return Command(update={"messages": [AIMessage("aside"), done], "other": 1}, goto="elsewhere")


@tool
def fails_and_more() -> Any:
    """Fail, with a list of messages for an update."""
    return Command(update=[ToolMessage("no luck", tool_call_id="call_1", status="error")])


@tool
def only_goes() -> Any:
    """Go elsewhere in the graph."""
    return Command(goto="elsewhere")


@tool
def only_updates() -> Any:
    """Change the graph's state, but say nothing."""
    return Command(update={"other": 1})


@pytest.mark.anyio
@both_ways
@pytest.mark.parametrize("in_graph", [True, False])
async def test_commands_of_host_tools(task_tool: MakeTool, remote: Remote, is_async: bool, in_graph: bool) -> None:
    host_tools = [answers_and_more, fails_and_more, only_goes, only_updates]
    remote.calls = [(each.name, "{}") for each in host_tools]
    delegate = task_tool(*host_tools)
    question = {"messages": [AIMessage("", tool_calls=[CALL])]}
    called, given = (graph_with(delegate), question) if in_graph else (delegate, CALL)
    with anyio.fail_after(30):
        came = await called.ainvoke(given) if is_async else called.invoke(given)
    note = "[What else it returned is for the host's graph, and was not applied.]"
    useless = "ran, but returned a Command, which only the host's own graph can use."
    assert remote.results == {
        "call_0": f"done{note}",
        "call_1": f"ERROR: no luck{note}",
        "call_2": f"ERROR: only_goes {useless}",
        "call_3": f"ERROR: only_updates {useless}",
    }
    if in_graph:
        assert [type(message) for message in came["messages"]] == [AIMessage, ToolMessage]


def test_a_list_of_messages_is_an_answer_too() -> None:
    result = result_of(
        "tool", Command(update=[ToolMessage("first", tool_call_id="1"), ToolMessage("last", tool_call_id="1")])
    )
    assert result.content[0].model_dump(exclude_none=True) == text("last")
    assert not result.is_error
