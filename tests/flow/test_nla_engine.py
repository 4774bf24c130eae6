"""NLA Engine as a remote: through MCP stdio, a script, LangChain and the command line, alone and beside another one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from agentlin_bridge import InvalidRequestError, TaskBridge, TaskStatus
from agentlin_bridge.hosts.langchain import AgentlinTaskTool, AgentlinToolkit
from agentlin_bridge.wiring import DEMO_NOTICE
from tests.hosts.mcp.conftest import READ_FILE, Host, connected, text_of
from tests.support.nla_engine import Json, NlaEngine, Run
from tests.support.processes import subprocess_environment

pytestmark = pytest.mark.anyio

CALLBACK = 'callback = "http://127.0.0.1:9/hook"'
"""Nobody listens there: it is only what a lost start is told by."""
START = "POST /workflow/writer"


def answering(agent: str, body: Json) -> Run:
    """A run that is complete at the first look."""
    return Run([{"status": "complete", "output": {"answer": f"{agent}: {body['input']['prompt']}"}}])


@dataclass
class Setting:
    """A host's directory and environment."""

    engine: NlaEngine
    directory: Path
    environment: dict[str, str]

    def configure(self, *lines: str) -> None:
        """Write the configuration file."""
        text = "\n".join(["[limits]", "settle = 0.5", *lines])
        (self.directory / "agentlin-bridge.toml").write_text(text, encoding="utf-8")

    def enter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make it this process's own."""
        monkeypatch.chdir(self.directory)
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    with anyio.fail_after(90):
        async with NlaEngine(answering).serve() as engine:
            environment = {
                "AGENTLIN_BRIDGE_BACKEND": "nla",
                "AGENTLIN_BRIDGE_LEDGER": str(tmp_path / "ledger.sqlite3"),
                "NLA_ENGINE_BASE_URL": engine.base_url,
                "NLA_ENGINE_API_KEY": "engine-key",
                "NLA_ENGINE_AGENT": "writer",
            }
            made = Setting(engine, tmp_path, environment)
            made.configure()
            yield made


@dataclass
class Told:
    """What a host learns of its task."""

    status: str
    text: str
    remote: str | None


