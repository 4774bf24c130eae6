"""The command `agentlin-bridge`, as a process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agentlin_bridge.cli.host_config import HOSTS
from tests.support.processes import subprocess_environment

CONFIGS = Path(__file__).parents[2] / "configs"
TOOLS = '''
def read_file(path: str) -> str:
    """Read a text file."""
    return open(path, encoding="utf-8").read()

number = 7
'''


def command(
    *arguments: str, cwd: Path | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agentlin_bridge", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=cwd,
        env=subprocess_environment(**(environment or {})),
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "tools.py").write_text(TOOLS, encoding="utf-8")
    (tmp_path / "notes.md").write_text("# Alpha\n\nzebra zebra\n\n## Beta\n", encoding="utf-8")
    return tmp_path


def test_version_and_help() -> None:
    assert command("--version").stdout.strip() == "0.1.0"
    shown = command("--help")
    assert shown.returncode == 0
    for name in ("mcp", "run", "demo", "serve", "tasks", "config"):
        assert f" {name} " in shown.stdout


def test_run_with_a_tool(project: Path, embedded: dict[str, str]) -> None:
    ran = command("run", "Digest notes.md", "--tool", "tools:read_file", cwd=project, environment=embedded)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("demo agent: ")
    assert "Alpha" in ran.stdout
    assert "zebra (2)" in ran.stdout
    whole = command("run", "Digest notes.md", "--tool", "tools:read_file", "--json", cwd=project, environment=embedded)
    task = json.loads(whole.stdout)
    assert task["status"] == "completed"
    assert [item["type"] for item in task["output"]] == ["tool_call", "tool_result", "message"]
    listed = command("tasks", "list", "--json", environment=embedded)
    assert json.loads(listed.stdout.splitlines()[0])["id"] == task["id"]
    assert len(listed.stdout.splitlines()) == 2
    assert "completed" in command("tasks", "list", "--status", "completed", environment=embedded).stdout
    shown = command("tasks", "show", task["id"], environment=embedded)
    assert shown.stdout.startswith(f"{task['id']}  completed  created ")
    assert "zebra (2)" in shown.stdout
    assert json.loads(command("tasks", "show", task["id"], "--json", environment=embedded).stdout) == task


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", " "], "The instructions are empty. Next: "),
        (["run", "x", "--tool", "tools"], "'tools' names no function. Next: write it as module:function"),
        (["run", "x", "--tool", "nowhere:f"], "'nowhere:f' cannot be loaded: No module named 'nowhere'"),
        (["run", "x", "--tool", "tools:nothing"], "has no attribute 'nothing'"),
        (["run", "x", "--tool", "tools:number"], "7 is no client tool"),
        (["tasks", "show", "task_nope"], "There is no task 'task_nope'. Next: list the tasks"),
        (["tasks", "list", "--status", "done"], "'done' is not a valid TaskStatus"),
        (["config", "emacs"], "The host 'emacs' is not known. Next: use one of: claude-desktop"),
        (["demo", "absent.md"], "absent.md cannot be read as text"),
    ],
)
def test_bad_input_gives_one_clear_line(
    project: Path, embedded: dict[str, str], arguments: list[str], said: str
) -> None:
    refused = command(*arguments, cwd=project, environment=embedded)
    assert refused.returncode == 2
    assert refused.stdout == ""
    (line,) = refused.stderr.splitlines()
    assert line.startswith("agentlin-bridge: ")
    assert said in line
    assert "Next: " in line


def test_half_a_configuration(tmp_path: Path) -> None:
    for arguments in (["mcp"], ["run", "x"], ["tasks", "list"]):
        refused = command(*arguments, environment={"AGENTLIN_BRIDGE_BACKEND": "agentlin"})
        assert refused.returncode == 2
        assert refused.stdout == ""
        (line,) = refused.stderr.splitlines()
        assert "neither AGENTLIN_BASE_URL nor AGENTLIN_API_KEY is set. Next: set AGENTLIN_API_KEY" in line
    assert (
        "names no model. Next: write it provider:model"
        in command(
            "serve", "--database", str(tmp_path / "x.sqlite3"), environment={"AGENTLIN_BRIDGE_MODEL": "gpt"}
        ).stderr
    )


def test_a_backend_that_is_down(tmp_path: Path) -> None:
    environment = {
        "AGENTLIN_BASE_URL": "http://127.0.0.1:1/v1",
        "AGENTLIN_BRIDGE_LEDGER": str(tmp_path / "ledger.sqlite3"),
    }
    refused = command("run", "x", environment=environment)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert "failed: The remote at http://127.0.0.1:1/v1 cannot be reached" in refused.stderr
    assert "Next: check that it runs" in refused.stderr


def test_run_without_the_tool_it_needs(project: Path, embedded: dict[str, str]) -> None:
    partial = """
