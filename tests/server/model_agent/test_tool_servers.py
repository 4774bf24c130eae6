"""Server-side tools: MCP servers as real processes and over HTTP."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvicorn
from anyio.abc import TaskStatus
from starlette.types import ASGIApp, Receive, Scope, Send

from agentlin_bridge.server.agent import AgentFailure
from agentlin_bridge.server.model_agent import agent as agent_module
from agentlin_bridge.server.model_agent import tool_servers
from agentlin_bridge.server.model_agent.agent import ModelAgent
from agentlin_bridge.server.model_agent.agents import ModelAgents
from agentlin_bridge.task import ToolCallItem, ToolResultItem
from agentlin_bridge.tool_servers.results import MEDIA_CHARS
from tests.support.replay import listening

from . import tools
from .agents import MOVE, Heard, asked, called, calls_in, profile, refusal, talking, tool_process
from .endpoint import Call, Reply

pytestmark = pytest.mark.anyio

GOOD = Reply(("Hello",))
NOWHERE = "http://127.0.0.1:9/v1"


@pytest.fixture
def starts(tmp_path: Path) -> Path:
    return tmp_path / "starts"


@asynccontextmanager
async def opened(server: dict[str, Any], **limits: Any) -> AsyncIterator[ModelAgent]:
    """An agent with one tool server `t` and no model to speak of."""
    agent = ModelAgents([profile(NOWHERE, tool_servers={"t": server}, limits=limits)]).pick({})
    with anyio.fail_after(60):
        async with agent:
            yield agent


async def result(agent: ModelAgent, name: str, **arguments: Any) -> str:
    item = await agent.call(called(name, **arguments))
    assert item.call_id == "call_1"
    return item.text


def started(starts: Path) -> list[str]:
    """What the tool server noted at its starts."""
    return starts.read_text(encoding="utf-8").splitlines() if starts.exists() else []


def contents(item: ToolResultItem) -> list[dict[str, Any]]:
    return [part.model_dump(exclude_none=True) for part in item.message_content]


async def test_the_model_is_offered_the_tools_and_the_agent_runs_them(starts: Path) -> None:
    reply = Reply(calls=(Call("t__add", '{"a": 2, "b": 3}'), Call("move", id="call_2")))
    servers = {"t": tool_process(starts, tools=["add", "fail"])}
    async with talking(reply, tool_servers=servers) as talk:
        step = await talk.step(asked("hi", tools=[MOVE]))
        assert talk.endpoint.offered() == ["move", "t__add", "t__fail"]
        assert talk.endpoint.requests[0]["tools"][1]["function"]["description"] == "Add two numbers."
        own, client = calls_in(step)
        assert talk.agent.owns(own.name)
        assert not talk.agent.owns(client.name)
        assert (await talk.agent.call(own)).text == "5"
    assert started(starts) == ["secret-token"]


async def test_a_tool_outside_the_allow_list_is_not_there(starts: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(tool_process(starts, tools=["add", "nonsense"])) as agent:
        assert (await result(agent, "t__fail")).startswith("ERROR: there is no tool 't__fail'")
    assert "tool server t has no tool nonsense" in caplog.text


async def test_a_request_can_take_server_tools_away(starts: Path) -> None:
    reply = Reply(calls=(Call("t__add", '{"a": 2, "b": 3}'),))
    async with talking(reply, tool_servers={"t": tool_process(starts, tools=["add"])}) as talk:
        step = await talk.step(asked("hi", tools=[MOVE], disallowed_tools=["t__add"]))
        assert talk.endpoint.offered() == ["move"]
        assert "there is no tool 't__add'" in await refusal(talk.agent, step)


async def test_a_client_tool_cannot_take_the_name_of_a_server_tool(starts: Path) -> None:
    shadow = type(MOVE)("t__add", "Give me what was meant for the server.")
    async with talking(GOOD, tool_servers={"t": tool_process(starts)}) as talk:
        with pytest.raises(AgentFailure, match="'t__add' has a name of the server's own tools"):
            await talk.step(asked("hi", tools=[shadow]))
    assert talk.endpoint.requests == []


async def test_a_name_no_model_may_call_is_written_so_that_it_may(
    starts: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tool_process(starts)) as agent:
        assert await result(agent, "t__a_dotted_name") == "dotted"
    assert "a.dotted.name is left out, as t__a_dotted_name is taken" in caplog.text


async def test_an_error_of_the_tool_is_its_result(starts: Path) -> None:
    async with opened(tool_process(starts)) as agent:
        assert await result(agent, "t__fail") == "ERROR: Error executing tool fail: it is broken"
        assert (await result(agent, "t__add", a="x")).startswith("ERROR: ")
        assert await result(agent, "t__add", a=1, b=1) == "2"


async def test_content_of_every_kind_is_carried_over(starts: Path) -> None:
    async with opened(tool_process(starts)) as agent:
        item = await agent.call(called("t__everything"))
    assert contents(item) == [
        {"type": "text", "text": "text"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}},
        {"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}},
        {"type": "text", "text": "\n[notes: file:///notes.txt]"},
        {"type": "text", "text": "\n[file:///a.txt]\ninside"},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBE", "filename": "a.pdf"}},
    ]


async def test_structured_content_alone_is_the_text(starts: Path) -> None:
    async with opened(tool_process(starts)) as agent:
        assert await result(agent, "t__structured") == '{"degrees": 21}'


async def test_a_long_text_is_cut_and_says_so(starts: Path) -> None:
    async with opened(tool_process(starts), result_chars=500) as agent:
        text = await result(agent, "t__write", length=2000)
    assert text == "x" * 500 + "\n[1500 more characters were cut off; ask for less at a time]"


async def test_texts_after_the_cut_are_not_there_at_all(starts: Path) -> None:
    async with opened(tool_process(starts), result_chars=200) as agent:
        item = await agent.call(called("t__texts", length=200, count=1000))
    assert contents(item) == [
        {"type": "text", "text": "x" * 200},
        {"type": "text", "text": "\n[199800 more characters were cut off; ask for less at a time]"},
    ]


async def test_a_large_image_is_left_out_and_says_so(starts: Path) -> None:
    async with opened(tool_process(starts)) as agent:
        text = await result(agent, "t__picture", size=MEDIA_CHARS)
    assert text == "\n[1 images, sounds or files were left out, as they are too large]"


async def test_arguments_that_are_no_object_never_reach_the_tool(starts: Path) -> None:
    async with opened(tool_process(starts)) as agent:
        item = await agent.call(ToolCallItem(call_id="call_1", name="t__die", arguments="[1"))
        assert item.text.startswith("ERROR: the arguments of t__die are not a JSON object")
        assert await result(agent, "t__add", a=1, b=1) == "2"
    assert len(started(starts)) == 1


async def test_an_incomplete_call_never_reaches_the_tool(starts: Path) -> None:
    async with opened(tool_process(starts)) as agent:
        item = await agent.call(ToolCallItem(call_id="call_1", name="t__die", status="incomplete"))
        assert item.text == "ERROR: the call is incomplete"
        assert await result(agent, "t__add", a=1, b=1) == "2"
    assert len(started(starts)) == 1


async def test_a_tool_of_no_server_is_an_error(starts: Path) -> None:
    async with opened(tool_process(starts)) as agent:
        assert await result(agent, "web__read") == "ERROR: there is no tool server 'web'"


async def test_a_slow_tool_is_given_up_and_the_connection_stays(starts: Path) -> None:
    async with opened(tool_process(starts), tool_timeout=0.5) as agent:
        assert (await result(agent, "t__hang")).startswith("ERROR: t__hang did not answer within 0.5 seconds.")
        assert await result(agent, "t__add", a=1, b=1) == "2"
    assert len(started(starts)) == 1


async def test_a_server_that_dies_during_a_call_is_started_again_for_the_next(starts: Path) -> None:
    async with opened(tool_process(starts)) as agent:
        text = await result(agent, "t__die")
        assert text.startswith("ERROR: the connection to the tool server t broke while it ran t__die.")
        assert await result(agent, "t__add", a=1, b=1) == "2"
    assert len(started(starts)) == 2


async def test_calls_beside_the_one_that_kills_the_server_get_an_error_too(starts: Path) -> None:
    texts: dict[str, str] = {}

    async def note(agent: ModelAgent, name: str) -> None:
        texts[name] = await result(agent, name)

    async with opened(tool_process(starts)) as agent:
        assert await result(agent, "t__add", a=1, b=1) == "2"
        async with anyio.create_task_group() as group:
            group.start_soon(note, agent, "t__hang")
            group.start_soon(note, agent, "t__die")
        assert await result(agent, "t__add", a=1, b=1) == "2"
    assert all("connection to the tool server t broke" in text for text in texts.values())
    assert len(texts) == 2


async def test_a_call_can_be_cancelled(starts: Path) -> None:
    async with opened(tool_process(starts)) as agent:
        assert await result(agent, "t__add", a=1, b=1) == "2"
        with anyio.move_on_after(0.2) as scope:
            await result(agent, "t__hang")
        assert scope.cancelled_caught
        assert await result(agent, "t__add", a=1, b=1) == "2"


async def test_the_process_ends_with_the_agent(starts: Path, tmp_path: Path) -> None:
    before = _children()
    async with opened(tool_process(starts)) as agent:
        await result(agent, "t__add", a=1, b=1)
        children = _children() - before
        assert children
    assert not children & _children()


def _children() -> set[str]:
    """The processes this one has started, as the system knows them."""
    own = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    return set(own.read_text(encoding="ascii").split())


async def test_a_server_that_cannot_be_started_fails_the_step_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with talking(GOOD, tool_servers={"t": {"command": "no-such-command-at-all"}}) as talk:
        with pytest.raises(AgentFailure, match="cannot work: the tool server t cannot be used: FileNotFoundError"):
            await talk.step("hi")
        assert (await result(talk.agent, "t__add")).startswith("ERROR: the tool server t cannot be used")
    assert talk.endpoint.requests == []
    assert "tool server t: FileNotFoundError" in caplog.text


async def test_a_process_that_is_no_mcp_server_fails_the_step() -> None:
    async with talking(GOOD, tool_servers={"t": {"command": sys.executable, "args": ["-c", "pass"]}}) as talk:
        with pytest.raises(AgentFailure, match="the tool server t cannot be used"):
            await talk.step("hi")


async def test_a_process_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_servers, "START_TIMEOUT", 0.5)
    silent = {"command": sys.executable, "args": ["-c", "import sys; sys.stdin.read()"]}
    async with talking(GOOD, tool_servers={"t": silent}) as talk:
        with pytest.raises(AgentFailure, match=r"cannot be used: it was not up within 0\.5 seconds"):
            await talk.step("hi")


async def test_an_agent_ends_while_its_server_still_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module, "CLOSING", 0.2)
    before = _children()
    async with opened({"command": sys.executable, "args": ["-c", "import sys; sys.stdin.read()"]}):
        pass
    assert _children() <= before


async def test_an_agent_that_was_not_opened_says_so(starts: Path) -> None:
    agent = ModelAgents([profile(NOWHERE, tool_servers={"t": tool_process(starts)})]).pick({})
    assert await result(agent, "t__add") == "ERROR: the tool server t has not been opened. t__add was not run."
    with pytest.raises(AgentFailure, match="has not been opened"):
        await agent.step(asked("hi"), Heard())


class Guarded:
    """Lets in who knows the password."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = scope["type"] != "http" or (b"authorization", b"Bearer secret-token") in scope["headers"]
        if known:
            await self.app(scope, receive, send)
        else:
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def over_http(port: int = 0) -> AsyncIterator[int]:
    """The tool server on a port."""
    listener = socket.create_server(("127.0.0.1", port))
    app = Guarded(tools.server.streamable_http_app())
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none", timeout_graceful_shutdown=1))
    server.capture_signals = nullcontext  # type: ignore[assignment,method-assign]  # pytest has its own handlers
    with listener:
        async with listening(server, listener):
            yield listener.getsockname()[1]


