"""A key stays where it is needed: it is in nothing that is shown, stored, traced or sent elsewhere."""

from __future__ import annotations

import copy
import logging
import pickle
import socket
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from langchain_core.load import dumpd, dumps
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import ToolException
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.schemas import Run
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command
from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agentlin_bridge import ClientTool
from agentlin_bridge.hosts.langchain import AgentlinTaskTool

from .conftest import MakeTool
from .remote import Remote

pytestmark = pytest.mark.anyio

KEY = "sesame-4f1c9b27"
CALL: Any = {"type": "tool_call", "name": "agentlin_task", "id": "host_1", "args": {"instructions": "Go"}}


def look(what: str) -> str:
    return f"saw {what}"


class Tracer(BaseTracer):
    """Keeps the runs it is told of."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Run] = []

    def _persist_run(self, run: Run) -> None:
        self.runs.append(run)


class Blunt(Remote):
    """Refuses every key, and says which it was given."""

    def _refused(self, request: Request) -> Response | None:
        super()._refused(request)
        return JSONResponse({"detail": f"{request.headers.get('authorization')} is no key of ours"}, 401)


@pytest.fixture
def blunt() -> Iterator[Blunt]:
    with Blunt().serving() as remote:
        yield remote


@pytest.fixture(params=["argument", "secret argument", "environment"])
def given(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments of a tool that has the key, one way or another."""
    if request.param == "environment":
        monkeypatch.setenv("AGENTLIN_API_KEY", KEY)
        return {}
    return {"api_key": KEY if request.param == "argument" else SecretStr(KEY)}


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """All that is logged, whatever its level."""
    caplog.set_level(logging.DEBUG)
    return caplog


def assert_keeps_its_key(delegate: AgentlinTaskTool) -> None:
    shown = [repr(delegate), str(delegate), str(delegate.model_dump()), repr(dict(delegate)), repr(vars(delegate))]
    for text in (*shown, str(dumpd(delegate)), dumps(delegate), dumps(delegate, pretty=True)):
        assert KEY not in text
    assert KEY.encode() not in pickle.dumps(delegate)


def assert_traces_no_key(tracer: Tracer, *, failed: bool) -> None:
    (run,) = tracer.runs
    assert (run.error is not None) == failed
    for part in (repr(run), str(run.model_dump()), str(run.serialized), str(run.extra), str(run.outputs)):
        assert KEY not in part


async def failure_of(delegate: AgentlinTaskTool, config: RunnableConfig) -> ToolException:
    with anyio.fail_after(30), pytest.raises(ToolException) as caught:
        await delegate.ainvoke(CALL, config)
    return caught.value


