"""Tools the bridge itself runs, through MCP stdio, the command line and LangChain, with real tool servers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.to_thread
import pytest
from anyio.from_thread import start_blocking_portal
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command
from mcp_types import ElicitRequestFormParams, ElicitResult

from agentlin_bridge import TaskStatus
from agentlin_bridge.hosts.langchain import AgentlinTaskTool, AgentlinToolkit
from agentlin_bridge.hosts.mcp.asking import A_PERSON_NEEDS, NO_WAY
from tests.hosts.mcp.conftest import connected, text_of
from tests.server.model_agent.test_tool_servers import over_http
from tests.support.processes import subprocess_environment, wait_until_gone
from tests.support.remote import Json, ScriptedRemote, Turn
from tests.tool_servers.setting import Project, asking, offered

pytestmark = pytest.mark.anyio

ERAS = pytest.mark.parametrize("mode", ["auto", "legacy"])
LOOK = ("look", {"path": "a.txt"})
WIPE = ("wipe", {"path": "a.txt"})


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


class Person:
    """Whoever sits before the host, and takes a moment to decide."""

    def __init__(self, action: Literal["accept", "decline"]) -> None:
        self.action = action
        self.asked: list[str] = []

    async def __call__(self, context: Any, params: ElicitRequestFormParams) -> ElicitResult:
        self.asked.append(params.message)
        await anyio.sleep(A_PERSON_NEEDS + 0.1)
        return ElicitResult(action=self.action, content={} if self.action == "accept" else None)


@ERAS
async def test_a_tool_that_only_reads_runs_unasked(project: Project, mode: str) -> None:
    project.write(servers={"files": project.server(tools=["look", "wipe"])})
    with anyio.fail_after(60):
        async with (
            ScriptedRemote(asking(LOOK)).serve() as remote,
            connected(project.settings(remote.base_url), project.directory, mode=mode) as host,
        ):
            done = await host.ask("create_task", instructions="Look.")
    assert done["answer"] == "a.txt is empty"
    assert project.acts == ["look a.txt"]
    assert offered(remote.posts[0]) == ["ask_host", "ask_user", "look", "wipe"]
    assert len(project.pids) == 1
    wait_until_gone(project.pids[0])


@ERAS
@pytest.mark.parametrize(
    ("action", "answer", "acts"),
    [
        ("accept", "wiped a.txt", ["wipe a.txt"]),
        ("decline", "ERROR: The user refused to let this tool run. Nothing was executed.", []),
    ],
)
async def test_a_person_decides_about_a_destructive_tool(
    project: Project, mode: str, action: Literal["accept", "decline"], answer: str, acts: list[str]
) -> None:
    project.write(servers={"files": project.server()})
    person = Person(action)
    with anyio.fail_after(60):
        async with ScriptedRemote(asking(WIPE)).serve() as remote:
            settings = project.settings(remote.base_url)
            async with connected(settings, project.directory, mode=mode, elicitation_callback=person) as host:
                done = await host.ask("create_task", instructions="Wipe.")
    assert done["answer"] == answer
    assert project.acts == acts
    (asked,) = person.asked
    assert "run the tool wipe here" in asked
    assert '> {"path": "a.txt"}' in asked


@ERAS
async def test_an_approval_that_nobody_can_give_stays_pending(project: Project, mode: str) -> None:
    project.write(servers={"files": project.server()})
    with anyio.fail_after(60):
        async with ScriptedRemote(asking(WIPE)).serve() as remote:
            settings = project.settings(remote.base_url)
            async with connected(settings, project.directory, mode=mode) as host:
                result = await host.call("create_task", instructions="Wipe.")
                pending = dict(result.structured_content or {})
            # Nor does a new server run what nobody approved.
            async with connected(settings, project.directory, mode=mode) as host:
                later = await host.ask("retrieve_task", task_id=pending["task_id"], wait_seconds=2)
                results = [{"call_id": "c0", "content": "left alone"}]
                done = await host.ask("submit_tool_results", task_id=pending["task_id"], results=results)
    assert pending["tool_calls"][0]["approval_required"] is True
    assert NO_WAY in text_of(result)
    assert "a person has to approve this, which you cannot do" in text_of(result)
    assert later["tool_calls"][0]["approval_required"] is True
    assert done["answer"] == "left alone"
    assert project.acts == []


async def test_a_server_that_dies_during_a_call_is_an_error_result_and_is_started_again(project: Project) -> None:
    project.write(servers={"files": project.server()})
    with anyio.fail_after(60):
        async with (
            ScriptedRemote(asking(("die", {}), LOOK)).serve() as remote,
            connected(project.settings(remote.base_url), project.directory) as host,
        ):
            done = await host.ask("create_task", instructions="Die.")
    assert done["status"] == "completed"
    assert "broke while it ran die. It may or may not have had an effect." in done["answer"]
    assert done["answer"].endswith("a.txt is empty")
    assert project.acts == ["die", "look a.txt"]
    assert len(project.pids) == 2


async def test_a_server_that_cannot_start_keeps_no_task_from_running(project: Project) -> None:
    project.write(servers={"files": project.server(tools=["look"]), "gone": {"command": "no-such-tool-server"}})
    with anyio.fail_after(60):
        async with (
            ScriptedRemote(asking(LOOK)).serve() as remote,
            connected(project.settings(remote.base_url), project.directory) as host,
        ):
            done = await host.ask("create_task", instructions="Look.")
    assert done["answer"] == "a.txt is empty"
    said = (project.directory / "stderr").read_text(encoding="utf-8")
    assert "the tool server gone cannot be used: FileNotFoundError" in said
    assert "Next: correct [client_tools.servers.gone]" in said


async def test_the_servers_end_even_when_the_bridge_is_killed(project: Project) -> None:
    project.write(servers={"files": project.server(), "more": project.server(tools=["look"], prefix="more_")})
    with anyio.fail_after(60):
        async with ScriptedRemote(asking(("hang", {}))).serve() as remote:
            await killed_during(project, remote.base_url, "hang")
    assert len(project.pids) == 2
    for pid in project.pids:
        await anyio.to_thread.run_sync(wait_until_gone, pid)


async def killed_during(project: Project, base_url: str, act: str) -> None:
    """Run a task on the command line, and kill the bridge once the tool server has noted something."""
    process = await anyio.open_process(
        [sys.executable, "-m", "agentlin_bridge", "run", "Do it."],
        cwd=project.directory,
        env=subprocess_environment(**project.settings(base_url)),
    )
    async with process:
        await anyio.to_thread.run_sync(project.wait_until_noted, act)
        process.kill()
        await process.wait()


async def test_what_runs_when_the_bridge_dies_is_not_run_again_unseen(project: Project) -> None:
    project.write(servers={"files": project.server(approval="never")})
    with anyio.fail_after(60):
        async with ScriptedRemote(asking(("stall", {}))).serve() as remote:
            await killed_during(project, remote.base_url, "stall")
            async with connected(project.settings(remote.base_url), project.directory) as host:
                (task,) = (await host.ask("list_tasks"))["tasks"]
                pending = await host.ask("retrieve_task", task_id=task["task_id"], wait_seconds=20)
                results = [{"call_id": "c0", "content": "it had stalled"}]
                done = await host.ask("submit_tool_results", task_id=task["task_id"], results=results)
    assert pending["tool_calls"][0]["outcome_unknown"] is True
    assert done["answer"] == "it had stalled"
    assert project.acts == ["stall"]


async def test_after_a_restart_a_call_is_the_bridges_still(project: Project) -> None:
    project.write(servers={"files": project.server(approvals={"wipe": "never"})})
    gate = anyio.Event()
    agent = asking(WIPE)

    async def turn(body: Json) -> Turn:
        await gate.wait()
        return agent(body)

    with anyio.fail_after(60):
        async with ScriptedRemote(turn).serve() as remote:
            settings = project.settings(remote.base_url)
            async with connected(settings, project.directory) as host:
                created = await host.ask("create_task", instructions="Wipe.", wait_seconds=0)
            gate.set()
            async with connected(settings, project.directory) as host:
                done = await host.ask("retrieve_task", task_id=created["task_id"], wait_seconds=30)
    assert done["answer"] == "wiped a.txt"
    assert project.acts == ["wipe a.txt"]


async def test_the_command_line_runs_them(project: Project) -> None:
    (project.directory / "count.py").write_text(
        "import json, sys\ngiven = json.load(sys.stdin)\nprint(len(given['text'].split()), 'words')\n", encoding="utf-8"
    )
    count = {
        "command": [sys.executable, str(project.directory / "count.py")],
        "description": "Count words.",
        "parameters": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
        "approval": "never",
    }
    project.write(servers={"files": project.server(prefix="my_")}, commands={"count": count})
    calls = (("my_look", {"path": "b.txt"}), ("count", {"text": "one two three"}))
    async with ScriptedRemote(asking(*calls)).serve() as remote:
        ran = await anyio.to_thread.run_sync(command_line, project, remote.base_url, "Look and count.")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "b.txt is empty\n3 words\n"
    for pid in project.pids:
        wait_until_gone(pid)


async def test_a_key_in_the_address_of_a_server_is_not_logged(project: Project) -> None:
    async with over_http() as port:
        url = f"http://127.0.0.1:{port}/mcp?api_key=secret-key"
        headers = {"Authorization": "Bearer secret-token"}
        web = {"url": url, "headers": headers, "tools": ["add"], "approval": "never"}
        project.write(servers={"web": web})
        async with ScriptedRemote(asking(("add", {"a": 2, "b": 3}))).serve() as remote:
            ran = await anyio.to_thread.run_sync(command_line, project, remote.base_url, "Add.", "-v")
    assert (ran.returncode, ran.stdout) == (0, "5\n"), ran.stderr
    assert "secret" not in ran.stderr


def command_line(project: Project, base_url: str, instructions: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agentlin_bridge", *options, "run", instructions],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=project.directory,
        stdin=subprocess.DEVNULL,
        env=subprocess_environment(**project.settings(base_url)),
    )


async def test_what_needs_approval_is_named_on_the_command_line(project: Project) -> None:
    project.write(servers={"files": project.server()})
    async with ScriptedRemote(asking(WIPE)).serve() as remote:
        ran = await anyio.to_thread.run_sync(command_line, project, remote.base_url, "Wipe.")
    assert ran.returncode == 1
    assert 'waits for a person to approve: wipe({"path": "a.txt"})' in ran.stderr
    assert project.acts == []


async def test_a_langchain_tool_runs_them(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write(servers={"files": project.server()})

    def shout(text: str) -> str:
        """Shout."""
        return text.upper()

    async with ScriptedRemote(asking(LOOK, ("shout", {"text": "ho"}))).serve() as remote:
        for name, value in project.settings(remote.base_url).items():
            monkeypatch.setenv(name, value)
        tool = AgentlinTaskTool(client_tools=[shout])
        try:
            with anyio.fail_after(60):
                message = await tool.ainvoke(
                    {"type": "tool_call", "id": "1", "name": tool.name, "args": {"instructions": "Look."}}
                )
        finally:
            await anyio.to_thread.run_sync(tool.close)
    assert message.artifact.status is TaskStatus.COMPLETED
    assert message.content == "a.txt is empty\nHO"
    assert project.acts == ["look a.txt"]
    assert message.artifact.metadata["bridge_tools"]["look"] == "the tool server 'files'"
    for pid in project.pids:
        wait_until_gone(pid)


@pytest.fixture
def delegating(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentlinTaskTool]:
    """A LangChain tool whose remote agent wants to wipe a file with a tool of the bridge's."""
    project.write(servers={"files": project.server()})
    remote = ScriptedRemote(asking(WIPE))
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(remote.serve()):
        for name, value in project.settings(remote.base_url).items():
            monkeypatch.setenv(name, value)
        tool = AgentlinTaskTool()
        try:
            yield tool
        finally:
            tool.close()


