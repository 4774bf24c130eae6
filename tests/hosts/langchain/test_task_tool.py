"""Calling the tool: from sync code, from a loop, many at once; what goes wrong and how it is told."""

from __future__ import annotations

import copy
import importlib
import pickle
import socket
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from langchain_core.messages import ToolMessage
from langchain_core.tools import ToolException, tool
from langchain_core.utils.function_calling import convert_to_openai_tool

from agentlin_bridge import (
    ClientTool,
    ConfigurationError,
    InvalidRequestError,
    MissingExtraError,
    Task,
    TaskBridge,
    TaskStatus,
    extras,
)
from agentlin_bridge.hosts import langchain
from agentlin_bridge.hosts.langchain import AgentlinTaskTool
from tests.support.remote import Turn

from .conftest import NOTES, MakeTool
from .remote import Remote

DIGEST = {"instructions": "Digest notes.md"}


@tool
def read_file(path: str) -> str:
    """Read a file of the host's."""
    return NOTES


def nothing() -> str:
    return "nothing"


def tool_call(**args: Any) -> dict[str, Any]:
    return {"type": "tool_call", "id": "host_1", "name": "agentlin_task", "args": args}


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(extras, "version", missing)
    with pytest.raises(MissingExtraError, match=r"langchain-core is not installed.*pip install .*\[langchain\]"):
        importlib.reload(langchain)


def test_langgraph_is_not_needed() -> None:
    code = "import sys, agentlin_bridge.hosts.langchain; print([m for m in sys.modules if m.startswith('langgraph')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "[]\n"


def test_the_model_is_asked_for_instructions_only() -> None:
    function = convert_to_openai_tool(AgentlinTaskTool())["function"]
    assert function["name"] == "agentlin_task"
    assert list(function["parameters"]["properties"]) == ["instructions"]


def test_sync(task_tool: MakeTool) -> None:
    delegate = task_tool(read_file)
    assert "2 sections" in delegate.invoke(DIGEST)
    assert "2 sections" in delegate.invoke("Digest notes.md")
    message = delegate.invoke(tool_call(**DIGEST))
    assert isinstance(message, ToolMessage)
    assert (message.tool_call_id, message.status) == ("host_1", "success")
    assert isinstance(message.artifact, Task)
    assert message.artifact.answer == message.content


@pytest.mark.anyio
async def test_sync_and_async_in_one_loop(task_tool: MakeTool) -> None:
    delegate = task_tool(read_file)
    with anyio.fail_after(30):
        assert "2 sections" in await delegate.ainvoke(DIGEST)
        assert "2 sections" in delegate.invoke(DIGEST)
        message = await delegate.ainvoke(tool_call(**DIGEST))
        assert message.artifact.status is TaskStatus.COMPLETED


def test_from_one_loop_after_another(task_tool: MakeTool) -> None:
    delegate = task_tool(read_file)
    for _ in range(2):
        assert "2 sections" in anyio.run(delegate.ainvoke, DIGEST)


@pytest.mark.anyio
async def test_batches_keep_their_order_and_bound(task_tool: MakeTool) -> None:
    running: list[int] = [0, 0]

    @tool
    async def read_part(path: str) -> str:
        """Read a part."""
        running[0] += 1
        running[1] = max(running)
        await anyio.lowlevel.checkpoint()
        running[0] -= 1
        return NOTES

    delegate = task_tool(read_part)
    inputs = [{"instructions": f"Digest part{number}.md"} for number in range(6)]
    with anyio.fail_after(60):
        answers = await delegate.abatch(inputs, {"max_concurrency": 2})  # type: ignore[arg-type]
        most = running[1]
        in_threads = await anyio.to_thread.run_sync(
            lambda: delegate.batch(inputs[:3], {"max_concurrency": 3})  # type: ignore[arg-type]
        )
    assert [f"part{number}.md" in answer for number, answer in enumerate(answers)] == [True] * 6
    assert [f"part{number}.md" in answer for number, answer in enumerate(in_threads)] == [True] * 3
    assert most <= 2


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"instructions": "  "}, "The instructions are empty. Next: say what the agent shall do"),
        ({}, "The arguments do not fit (instructions: Field required), and nothing was delegated."),
        ({"instructions": 5}, "The arguments do not fit (instructions: Input should be a valid string)"),
    ],
)
def test_unusable_arguments_are_explained(task_tool: MakeTool, args: dict[str, Any], said: str) -> None:
    message = task_tool().invoke(tool_call(**args))
    assert message.status == "error"
    assert message.text.startswith(said)