async def test_when_all_is_well(
    task_tool: MakeTool, remote: Remote, given: dict[str, Any], logs: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    remote.key, remote.calls = KEY, [("look", '{"what": "it"}')]
    delegate, tracer = task_tool(look, **given), Tracer()
    with anyio.fail_after(30):
        message = await delegate.ainvoke(CALL, {"callbacks": [tracer]})
    assert (message.text, message.status) == ("saw it", "success")
    assert {headers["authorization"] for headers in remote.headers} == {f"Bearer {KEY}"}
    assert_keeps_its_key(delegate)
    assert_traces_no_key(tracer, failed=False)
    for text in (repr(message), message.artifact.model_dump_json(), logs.text, str(remote.posts)):
        assert KEY not in text
    assert_stores_no_key(tmp_path)


async def test_when_the_key_is_refused(
    task_tool: MakeTool, remote: Remote, given: dict[str, Any], logs: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    remote.key = "another"
    delegate, tracer = task_tool(handle_tool_error=False, **given), Tracer()
    error = await failure_of(delegate, {"callbacks": [tracer]})
    assert "AGENTLIN_API_KEY" in str(error)
    assert remote.headers[-1]["authorization"] == f"Bearer {KEY}"
    assert_keeps_its_key(delegate)
    assert_traces_no_key(tracer, failed=True)
    assert KEY not in "".join(traceback.format_exception(error)) + logs.text
    assert_stores_no_key(tmp_path)


async def test_when_the_remote_repeats_the_key_it_refuses(
    task_tool: MakeTool, blunt: Blunt, given: dict[str, Any], logs: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    delegate, tracer = task_tool(base_url=blunt.base_url, handle_tool_error=False, **given), Tracer()
    error = await failure_of(delegate, {"callbacks": [tracer]})
    assert blunt.headers[-1]["authorization"] == f"Bearer {KEY}"
    assert_traces_no_key(tracer, failed=True)
    assert KEY not in "".join(traceback.format_exception(error)) + logs.text
    assert_stores_no_key(tmp_path)


async def test_when_the_remote_cannot_be_reached(
    task_tool: MakeTool, given: dict[str, Any], logs: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    delegate, tracer = task_tool(base_url=url, handle_tool_error=False, **given), Tracer()
    error = await failure_of(delegate, {"callbacks": [tracer]})
    assert "cannot be reached" in str(error)
    assert_keeps_its_key(delegate)
    assert_traces_no_key(tracer, failed=True)
    assert KEY not in "".join(traceback.format_exception(error)) + logs.text
    assert_stores_no_key(tmp_path)


def assert_stores_no_key(directory: Path) -> None:
    stored = [path for path in directory.iterdir() if path.is_file()]
    assert any(path.name.startswith("ledger.sqlite3") for path in stored)
    for path in stored:
        assert KEY.encode() not in path.read_bytes(), path.name


def test_what_a_graph_keeps(task_tool: MakeTool, remote: Remote, given: dict[str, Any], tmp_path: Path) -> None:
    remote.key, remote.calls = KEY, [("ask_user", "{}")]
    delegate = task_tool(ClientTool("ask_user", "Ask."), **given)
    graph = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode([delegate]))
    graph.add_edge(START, "tools")
    config: Any = {"configurable": {"thread_id": "1"}}
    with SqliteSaver.from_conn_string(str(tmp_path / "checkpoints.sqlite3")) as saver:
        compiled = graph.compile(checkpointer=saver)
        question: Any = {"messages": [AIMessage("", tool_calls=[CALL])]}
        (interrupt,) = compiled.invoke(question, config)["__interrupt__"]
        (asked,) = interrupt.value["action_requests"]
        decision = {"type": "respond", "message": "yes", "task_id": asked["task_id"], "call_id": asked["call_id"]}
        assert_stores_no_key(tmp_path)
        answered: Any = Command(resume={"decisions": [decision]})
        state = compiled.invoke(answered, config)
        history = list(compiled.get_state_history(config))
    assert state["messages"][-1].text == "yes"
    assert KEY not in repr(history)
    assert b"ask_user" in b"".join(path.read_bytes() for path in tmp_path.glob("checkpoints*"))
    assert_stores_no_key(tmp_path)


def test_a_refused_key_that_a_graph_keeps(
    task_tool: MakeTool, remote: Remote, given: dict[str, Any], tmp_path: Path
) -> None:
    remote.key = "another"
    graph = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode([task_tool(**given)]))
    graph.add_edge(START, "tools")
    with SqliteSaver.from_conn_string(str(tmp_path / "checkpoints.sqlite3")) as saver:
        question: Any = {"messages": [AIMessage("", tool_calls=[CALL])]}
        state = graph.compile(checkpointer=saver).invoke(question, {"configurable": {"thread_id": "1"}})
    message = state["messages"][-1]
    assert isinstance(message, ToolMessage)
    assert message.status == "error"
    assert KEY not in repr(state)
    assert_stores_no_key(tmp_path)


def test_a_pickled_copy_takes_the_key_from_the_environment(
    task_tool: MakeTool, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.key = KEY
    pickled = pickle.dumps(task_tool(api_key=KEY))
    keyless: AgentlinTaskTool = pickle.loads(pickled)
    assert keyless.api_key is None
    assert keyless.invoke(CALL).status == "error"
    keyless.close()
    monkeypatch.setenv("AGENTLIN_API_KEY", KEY)
    keyed: AgentlinTaskTool = pickle.loads(pickled)
    assert keyed.invoke(CALL).status == "success"
    keyed.close()


def test_a_copy_in_the_same_process_keeps_its_key(task_tool: MakeTool, remote: Remote) -> None:
    remote.key = KEY
    delegate = task_tool(api_key=KEY)
    for copied in (copy.copy(delegate), copy.deepcopy(delegate), delegate.model_copy(deep=True)):
        assert copied.invoke(CALL).status == "success"
        assert_keeps_its_key(copied)
        copied.close()


def test_a_pickled_copy_goes_to_the_same_deployment(
    task_tool: MakeTool, remote: Remote, blunt: Blunt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own address goes before that of the environment, whose key another deployment must not see."""
    remote.key = KEY
    pickled = pickle.dumps(task_tool(base_url=remote.base_url, api_key=KEY))
    monkeypatch.setenv("AGENTLIN_BASE_URL", blunt.base_url)
    monkeypatch.setenv("AGENTLIN_API_KEY", KEY)
    copied: AgentlinTaskTool = pickle.loads(pickled)
    assert copied.base_url == remote.base_url
    message = copied.invoke(CALL)
    copied.close()
    assert blunt.requests == []
    assert message.status == "success"