from agentlin_bridge import ClientTool
schema = {"type": "object", "properties": {"request": {"type": "string"}}, "required": ["request"]}
ask = ClientTool("ask_host", "Ask.", schema)
"""
    (project / "partial.py").write_text(partial, encoding="utf-8")
    ran = command("run", "Digest notes.md", "--tool", "partial:ask", cwd=project, environment=embedded)
    assert ran.returncode == 1
    assert "waits for tools that were not given: ask_host(" in ran.stderr
    slow = command("run", "Digest notes.md", "--timeout", "0", cwd=project, environment=embedded)
    assert slow.returncode == 1
    assert "Next: agentlin-bridge tasks show task_" in slow.stderr
    shown = command("tasks", "show", ran.stderr.split()[1], environment=embedded)
    assert "waits for call_" in shown.stdout


def test_an_interrupted_run_cancels_its_task(project: Path, embedded: dict[str, str]) -> None:
    (project / "hang.py").write_text(
        "import sys, anyio\nasync def read_file(path: str) -> str:\n    'Hang.'\n"
        "    print('hanging', file=sys.stderr, flush=True)\n    await anyio.sleep_forever()\n",
        encoding="utf-8",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "agentlin_bridge", "run", "Digest notes.md", "--tool", "hang:read_file"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=project,
        env=subprocess_environment(**embedded),
    )
    with process:
        assert process.stderr is not None
        assert process.stderr.readline() == "hanging\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert "the task was canceled" in process.stderr.read()
    (line,) = command("tasks", "list", "--json", environment=embedded).stdout.splitlines()
    assert json.loads(line)["status"] == "canceled"
    assert json.loads(line)["remote"] == "stopped"


def test_serve_and_use_it_as_a_deployment(project: Path) -> None:
    database = project / "serve.sqlite3"
    environment = subprocess_environment(AGENTLIN_API_KEY="k3y")
    arguments = ["serve", "--port", "0", "--database", str(database)]
    process = subprocess.Popen(
        [sys.executable, "-m", "agentlin_bridge", *arguments], stderr=subprocess.PIPE, text=True, env=environment
    )
    with process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            url = next(word for word in line.split() if word.startswith("http://127.0.0.1:"))
            settings = {
                "AGENTLIN_BASE_URL": url,
                "AGENTLIN_API_KEY": "k3y",
                "AGENTLIN_BRIDGE_LEDGER": str(project / "ledger.sqlite3"),
            }
            ran = command("run", "Digest notes.md", "--tool", "tools:read_file", cwd=project, environment=settings)
            assert ran.returncode == 0, ran.stderr
            assert "zebra (2)" in ran.stdout
            wrong = command("run", "x", cwd=project, environment={**settings, "AGENTLIN_API_KEY": "wrong"})
            assert wrong.returncode == 1
            assert "refused the key (HTTP 401" in wrong.stderr
            assert "check AGENTLIN_API_KEY" in wrong.stderr
            second = command(*arguments, environment={"AGENTLIN_API_KEY": "k3y"})
            assert second.returncode == 2
            assert "owns" in second.stderr
        finally:
            process.terminate()
            assert process.wait(20) == 0


def test_demo(project: Path) -> None:
    (project / "my table.csv").write_text("city,sun\nParis,3\nRome,9\n", encoding="utf-8")
    ran = command("demo", "notes.md", "my table.csv", cwd=project)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = ran.stdout.splitlines()
    for step in (
        'host delegates: "Write a report on `notes.md`, `my table.csv`."',
        "task created: task_",
        "status: input-required",
        'read_file({"path": "notes.md"})',
        'read_file({"path": "my table.csv"})',
        "host's result: 24 characters of my table.csv",
        "status: completed",
    ):
        assert any(step in line for line in lines), step
    assert "| sun | 2 | 2 | 3 | 9 | 6 |" in ran.stdout
    assert "zebra" in ran.stdout


def test_demo_leaves_no_process_behind(project: Path, tmp_path: Path) -> None:
    before = processes()
    assert command("demo", "notes.md", cwd=project).returncode == 0
    assert processes() <= before


def processes() -> set[str]:
    """The bridge's processes on this machine that belong to a demo."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if entry.name.isdigit() and "agentlin-bridge-demo-" in line:
            found.add(entry.name)
    return found


def test_config_prints_an_entry_that_works_here() -> None:
    for name, host in HOSTS.items():
        printed = command("config", name)
        assert host.file in printed.stderr
        entry = json.loads(printed.stdout)[host.key]["agentlin"]
        assert entry["command"] == sys.executable
        assert entry["args"] == ["-m", "agentlin_bridge", "mcp"]


def test_the_files_in_configs_are_the_same_entries() -> None:
    files = {
        "claude-desktop": "claude_desktop.json",
        "claude-code": "claude_code.mcp.json",
        "cursor": "cursor.mcp.json",
        "vscode": "vscode.mcp.json",
    }
    assert set(files) == set(HOSTS)
    assert {path.name for path in CONFIGS.glob("*.json")} == set(files.values())
    for name, file in files.items():
        content = json.loads((CONFIGS / file).read_text(encoding="utf-8"))
        assert content == HOSTS[name].entry("agentlin-bridge", ["mcp"])