async def by_mcp(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> Told:
    """Delegate through MCP on stdio."""
    async with connected(setting.environment, setting.directory) as host:
        result = await host.call("create_task", instructions="a heist")
    told = dict(result.structured_content or {})
    assert result.is_error == (told["status"] != "completed")
    return Told(told["status"], text_of(result), told.get("remote"))


async def by_script(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> Told:
    """Delegate from a script."""
    setting.enter(monkeypatch)
    async with TaskBridge.from_env() as bridge:
        task = await bridge.run("a heist")
    return Told(task.status.value, task.answer or (task.error.message if task.error else ""), task.remote)


Delegate = Callable[[Setting, pytest.MonkeyPatch], Awaitable[Told]]
BY_EACH = pytest.mark.parametrize("delegate", [by_mcp, by_script])


@BY_EACH
async def test_a_task_is_answered(setting: Setting, delegate: Delegate, monkeypatch: pytest.MonkeyPatch) -> None:
    told = await delegate(setting, monkeypatch)
    assert told.status == "completed"
    assert "writer: a heist" in told.text
    assert setting.engine.starts == [{"input": {"prompt": "a heist"}}]


@BY_EACH
async def test_a_run_that_ends_with_an_error(
    setting: Setting, delegate: Delegate, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting.engine.behave = lambda agent, body: Run([{"status": "error", "logs": ["Writer: no credit is left"]}])
    told = await delegate(setting, monkeypatch)
    assert told.status == "failed"
    assert "no credit is left" in told.text
    assert "Next: " in told.text


@BY_EACH
async def test_a_run_that_never_ends(setting: Setting, delegate: Delegate, monkeypatch: pytest.MonkeyPatch) -> None:
    setting.engine.behave = lambda agent, body: Run()
    setting.configure("task_deadline = 2.0")
    told = await delegate(setting, monkeypatch)
    assert (told.status, told.remote) == ("expired", "unsupported")
    assert "did not end within its deadline" in told.text


@BY_EACH
async def test_a_wrong_key(setting: Setting, delegate: Delegate, monkeypatch: pytest.MonkeyPatch) -> None:
    setting.environment["NLA_ENGINE_API_KEY"] = "wrong-key"
    told = await delegate(setting, monkeypatch)
    assert told.status == "failed"
    assert "refused the key (HTTP 401" in told.text
    assert "check NLA_ENGINE_API_KEY" in told.text
    assert "wrong-key" not in told.text


@BY_EACH
async def test_a_run_that_somebody_deletes(
    setting: Setting, delegate: Delegate, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting.engine.behave = lambda agent, body: Run()

    async def delete() -> None:
        await setting.engine.looked.wait()
        setting.engine.tasks.clear()

    async with anyio.create_task_group() as group:
        group.start_soon(delete)
        told = await delegate(setting, monkeypatch)
    assert told.status == "failed"
    assert "somebody deleted it there" in told.text


@BY_EACH
async def test_a_start_whose_reply_is_lost(
    setting: Setting, delegate: Delegate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lossy(agent: str, body: Json) -> Run:
        run = answering(agent, body)
        run.reply = "lost"
        return run

    setting.engine.behave = lossy
    setting.environment["NLA_ENGINE_AGENT"] = "nobody"
    setting.configure("[agents.movies]", 'agent_id = "writer"', CALLBACK)
    setting.enter(monkeypatch)
    if delegate is by_mcp:
        async with connected(setting.environment, setting.directory) as host:
            text = (await host.ask("create_task", instructions="a heist", agent="movies"))["answer"]
    else:
        async with TaskBridge.from_env() as bridge:
            text = (await bridge.run("a heist", agent="movies")).answer
    assert text == "writer: a heist"
    assert setting.engine.count(START) == 1


async def test_a_start_that_nobody_can_find_again_is_not_repeated(setting: Setting) -> None:
    """It takes as long as a lost start is looked for."""
    setting.engine.behave = lambda agent, body: Run(reply="unstored")
    async with connected(setting.environment, setting.directory) as host:
        result = await host.call("create_task", instructions="a heist", request_id="one")
        again = await host.call("create_task", instructions="a heist", request_id="one")
    assert "Whether NLA Engine runs the agent 'writer' for this task is unknown" in text_of(result)
    assert "It is not sent again" in text_of(result)
    assert text_of(again) == text_of(result)
    assert setting.engine.count(START) == 1


# What it cannot do ---------------------------------------------------------------------------------------


async def test_a_host_is_offered_no_more_than_it_can(setting: Setting) -> None:
    async with connected(setting.environment, setting.directory) as host:
        names = [tool.name for tool in (await host.client.list_tools()).tools]
        assert not [name for name in names if name.endswith(("pause_task", "resume_task"))]
        assert "they cannot call your tools" in (host.client.instructions or "")
        said = await host.refused("create_task", instructions="a heist", client_tools=[READ_FILE])
        assert "cannot call client tools" in said
        assert setting.engine.requests == []
        assert (await host.ask("list_tasks"))["tasks"] == []


async def test_a_canceled_run_is_said_to_go_on(setting: Setting) -> None:
    setting.engine.behave = lambda agent, body: Run()
    async with connected(setting.environment, setting.directory) as host:
        working = await host.ask("create_task", instructions="a heist", wait_seconds=0)
        await setting.engine.started.wait()
        result = await host.call("cancel_task", task_id=working["task_id"])
    assert "canceled; remote: unsupported (this backend cannot stop a run; it may go on" in text_of(result)
    (run,) = setting.engine.tasks.values()
    assert run["status"] == "running"


# Other hosts ---------------------------------------------------------------------------------------------


async def test_a_langchain_tool(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    setting.enter(monkeypatch)

    def look(path: str) -> str:
        """Look at a file."""
        raise AssertionError(path)

    for tools, said in (([], "writer: a heist"), ([look], "cannot call client tools")):
        tool = AgentlinTaskTool(client_tools=tools)
        try:
            assert said in await tool.ainvoke({"instructions": "a heist"})
        finally:
            await anyio.to_thread.run_sync(tool.close)
    assert setting.engine.count(START) == 1


async def test_the_command_line(setting: Setting) -> None:
    ran = await anyio.to_thread.run_sync(command, setting, "run", "a heist")
    assert (ran.returncode, ran.stdout) == (0, "writer: a heist\n"), ran.stderr
    listed = await anyio.to_thread.run_sync(command, setting, "tasks", "list", "--json")
    assert '"status":"completed"' in listed.stdout


def command(setting: Setting, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agentlin_bridge", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=setting.directory,
        stdin=subprocess.DEVNULL,
        env=subprocess_environment(**setting.environment),
    )


AGENTS: list[Json] = [
    {"id": "writer", "name": "Writer", "description": "Writes [heist] films", "variables": {"replicate": "r8_secret"}},
    {
        "id": "movie",
        "name": "Movie",
        "description": "Films",
        "workflow": [{"type": "prompt", "user": "{prompt} as {genre}", "output": "film"}],
    },
]


async def test_the_command_line_names_an_agent_and_lists_them(setting: Setting) -> None:
    setting.engine.agents = AGENTS
    setting.configure("[agents.films]", 'agent_id = "movie"', "[agents.plain]")
    ran = await anyio.to_thread.run_sync(command, setting, "run", "a heist", "--agent", "films")
    assert (ran.returncode, ran.stdout) == (0, "movie: a heist\n"), ran.stderr
    listed = await anyio.to_thread.run_sync(command, setting, "agents", "--json")
    rows = [json.loads(line) for line in listed.stdout.splitlines()]
    assert rows[:2] == [{"profile": "films", "backend": "nla"}, {"profile": "plain", "backend": "nla"}]
    assert [(row["backend"], row["id"], row["inputs"]) for row in rows[2:]] == [
        ("nla", "writer", []),
        ("nla", "movie", ["prompt", "genre"]),
    ]
    shown = await anyio.to_thread.run_sync(command, setting, "agents", "heist")
    assert shown.returncode == 0
    assert "Writes [heist] films" in shown.stdout
    assert not [left_out for left_out in ("movie", "plain", "r8_secret") if left_out in shown.stdout]


async def test_a_remote_that_cannot_list_its_agents_is_named(setting: Setting) -> None:
    setting.environment["NLA_ENGINE_API_KEY"] = "wrong-key"
    setting.configure("[agents.films]", 'agent_id = "movie"')
    listed = await anyio.to_thread.run_sync(command, setting, "agents")
    assert listed.returncode == 1
    assert "films" in listed.stdout
    assert "refused the key (HTTP 401" in listed.stderr
    assert "Next: check NLA_ENGINE_API_KEY" in listed.stderr


# Side by side --------------------------------------------------------------------------------------------


@pytest.fixture(params=["embedded", "nla"])
def both(request: pytest.FixtureRequest, setting: Setting, embedded_database: Path) -> Setting:
    """Both remotes, the one or the other as the default."""
    setting.environment["AGENTLIN_BRIDGE_BACKEND"] = request.param
    setting.environment["AGENTLIN_BRIDGE_DATABASE"] = str(embedded_database)
    setting.configure(
        *("[agents.movies]", 'backend = "nla"', 'agent_id = "writer"'),
        *("[agents.digests]", 'backend = "embedded"'),
    )
    return setting


async def digest(host: Host, **arguments: Any) -> str:
    """Have the demo agent digest a file that it has to ask the host for."""
    asked = await host.ask("create_task", instructions="Digest notes.md", **arguments)
    (call,) = asked["tool_calls"]
    assert call["name"] == "ask_host"
    results = [{"call_id": call["call_id"], "content": "# Alpha\n\nzebra zebra\n"}]
    done = await host.ask("submit_tool_results", task_id=asked["task_id"], results=results)
    return str(done["answer"])


async def test_one_mcp_host_uses_both(both: Setting) -> None:
    is_embedded = both.environment["AGENTLIN_BRIDGE_BACKEND"] == "embedded"
    async with connected(both.environment, both.directory) as host:
        create = (await host.client.list_tools()).tools[0]
        assert "Agent profiles: movies, digests." in (create.description or "")
        assert "Note on movies: NLA Engine" in (host.client.instructions or "") or not is_embedded
        written = await host.ask("create_task", instructions="a heist", agent="movies")
        digested = await digest(host, agent="digests")
        by_default = await digest(host) if is_embedded else (await host.ask("create_task", instructions="b"))["answer"]
        said = await host.refused("create_task", instructions="x", agent="movies", client_tools=[READ_FILE])
        unknown = await host.refused("create_task", instructions="x", agent="nobody")
        tasks = (await host.ask("list_tasks"))["tasks"]
    assert written["answer"] == "writer: a heist"
    assert "zebra (2)" in digested
    assert ("zebra (2)" if is_embedded else "writer: b") in by_default
    assert "'nla' cannot call client tools" in said
    assert "There is no agent profile 'nobody' (known: digests, movies)" in unknown
    assert [task["status"] for task in tasks] == ["completed"] * 3
    assert both.engine.count(START) == (1 if is_embedded else 2)


async def test_a_backend_that_cannot_list_agents_has_none(both: Setting) -> None:
    both.engine.agents = AGENTS[:1]
    listed = await anyio.to_thread.run_sync(command, both, "agents", "--json")
    assert listed.returncode == 0, listed.stderr
    backends = {"movies": "nla", "digests": "embedded", "writer": "nla"}
    rows = [json.loads(line) for line in listed.stdout.splitlines()]
    assert {row.get("profile") or row["id"]: row["backend"] for row in rows} == backends


async def test_one_script_uses_both(both: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    both.enter(monkeypatch)

    def read_file(path: str) -> str:
        """Read a text file."""
        return f"# {path}\n\nwalrus"

    async with TaskBridge.from_env() as bridge:
        requests: list[Json] = [
            {"instructions": "a heist", "agent": "movies"},
            {"instructions": "Digest a.md", "agent": "digests", "client_tools": [read_file]},
        ]
        written, digested = await bridge.run_many(requests)
        with pytest.raises(InvalidRequestError, match="'nla' cannot call client tools"):
            await bridge.run("x", agent="movies", client_tools=[read_file])
    assert written.answer == "writer: a heist"
    assert digested.status is TaskStatus.COMPLETED
    assert (digested.answer or "").startswith(DEMO_NOTICE)
    assert "walrus (1)" in (digested.answer or "")


async def test_one_langchain_agent_uses_both(both: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    both.enter(monkeypatch)

    def read_file(path: str) -> str:
        """Read a text file."""
        return f"# {path}\n\nwalrus"

    writes = AgentlinTaskTool(name="write", agent="movies")
    digests = AgentlinTaskTool(name="digest", agent="digests", client_tools=[read_file])
    toolkit = AgentlinToolkit()
    create = next(tool for tool in toolkit.get_tools() if tool.name.endswith("create_task"))
    try:
        assert await writes.ainvoke({"instructions": "a heist"}) == "writer: a heist"
        assert "walrus (1)" in await digests.ainvoke({"instructions": "Digest a.md"})
        assert "writer: b" in await create.ainvoke({"instructions": "b", "agent": "movies"})
    finally:
        for opened in (writes, digests, toolkit):
            await anyio.to_thread.run_sync(opened.close)