@pytest.mark.anyio
async def test_a_remote_that_is_down(task_tool: MakeTool, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    monkeypatch.setenv("AGENTLIN_BASE_URL", url)
    with anyio.fail_after(30):
        message = await task_tool().ainvoke(tool_call(**DIGEST))
    assert message.status == "error"
    assert "cannot be reached" in message.text
    assert "Next: check that it runs" in message.text


@pytest.mark.anyio
@pytest.mark.parametrize("is_async", [True, False])
async def test_a_half_set_configuration(task_tool: MakeTool, monkeypatch: pytest.MonkeyPatch, is_async: bool) -> None:
    monkeypatch.setenv("AGENTLIN_CLIENT_ID", "client")
    delegate = task_tool(handle_tool_error=False)
    with pytest.raises(ToolException, match="AGENTLIN_CLIENT_ID is set, but"):
        await delegate.ainvoke(DIGEST) if is_async else delegate.invoke(DIGEST)
    # Once it is corrected, the same tool works.
    monkeypatch.delenv("AGENTLIN_CLIENT_ID")
    assert "demo agent" in await delegate.ainvoke(DIGEST)


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        (
            Turn(status="failed", error={"code": -32000, "message": "out of tokens"}),
            " failed: out of tokens Next: delegate it again",
        ),
        (Turn(status="canceled"), " is canceled. Next: delegate it again"),
        (Turn(status="expired"), " expired: The remote task is expired and gives no reason. Next: "),
    ],
)
def test_a_task_that_ends_without_an_answer(task_tool: MakeTool, remote: Remote, ending: Turn, said: str) -> None:
    remote.ending = ending
    message = task_tool().invoke(tool_call(instructions="Try"))
    assert message.status == "error"
    assert message.text.startswith("Task task_")
    assert said in message.text


def test_an_error_of_the_bridges_own_has_one_next_step(
    task_tool: MakeTool, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTLIN_API_KEY", "wrong")
    remote.key = "right"
    message = task_tool().invoke(tool_call(instructions="Try"))
    assert message.text.count("Next: ") == 1
    assert "check AGENTLIN_API_KEY" in message.text


def test_an_empty_answer(task_tool: MakeTool, remote: Remote) -> None:
    assert "completed. It gave no answer" in task_tool().invoke({"instructions": "Be silent"})


def test_a_long_answer_is_cut_for_the_model_only(task_tool: MakeTool, remote: Remote) -> None:
    remote.calls = [("fill", "{}")]

    def fill() -> str:
        return "x" * 150_000

    message = task_tool(fill).invoke(tool_call(instructions="Fill"))
    assert len(message.text) < 101_000
    assert message.text.endswith("[cut: the answer has 150,000 characters; the artifact has all of it]")
    assert len(message.artifact.answer) == 150_000


def test_a_timeout_leaves_the_task_running(task_tool: MakeTool, remote: Remote) -> None:
    remote.hangs = True
    message = task_tool(timeout=0.3).invoke(tool_call(instructions="Take long"))
    assert message.status == "success"
    assert f"Task {message.artifact.id} has no answer yet: it is still working after 0.3 seconds" in message.text
    assert not remote.told_to_cancel.is_set()


def test_a_call_that_nothing_here_runs_needs_a_graph_that_can_wait(task_tool: MakeTool, remote: Remote) -> None:
    with pytest.raises(ConfigurationError, match=r"decide about ask_user, .*Nothing was delegated. Next: compile"):
        task_tool(ClientTool("ask_user", "Ask.")).invoke(tool_call(instructions="Ask"))
    assert remote.posts == []


def test_it_never_offers_itself() -> None:
    with pytest.raises(InvalidRequestError, match="without end"):
        AgentlinTaskTool(client_tools=[AgentlinTaskTool(name="other")])


@pytest.mark.anyio
async def test_whose_tasks_they_are(task_tool: MakeTool) -> None:
    asked: list[str] = []

    def bridge(*, principal: str) -> TaskBridge:
        asked.append(principal)
        return TaskBridge.from_env(principal=principal)

    anna = task_tool(read_file, bridge=bridge, principal="anna")
    with anyio.fail_after(30):
        task = (await anna.ainvoke(tool_call(**DIGEST))).artifact
        berta = anna.model_copy(update={"principal": "berta"})
        same = anna.model_copy()
        await berta.ainvoke(DIGEST)
        await same.ainvoke(DIGEST)
        berta.close()
        assert asked == ["anna", "berta"]
        async with TaskBridge.from_env(principal="berta") as other:
            assert task.id not in [each.id async for each in other.list()]


def test_no_key_is_in_its_repr_or_pickle(task_tool: MakeTool, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTLIN_API_KEY", "sesame")
    remote.key = "sesame"
    delegate = task_tool(ClientTool("look", "Look.", handler=nothing))
    delegate.invoke({"instructions": "Open"})
    for copied in (copy.deepcopy(delegate), delegate.model_copy(deep=True), pickle.loads(pickle.dumps(delegate))):
        assert copied.client_tools[0].name == "look"
        copied.invoke({"instructions": "Open"})
        copied.close()
    assert "sesame" not in repr(delegate) + str(delegate.model_dump())
    assert b"sesame" not in pickle.dumps(delegate)
    assert len(remote.posts) == 4
