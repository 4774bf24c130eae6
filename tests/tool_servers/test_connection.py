"""The connection to a tool server: its tools, its faults and its end, with real processes."""

from __future__ import annotations

import io
import logging
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import anyio.to_thread
import pytest
import uvicorn
from mcp.client import Client
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agentlin_bridge.tool_servers import connection
from agentlin_bridge.tool_servers.connection import Terms, ToolServerConnection, ToolServerDown
from agentlin_bridge.tool_servers.description import Reach
from agentlin_bridge.tool_servers.discretion import Discretion
from tests.support.processes import wait_until_gone
from tests.support.replay import listening
from tests.tool_servers.bare import answer as bare_answer
from tests.tool_servers.setting import Project

pytestmark = pytest.mark.anyio

BARE = Path(__file__).parent / "bare.py"


def program(project: Project, **env: str) -> Reach:
    server = project.server(env=env)
    return Reach(**{field: server[field] for field in ("command", "args", "cwd", "env")})


def bare(project: Project) -> Reach:
    return Reach(command=sys.executable, args=[str(BARE), str(project.notes)])


@asynccontextmanager
async def connected(reach: Reach, **terms: Any) -> AsyncIterator[ToolServerConnection]:
    """A connection with an owner, which ends."""
    given = Terms(**{"tools": None, "start_timeout": 30, "timeout": 20, "result_chars": 1_000, **terms})
    made = ToolServerConnection("t", reach, given, named=str, told=Discretion(["secret-token"]))
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            await group.start(made.own)
            yield made
            made.close()


async def said(made: ToolServerConnection, name: str, patience: float = 30, **arguments: Any) -> str:
    result = await made.call(name, arguments, patience)
    return ("ERROR " if result.is_error else "") + "".join(getattr(item, "text", "") for item in result.content)


async def test_it_starts_when_it_is_first_used(project: Project) -> None:
    async with connected(program(project)) as made:
        assert project.pids == []
        assert await said(made, "look", path="a") == "a is empty"
        assert len(project.pids) == 1


async def test_all_pages_of_an_older_server_are_read(project: Project) -> None:
    async with connected(bare(project)) as made:
        assert list(await made.tools()) == ["first", "twisted", "liar", "swap", "quit"]
        assert await said(made, "first") == "first done"


@pytest.mark.parametrize(("make", "tool", "new"), [(bare, "swap", "third"), (program, "grow", "grown")])
async def test_a_changed_list_is_read_again(project: Project, make: Any, tool: str, new: str) -> None:
    async with connected(make(project)) as made:
        before = await made.tools()
        assert await made.tools() is before
        await said(made, tool)
        while await made.tools() is before:
            await anyio.lowlevel.checkpoint()
        assert new in await made.tools()
        assert not (await said(made, new)).startswith("ERROR")


async def test_an_answer_that_breaks_its_schema_is_an_error_and_the_connection_stays(project: Project) -> None:
    async with connected(bare(project)) as made:
        text = await said(made, "liar")
        assert text.startswith("ERROR liar gave an answer that cannot be used: RuntimeError: Invalid structured")
        assert await said(made, "first") == "first done"
    assert len(project.pids) == 1


async def test_an_error_of_the_protocol_tells_no_secret(project: Project) -> None:
    async with connected(program(project, TOKEN="secret-token")) as made:
        assert await said(made, "tell") == "ERROR tell failed: refused for [...] at https://example.org"


async def test_a_tool_that_calls_a_request_invalid_does_not_end_the_connection(project: Project) -> None:
    async with connected(program(project)) as made:
        assert await said(made, "refuse") == "ERROR refuse failed: no such account"
        assert await said(made, "look", path="a") == "a is empty"
    assert len(project.pids) == 1


@pytest.mark.parametrize(
    "error",
    [
        None,
        {"code": -32600, "message": "Session not found"},
        {"code": -32001, "message": "Session not found"},
    ],
)
async def test_a_session_the_server_has_forgotten_is_begun_anew(error: Any) -> None:
    async with forgetful(error) as (url, sessions), connected(Reach(url=url)) as made:
        assert await said(made, "first") == "first done"
        sessions.clear()
        assert "broke while it ran first. It may or may not" in await said(made, "first")
        assert await said(made, "first") == "first done"
        assert await said(made, "refuse") == "ERROR refuse failed: no such account"
        assert len(sessions) == 1


