"""The tools the configuration has the bridge run, offered with every task and executed under their approval."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentlin_bridge import ClientTool, ConfigurationError, Task, TaskBridge
from agentlin_bridge.remote.agentlin.backend import AgentlinBackend
from agentlin_bridge.settings import load_settings
from agentlin_bridge.wiring import build_bridge
from tests.server.model_agent.test_tool_servers import over_http
from tests.support.remote import Json, ScriptedRemote, Turn, message
from tests.tool_servers.setting import Project, asking, offered

pytestmark = pytest.mark.anyio

BARE = Path(__file__).parent / "bare.py"
PATH = {"path": "a"}
ECHO: Json = {"command": [sys.executable, "-c", "import sys; print(sys.stdin.read())"], "approval": "never"}

Agent = Callable[[Json], Turn]


def answers(_: Json) -> Turn:
    return Turn([message("done")])


@pytest.fixture
def run(project: Project, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a task with a remote agent; what the task became, and what the remote was asked."""

    async def run_task(agent: Agent, *, bound: Any = (), **request: Any) -> tuple[Task, ScriptedRemote]:
        with anyio.fail_after(60):
            async with ScriptedRemote(agent).serve() as remote:
                for name, value in project.settings(remote.base_url).items():
                    monkeypatch.setenv(name, value)
                async with TaskBridge.from_env(client_tools=bound) as bridge:
                    return await bridge.run("Do it.", **request), remote

    return run_task


@pytest.mark.parametrize(
    ("server", "asked_for"),
    [
        ({}, ["wipe", "guess"]),
        ({"approval": "never"}, []),
        ({"approval": "always"}, ["look", "add", "wipe", "guess"]),
        ({"approval": "always", "approvals": {"look": "never", "add": "destructive"}}, ["wipe", "guess"]),
        ({"approvals": {"look": "always", "guess": "never"}}, ["look", "wipe"]),
    ],
)
async def test_which_calls_a_person_has_to_approve(
    project: Project, run: Any, server: Json, asked_for: list[str]
) -> None:
    project.write(servers={"files": project.server(**server)})
    tools = ["look", "add", "wipe", "guess"]

    def agent(body: Json) -> Turn:
        return Turn([asking((name, PATH))(body).output[0] | {"call_id": name} for name in tools])

    task, _ = await run(agent)
    assert [call.name for call in task.pending] == asked_for
    assert all(call.approval_required for call in task.pending)
    assert sorted(project.acts) == sorted(f"{name} a" for name in tools if name not in asked_for)


async def test_two_servers_with_the_same_tool_are_an_error_that_names_both(project: Project, run: Any) -> None:
    project.write(servers={"one": project.server(tools=["look"]), "two": project.server(tools=["look", "add"])})
    said = "Two tools are called 'look': one is of the tool server 'one', the other of the tool server 'two'.*a prefix"
    with pytest.raises(ConfigurationError, match=said):
        await run(answers)