def remote(port: int, token: str = "secret-token") -> dict[str, Any]:
    return {"url": f"http://127.0.0.1:{port}/mcp", "headers": {"Authorization": f"Bearer {token}"}}


async def served(
    port: int, stop: anyio.Event, gone: anyio.Event, *, task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED
) -> None:
    """The tool server on a port until it is stopped."""
    async with over_http(port) as taken:
        task_status.started(taken)
        await stop.wait()
    gone.set()


async def test_tools_over_http_and_after_a_restart_of_their_server() -> None:
    stop, gone, stop_again = anyio.Event(), anyio.Event(), anyio.Event()
    async with anyio.create_task_group() as group:
        port = await group.start(served, 0, stop, gone)
        async with opened(remote(port)) as agent:
            assert await result(agent, "t__add", a=1, b=1) == "2"
            stop.set()
            await gone.wait()
            assert "broke while it ran t__add" in await result(agent, "t__add", a=1, b=1)
            assert "cannot be used" in await result(agent, "t__add", a=1, b=1)
            await group.start(served, port, stop_again, anyio.Event())
            assert await result(agent, "t__add", a=1, b=1) == "2"
        stop_again.set()


async def test_a_wrong_key_fails_the_step_without_telling_it() -> None:
    async with over_http() as port, talking(GOOD, tool_servers={"t": remote(port, "wrong-token")}) as talk:
        with pytest.raises(AgentFailure, match="the tool server t cannot be used") as caught:
            await talk.step("hi")
    assert "wrong-token" not in caught.value.message