@asynccontextmanager
async def forgetful(error: Any) -> AsyncIterator[tuple[str, set[str]]]:
    """An MCP server of 2025 over HTTP, and the sessions it knows; it may be made to forget them."""
    sessions: set[str] = set()

    async def answer(request: Request) -> Response:
        if request.method != "POST":
            return Response(status_code=405)
        message = await request.json()
        method, params = message["method"], message.get("params") or {}
        headers: dict[str, str] = {}
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": message.get("id")}
        if method == "initialize":
            headers["mcp-session-id"] = uuid4().hex
            sessions.add(headers["mcp-session-id"])
        elif method != "server/discover" and request.headers.get("mcp-session-id") not in sessions:
            return JSONResponse({**reply, "error": error}, 404) if error else Response(status_code=404)
        if "id" not in message:
            return Response(status_code=202)
        if params.get("name") == "refuse":
            return JSONResponse({**reply, "error": {"code": -32600, "message": "no such account"}})
        if (result := bare_answer(method, params)) is None:
            return JSONResponse({**reply, "error": {"code": -32601, "message": "no such method"}})
        if method == "tools/list" and "nextCursor" not in result:
            result = {"tools": [*result["tools"], {"name": "refuse", "inputSchema": {"type": "object"}}]}
        return JSONResponse({**reply, "result": result}, headers=headers)

    app = Starlette(routes=[Route("/mcp", answer, methods=["GET", "POST", "DELETE"])])
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none", timeout_graceful_shutdown=1))
    server.capture_signals = nullcontext  # type: ignore[assignment,method-assign]  # pytest has its own handlers
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with listening(server, listener):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp", sessions


async def test_progress_does_not_prolong_a_call(project: Project) -> None:
    async with connected(program(project), timeout=0.7) as made:
        assert (await said(made, "hang")).startswith("ERROR hang did not answer within 0.7 seconds.")
        assert await said(made, "look", path="a") == "a is empty"


@pytest.mark.parametrize(("concurrency", "outcome"), [(2, "met"), (1, "ERROR meet did not answer")])
async def test_so_many_calls_run_at_once(project: Project, concurrency: int, outcome: str) -> None:
    texts: list[str] = []

    async def meet(made: ToolServerConnection) -> None:
        texts.append(await said(made, "meet", expected=2))

    async with connected(program(project), concurrency=concurrency, timeout=20 if concurrency > 1 else 0.7) as made:
        await made.tools()
        async with anyio.create_task_group() as group:
            group.start_soon(meet, made)
            group.start_soon(meet, made)
    assert len(texts) == 2
    assert all(text.startswith(outcome) for text in texts)


async def test_a_server_that_has_ended_meanwhile_is_started_again_unnoticed(project: Project) -> None:
    async with connected(bare(project)) as made:
        assert await said(made, "quit") == "quit done"
        await anyio.to_thread.run_sync(project.wait_until_noted, f"start {project.pids[0]}")
        while (await said(made, "first")) != "first done":
            # The end of the process is not known yet: this call met it.
            assert len(project.pids) == 1
    assert len(project.pids) == 2


async def test_a_server_that_keeps_breaking_is_given_pauses(project: Project) -> None:
    async with connected(program(project)) as made:
        for _ in range(2):
            assert "broke while it ran die" in await said(made, "die")
        text = await said(made, "look", patience=0, path="a")
        assert text == (
            "ERROR the tool server t cannot be used: it broke; it is tried again in 1 seconds. look was not run."
        )
        assert await said(made, "look", path="a") == "a is empty"
    assert project.acts == ["die", "die", "look a"]


async def test_a_server_that_ran_long_is_started_again_at_once(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STEADY", 0.0)
    async with connected(program(project)) as made:
        for _ in range(3):
            assert "broke while it ran die" in await said(made, "die", patience=0)


async def test_the_bridge_itself_is_no_tool_server(project: Project) -> None:
    async with connected(program(project, FLAWS="nameless"), refused=frozenset({"agentlin-bridge"})) as made:
        with pytest.raises(ToolServerDown, match="it is agentlin-bridge itself, which must not delegate to itself"):
            await made.tools()


async def test_a_server_that_ignores_its_end_is_ended(project: Project) -> None:
    async with connected(program(project, FLAWS="deaf")) as made:
        await made.tools()
    (pid,) = project.pids
    await anyio.to_thread.run_sync(wait_until_gone, pid)


async def test_a_closed_connection_says_so(project: Project) -> None:
    async with connected(program(project)) as made:
        made.close()
        assert await said(made, "look") == "ERROR the tool server t is being closed. look was not run."
    made.close()
    assert project.pids == []


async def test_it_works_where_stderr_is_no_file(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    async with connected(program(project)) as made:
        assert await said(made, "look", path="a") == "a is empty"


async def test_a_list_that_cannot_be_read_again_leaves_the_old_one(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(bare(project)) as made:
        before = await made.tools()
        await said(made, "swap")

        async def refuse(client: Any) -> Any:
            raise OSError("no")

        with monkeypatch.context() as patch:
            patch.setattr(made, "_listed", refuse)
            while not caplog.records:
                assert await made.tools() is before
                await anyio.lowlevel.checkpoint()
        assert "listing its tools again: OSError: no" in caplog.text
        assert "third" in await made.tools()


async def test_a_server_that_no_longer_tells_of_changes_goes_on(
    project: Project, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)

    def refused(*_: Any, **__: Any) -> Any:
        raise TimeoutError

    monkeypatch.setattr(Client, "listen", refused)
    async with connected(program(project)) as made:
        assert await said(made, "look", path="a") == "a is empty"
    assert "no longer tells of changes: TimeoutError" in caplog.text