async def test_of_two_tools_of_one_name_that_come_to_light_later_the_first_is_offered(
    project: Project, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    bare = {"command": sys.executable, "args": [str(BARE), str(project.notes)]}
    listed = {**bare, "tools": ["swap"]}
    project.write(servers={"one": bare, "two": bare, "three": listed}, commands={"quit": ECHO})
    task, remote = await run(answers)
    sources = task.metadata["bridge_tools"]
    assert sources == {
        "quit": "the command 'quit'",
        "first": "the tool server 'one'",
        "liar": "the tool server 'one'",
        "swap": "the tool server 'three'",
    }
    assert sorted(offered(remote.posts[0])) == sorted(sources)
    said = "'first' of the tool server 'two' is left out: the tool server 'one' has a tool of that name. Next: under"
    assert said in caplog.text


async def test_a_prefix_keeps_them_apart(project: Project, run: Any) -> None:
    servers = {"one": project.server(tools=["look"]), "two": project.server(tools=["look"], prefix="two-")}
    project.write(servers=servers)
    task, remote = await run(asking(("look", PATH), ("two-look", PATH)))
    assert task.answer == "a is empty\na is empty"
    assert offered(remote.posts[0]) == ["look", "two-look"]
    assert len(project.pids) == 2


async def test_a_tool_given_to_the_bridge_and_one_of_a_server(project: Project, run: Any) -> None:
    project.write(servers={"files": project.server(tools=["look"])})
    with pytest.raises(ConfigurationError, match=r"those given to the bridge.*the tool server 'files'"):
        await run(answers, bound=[ClientTool("look")])


async def test_a_declared_tool_and_a_command(project: Project, run: Any) -> None:
    project.write(commands={"echo": ECHO}, echo={"description": "Mine."})
    with pytest.raises(ConfigurationError, match=r"\[client_tools.echo\], which the host executes.*the command 'echo'"):
        await run(answers)


async def test_a_tool_of_the_hosts_goes_before_one_of_the_same_name(project: Project, run: Any) -> None:
    project.write(servers={"files": project.server(tools=["look", "add"])})
    task, remote = await run(asking(("look", PATH)), client_tools=[{"name": "look", "description": "The host's."}])
    assert [(call.name, call.approval_required) for call in task.pending] == [("look", False)]
    assert offered(remote.posts[0]) == ["look", "add"]
    assert project.acts == []


async def test_commands_alone_and_all_taken(project: Project, run: Any) -> None:
    project.write(commands={"echo": ECHO})
    task, remote = await run(asking(("echo", {})))
    assert json.loads(task.answer) == {}
    task, remote = await run(answers, client_tools=[{"name": "echo", "description": "The host's."}])
    assert offered(remote.posts[0]) == ["echo"]
    assert "bridge_tools" not in task.metadata


async def test_metadata_of_the_hosts_is_kept(project: Project, run: Any) -> None:
    project.write(commands={"echo": ECHO})
    task, _ = await run(answers, metadata={"mine": 1})
    assert task.metadata == {"mine": 1, "bridge_tools": {"echo": "the command 'echo'"}}
    project.config.write_text("", encoding="utf-8")
    task, _ = await run(asking(("echo", {})), metadata={"bridge_tools": 3}, client_tools=[{"name": "echo"}])
    assert [call.name for call in task.pending] == ["echo"]


async def test_a_backend_that_takes_no_client_tools_is_offered_none(
    project: Project, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write(commands={"echo": ECHO})
    made = AgentlinBackend.__init__

    def less_able(backend: AgentlinBackend, *given: Any, **named: Any) -> None:
        made(backend, *given, **named)
        backend.capabilities = replace(backend.capabilities, client_tools=False)

    monkeypatch.setattr(AgentlinBackend, "__init__", less_able)
    task, remote = await run(answers)
    assert task.answer == "done"
    assert offered(remote.posts[0]) == []


async def test_the_same_request_is_the_same_task_though_a_server_is_gone(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    async with ScriptedRemote(answers).serve() as remote:
        for name, value in project.settings(remote.base_url).items():
            monkeypatch.setenv(name, value)
        for server in (project.server(tools=["look"]), {"command": "no-such-tool-server"}):
            project.write(servers={"files": server})
            with anyio.fail_after(60):
                async with TaskBridge.from_env() as bridge:
                    made.append((await bridge.run("Do it.", request_id="r1")).id)
    assert made[0] == made[1]
    assert len(remote.posts) == 1


async def test_no_secret_reaches_the_remote_the_ledger_or_the_log(
    project: Project, run: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FILES_TOKEN", "secret-token")
    failing = [sys.executable, "-c", "import sys; sys.exit('bad ${FILES_TOKEN}')"]
    project.write(
        servers={"files": project.server(env={"TOKEN": "${FILES_TOKEN}"})},
        commands={"fail": {"command": failing, "approval": "never"}},
    )
    task, remote = await run(asking(("tell", {}), ("fail", {})))
    assert "ERROR: tell failed: refused for [...] at https://example.org" in task.answer
    assert "ERROR: fail ended with status 1.\nbad [...]" in task.answer
    stored = b"".join(path.read_bytes() for path in project.directory.glob("ledger*") if path.is_file())
    assert b"secret-token" not in stored
    assert "secret-token" not in caplog.text + str(remote.posts) + repr(load_settings().load_config())
    assert "secret-token" in project.notes.read_text(encoding="utf-8")


async def test_tools_over_http(project: Project, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_TOKEN", "secret-token")
    async with over_http() as port:
        web = {"url": f"http://127.0.0.1:{port}/mcp", "headers": {"Authorization": "Bearer ${WEB_TOKEN}"}}
        project.write(servers={"web": {**web, "tools": ["add"], "approval": "never"}})
        task, _ = await run(asking(("add", {"a": 2, "b": 3})))
    assert task.answer == "5"


async def test_a_tool_that_cannot_be_offered_is_left_out(
    project: Project, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    bare = {"command": sys.executable, "args": [str(BARE), str(project.notes)], "approvals": {"frist": "always"}}
    project.write(servers={"bare": bare})
    _, remote = await run(answers)
    assert offered(remote.posts[0]) == ["first", "liar", "swap", "quit"]
    assert "the tool server 'bare': its tool twisted is left out" in caplog.text
    assert "the tool server 'bare' has no tool frist, for which `approvals` says something" in caplog.text


async def test_a_server_that_is_down_is_missed_once(
    project: Project, run: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    project.write(servers={"gone": {"command": "no-such-tool-server"}})
    async with ScriptedRemote(answers).serve() as remote:
        for name, value in project.settings(remote.base_url).items():
            monkeypatch.setenv(name, value)
        with anyio.fail_after(60):
            async with TaskBridge.from_env() as bridge:
                for _ in range(3):
                    assert (await bridge.run("Do it.")).answer == "done"
    assert caplog.text.count("Tasks go on without its tools") == 1


async def test_a_task_does_not_wait_long_for_a_server(
    project: Project, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    silent = {"command": sys.executable, "args": ["-c", "import sys; sys.stdin.read()"], "start_timeout": 0.3}
    project.write(servers={"slow": silent})
    _, remote = await run(answers)
    assert offered(remote.posts[0]) == []
    assert "the tool server slow is not up after 0.3 seconds. Tasks go on without its tools." in caplog.text


async def test_one_start_of_a_server_is_waited_for_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = {"command": sys.executable, "args": ["-c", "import sys; sys.stdin.read()"], "start_timeout": 2}
    project.write(servers={"slow": silent})
    async with ScriptedRemote(answers).serve() as remote:
        for name, value in project.settings(remote.base_url).items():
            monkeypatch.setenv(name, value)
        with anyio.fail_after(60):
            async with TaskBridge.from_env() as bridge:
                await bridge.run("Do it.")
                began = anyio.current_time()
                for _ in range(6):
                    await bridge.run("Do it.")
    # Were it waited for by each, that would be 12 seconds.
    assert anyio.current_time() - began < 10


async def test_what_waits_for_a_person_waits_also_while_the_server_is_down(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedRemote(asking(("wipe", PATH))).serve() as remote:
        for name, value in project.settings(remote.base_url).items():
            monkeypatch.setenv(name, value)
        with anyio.fail_after(60):
            project.write(servers={"files": project.server()})
            async with TaskBridge.from_env() as bridge:
                task = await bridge.run("Wipe.")
            project.write(servers={"files": {"command": "no-such-tool-server"}})
            async with TaskBridge.from_env() as bridge:
                (call,) = (await bridge.wait(task.id)).pending
                assert call.approval_required
            project.write(servers={"files": project.server()})
            async with TaskBridge.from_env() as bridge:
                await bridge.approve(task.id, [call.call_id])
                task = await bridge.wait(task.id)
    assert task.answer == "wiped a"
    assert project.acts == ["wipe a"]


async def lasting(project: Project, monkeypatch: pytest.MonkeyPatch, later: Json, name: str = "look") -> Task:
    """A task whose call comes when another bridge, with another configuration, carries it on."""
    gate = anyio.Event()
    agent = asking((name, PATH))

    async def turn(body: Json) -> Turn:
        await gate.wait()
        return agent(body)

    with anyio.fail_after(60):
        async with ScriptedRemote(turn).serve() as remote:
            for variable, value in project.settings(remote.base_url).items():
                monkeypatch.setenv(variable, value)
            project.write(servers={"files": project.server()})
            async with TaskBridge.from_env() as bridge:
                created = await bridge.create("Look.")
            project.write(**later)
            gate.set()
            async with TaskBridge.from_env() as bridge:
                return await bridge.wait(created.id)


async def test_a_source_that_is_no_longer_configured_leaves_its_calls_to_the_host(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await lasting(project, monkeypatch, {"servers": {}})
    assert [call.name for call in task.pending] == ["look"]


async def test_a_server_that_is_down_after_a_restart_is_an_error_result(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await lasting(project, monkeypatch, {"servers": {"files": {"command": "no-such-tool-server"}}})
    assert task.answer is not None
    assert task.answer.startswith("ERROR: the tool server files cannot be used: FileNotFoundError")
    assert task.answer.endswith("look was not run.")


async def test_a_tool_that_is_gone_after_a_restart_is_an_error_result(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await lasting(project, monkeypatch, {"servers": {"files": project.server(tools=["add"])}})
    assert task.answer == "ERROR: the tool server 'files' has no tool 'look' any more. It was not run."


async def test_another_source_never_gets_the_call(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    later = {"servers": {"files": project.server(tools=["add"]), "other": project.server(tools=["look"])}}
    task = await lasting(project, monkeypatch, later)
    assert task.answer is not None
    assert "the tool server 'files' has no tool 'look' any more" in task.answer
    assert project.acts == []


async def test_a_bridge_that_only_looks_starts_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write(servers={"files": project.server(tools=["look"])})
    async with ScriptedRemote(answers).serve() as remote:
        for name, value in project.settings(remote.base_url).items():
            monkeypatch.setenv(name, value)
        with anyio.fail_after(60):
            async with build_bridge(has_own_tools=False) as bridge:
                assert (await bridge.run("Do it.")).answer == "done"
    assert offered(remote.posts[0]) == []
    assert project.pids == []


async def test_a_bridge_that_creates_no_task_starts_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write(servers={"files": project.server()})
    for name, value in project.settings("http://127.0.0.1:1/v1").items():
        monkeypatch.setenv(name, value)
    with anyio.fail_after(30):
        async with TaskBridge.from_env() as bridge:
            assert [task async for task in bridge.list()] == []
    assert project.pids == []


def test_a_bridge_that_is_not_open_starts_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write(servers={"files": project.server()})
    for name, value in project.settings("http://127.0.0.1:1/v1").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Exception, match="The bridge is not open"):
        anyio.run(TaskBridge.from_env().create, "Do it.")
    assert project.pids == []


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"servers": {"a": {"tools": ["x"]}}}, "client_tools.servers.a says not how the server is reached"),
        ({"host_servers": ["a"]}, "host_servers names servers, but no host_file"),
        ({"servers": {"a": {"command": "x", "env": {"K": "${NO_SUCH}"}}}}, "servers.a.env.K refers to .* NO_SUCH"),
        ({"servers": {"a": {"url": "${WHERE}"}}}, "client_tools.servers.a.url is no http"),
        ({"servers": {"a": {"url": "x", "headers": {"K": "hidden"}, "cwd": "y"}}}, "servers.a: args, env and cwd"),
        ({"servers": {"a": {"command": "x", "headers": {"K": "hidden"}}}}, "servers.a: headers belong to a url"),
        ({"servers": {"a": {"type": "http", "command": "x"}}}, "servers.a: type 'http' needs a url"),
        ({"servers": {"a": {"command": "${NO_SUCH:-}"}}}, "servers.a cannot be used with its variables filled in"),
        ({"servers": {"a": {"command": "x", "approval": "sometimes"}}}, "client_tools.servers.a.approval: Input"),
        ({"servers": {"a": {"command": "x", "timeuot": 1}}}, "client_tools.servers.a.timeuot: Extra inputs"),
        ({"servers": {"a": 3}}, "client_tools.servers.a: Input should be"),
        ({"servers": 3}, "client_tools.servers: Input should be"),
        ({"servers": {"a": {"command": "x", "prefix": "a b"}}}, "client_tools.servers.a.prefix: String"),
        ({"commands": {"a b": {"command": ["x"]}}}, "client_tools.commands.a b"),
        ({"commands": {"a": {"command": "x"}}}, "client_tools.commands.a.command: Input should be"),
        ({"commands": {"a": {"command": []}}}, "client_tools.commands.a.command: List should have"),
        ({"commands": {"a": {"command": ["x"], "parameters": {"type": "array"}}}}, "client_tools.commands.a: The para"),
        ({"host_file": "missing.json"}, "The host file .*missing.json cannot be read"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_named(
    project: Project, monkeypatch: pytest.MonkeyPatch, sections: Json, said: str
) -> None:
    monkeypatch.setenv("WHERE", "ftp://x")
    project.write(**sections)
    monkeypatch.setenv("AGENTLIN_BRIDGE_CONFIG", str(project.config))
    with pytest.raises(ConfigurationError, match=said) as caught:
        TaskBridge.from_env()
    assert caught.value.next_step
    assert "hidden" not in str(caught.value)


def test_a_declared_tool_may_have_the_name_of_a_section(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTLIN_BRIDGE_CONFIG", str(project.config))
    project.write(servers={"description": "Restart servers."}, commands={"parameters": {"type": "object"}})
    config = load_settings().load_config()
    assert list(config.client_tools) == ["servers", "commands"]
    assert (config.tool_servers, config.tool_commands) == ({}, {})
    project.config.write_text("client_tools = 3", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="client_tools: Input should be"):
        load_settings().load_config()


async def test_servers_of_a_host_file_and_what_is_said_about_them(project: Project, run: Any) -> None:
    server = project.server()
    content = {
        "mcpServers": {
            "files": server,
            "others": server,
            "own": {"command": "never-started"},
            "agentlin": {"command": "agentlin-bridge", "args": ["mcp"]},
        }
    }
    (project.directory / "host.json").write_text(json.dumps(content), encoding="utf-8")
    servers = {"files": {"tools": ["look"], "prefix": "my_"}, "own": project.server(tools=["add"])}
    project.write(host_file="host.json", host_servers=["own"], servers=servers)
    task, remote = await run(asking(("my_look", PATH)))
    assert task.answer == "a is empty"
    assert sorted(offered(remote.posts[0])) == ["add", "my_look"]
    assert len(project.pids) == 2


@pytest.mark.parametrize("reference", ["${workspaceFolder}", "${input:key}", "${NO_SUCH}"])
async def test_a_server_of_a_host_file_that_only_the_host_can_start_is_left_out(
    project: Project, run: Any, reference: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("workspaceFolder", raising=False)
    monkeypatch.delenv("NO_SUCH", raising=False)
    odd = {"command": "odd", "env": {"KEY": reference, "OTHER": "hidden"}}
    content = {"mcpServers": {"odd": odd, "files": project.server()}}
    (project.directory / "host.json").write_text(json.dumps(content), encoding="utf-8")
    project.write(host_file="host.json", servers={"files": {"tools": ["look"]}})
    _, remote = await run(answers)
    assert offered(remote.posts[0]) == ["look"]
    assert "the MCP server 'odd' of" in caplog.text
    assert "is left out: client_tools.servers.odd.env.KEY refers to" in caplog.text
    assert "Next: describe it under [client_tools.servers]" in caplog.text
    assert "hidden" not in caplog.text
    for asked_for in ({"host_servers": ["odd"]}, {"servers": {"odd": {"prefix": "a"}}}):
        project.write(host_file="host.json", **asked_for)
        with pytest.raises(ConfigurationError, match=r"servers\.odd\.env\.KEY refers to"):
            await run(answers)


def test_the_mcp_extra_is_needed_for_servers_only(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTLIN_BRIDGE_CONFIG", str(project.config))
    asked: list[str] = []
    monkeypatch.setattr("agentlin_bridge.bridge_tools.configured.require_extra", asked.append)
    project.write(commands={"echo": ECHO})
    TaskBridge.from_env(base_url="http://127.0.0.1:1/v1")
    assert asked == []
    project.write(servers={"files": project.server()})
    TaskBridge.from_env(base_url="http://127.0.0.1:1/v1")
    assert asked == ["mcp"]