@pytest.mark.parametrize(
    ("decision", "answer", "acts"),
    [
        ({"type": "approve"}, "wiped a.txt", ["wipe a.txt"]),
        (
            {"type": "reject", "message": "No."},
            "ERROR: A person refused the call of wipe, and nothing was executed. The reason: No.",
            [],
        ),
    ],
)
def test_a_graph_is_interrupted_for_an_approval(
    project: Project, delegating: AgentlinTaskTool, decision: Json, answer: str, acts: list[str]
) -> None:
    graph: Any = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode([delegating]))
    graph.add_edge(START, "tools")
    graph = graph.compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    call = {"type": "tool_call", "name": delegating.name, "id": "1", "args": {"instructions": "Wipe."}}
    asked = graph.invoke({"messages": [AIMessage("", tool_calls=[call])]}, config)["__interrupt__"][0].value
    (action,) = asked["action_requests"]
    assert (action["name"], action["args"]) == ("wipe", {"path": "a.txt"})
    decided = {**decision, "task_id": action["task_id"], "call_id": action["call_id"]}
    state = graph.invoke(Command(resume={"decisions": [decided]}), config)
    assert state["messages"][-1].content == answer
    assert project.acts == acts


def test_a_call_that_cannot_wait_for_a_person_leaves_the_approval_pending(
    project: Project, delegating: AgentlinTaskTool
) -> None:
    said = delegating.invoke({"instructions": "Wipe."})
    assert "it waits for a person to approve tool calls" in said
    assert '- wipe (c0): {"path": "a.txt"}' in said
    assert project.acts == []


async def test_the_toolkit_offers_them(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write(servers={"files": project.server(tools=["look"])})
    async with ScriptedRemote(asking(LOOK)).serve() as remote:
        for name, value in project.settings(remote.base_url).items():
            monkeypatch.setenv(name, value)
        toolkit = AgentlinToolkit()
        create = next(tool for tool in toolkit.get_tools() if tool.name.endswith("create_task"))
        assert project.pids == []
        try:
            with anyio.fail_after(60):
                said = await create.ainvoke({"instructions": "Look."})
        finally:
            await anyio.to_thread.run_sync(toolkit.close)
    assert "a.txt is empty" in said
