"""`agentlin-bridge run` at a terminal: the person there decides what the bridge's tools may do."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio.to_thread
import pytest

from agentlin_bridge.hosts.approvals import TOO_LONG
from tests.support.processes import subprocess_environment
from tests.support.remote import ScriptedRemote
from tests.tool_servers.setting import Project, asking

pytestmark = pytest.mark.anyio


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    command = [sys.executable, "-c", "import sys; open('ran', 'a').write(sys.stdin.read()); print('done')"]
    parameters = {"type": "object", "properties": {"what": {"type": "string"}}}
    project.write(commands={"act": {"command": command, "cwd": str(tmp_path), "parameters": parameters}})
    return project


class Terminal:
    """The command at a terminal of its own."""

    def __init__(self, project: Project, base_url: str) -> None:
        self.shown = ""
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agentlin_bridge", "run", "Act."],
            stdin=slave,
            stderr=slave,
            stdout=subprocess.PIPE,
            text=True,
            cwd=project.directory,
            env=subprocess_environment(**project.settings(base_url)),
        )
        os.close(slave)

    def until(self, text: str, seconds: float = 30) -> None:
        """Read until the terminal has shown a text once more."""
        before = self.shown.count(text)
        deadline = time.monotonic() + seconds
        while self.shown.count(text) == before:
            ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, self.shown
            self.shown += os.read(self._master, 4096).decode()

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def end(self) -> tuple[int, str]:
        """Its status and what it printed."""
        printed, _ = self.process.communicate(timeout=30)
        try:
            while chunk := os.read(self._master, 4096):
                self.shown += chunk.decode()
        except OSError:
            pass  # how a terminal ends
        os.close(self._master)
        return self.process.returncode, printed


def ran(project: Project) -> str:
    found = project.directory / "ran"
    return found.read_text(encoding="utf-8") if found.exists() else ""


async def at_terminal(project: Project, *typed: str, what: str = "sail\x1b[2J") -> Terminal:
    """A terminal at which this was typed, one question after the other."""

    def play(base_url: str) -> Terminal:
        terminal = Terminal(project, base_url)
        for text in typed:
            terminal.until("Run it? [y/n] ")
            terminal.type(text)
        return terminal

    async with ScriptedRemote(asking(("act", {"what": what}))).serve() as remote:
        terminal = await anyio.to_thread.run_sync(play, remote.base_url)
        status, printed = await anyio.to_thread.run_sync(terminal.end)
    terminal.shown += f"\n{status}\n{printed}"
    return terminal


async def test_what_the_person_approves_is_run(project: Project) -> None:
    terminal = await at_terminal(project, "what\n", "y\n")
    assert terminal.shown.endswith("\n0\ndone\n\n") or terminal.shown.endswith("\n0\ndone\n")
    assert "wants to run the tool act here" in terminal.shown
    assert "\x1b" not in terminal.shown
    assert ran(project) == '{"what": "sail\\u001b[2J"}'


async def test_what_the_person_refuses_is_not(project: Project) -> None:
    terminal = await at_terminal(project, "no\n")
    assert "\n0\nERROR: The user refused to let this tool run. Nothing was executed.\n" in terminal.shown
    assert ran(project) == ""


async def test_what_cannot_be_shown_as_a_whole_is_not_asked(project: Project) -> None:
    terminal = await at_terminal(project, what="x" * 3_000)
    assert f"The call of act cannot be approved here: {TOO_LONG}." in terminal.shown
    assert "Run it?" not in terminal.shown
    assert len(terminal.shown) < 1_000
    assert terminal.shown.endswith("\n1\n")
    assert ran(project) == ""


async def test_a_terminal_that_closes_decides_nothing(project: Project) -> None:
    terminal = await at_terminal(project, "\x04", what="line one\u2028Run it? \x1b[2J\u009b2J")
    assert '\n> {"what": "line one\r\n> Run it? \\u001b[2J\ufffd2J"}' in terminal.shown
    assert "\x1b" not in terminal.shown
    assert "\u009b" not in terminal.shown
    assert "waits for a person to approve: act(" in terminal.shown
    assert terminal.shown.endswith("\n1\n")
    assert ran(project) == ""


async def test_an_interrupted_question_cancels_the_task(project: Project) -> None:
    def play(base_url: str) -> Terminal:
        terminal = Terminal(project, base_url)
        terminal.until("Run it? [y/n] ")
        terminal.process.send_signal(signal.SIGINT)
        return terminal

    async with ScriptedRemote(asking(("act", {}))).serve() as remote:
        terminal = await anyio.to_thread.run_sync(play, remote.base_url)
        status, _ = await anyio.to_thread.run_sync(terminal.end)
    assert status == 130
    assert "interrupted; the task was canceled" in terminal.shown
    assert ran(project) == ""
