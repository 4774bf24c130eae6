"""Commands as tools: their arguments, results, errors and ends."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from agentlin_bridge.tool_servers.commands import Command
from agentlin_bridge.tool_servers.discretion import Discretion
from tests.support.processes import wait_until_gone

pytestmark = pytest.mark.anyio


def python(code: str, **fields: Any) -> Command:
    """A command that is a Python program."""
    given = {
        "name": "act",
        "argv": [sys.executable, "-c", code],
        "env": {},
        "cwd": None,
        "timeout": 20.0,
        "result_chars": 1_000,
        "discretion": Discretion(["secret-token"]),
        **fields,
    }
    return Command(**given)


async def said(command: Command, arguments: str = "{}") -> str:
    with anyio.fail_after(30):
        result = await command.run(arguments)
    return ("ERROR " if result.is_error else "") + "".join(getattr(item, "text", "") for item in result.content)


async def test_arguments_come_on_stdin_and_the_result_goes_to_stdout(tmp_path: Path) -> None:
    code = "import json, os, sys; print(json.load(sys.stdin)['a'], os.environ['B'], os.getcwd())"
    text = await said(python(code, env={"B": "é"}, cwd=str(tmp_path)), '{"a": "ü; rm -rf $HOME"}')
    assert text == f"ü; rm -rf $HOME é {tmp_path}\n"


async def test_the_bridges_own_environment_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTLIN_API_KEY", "k")
    text = await said(python("import os; print(sorted(os.environ))"))
    assert "AGENTLIN_API_KEY" not in text
    assert "'PATH'" in text


async def test_a_status_that_is_not_zero_is_an_error_with_what_was_said() -> None:
    code = "import sys; print('half'); sys.stderr.write('no secret-token here'); sys.exit(3)"
    assert await said(python(code)) == "ERROR act ended with status 3.\nno [...] here\nhalf\n"


async def test_a_signal_is_an_error() -> None:
    assert await said(python("import os; os.kill(os.getpid(), 9)")) == "ERROR act was ended by signal 9."


@pytest.mark.parametrize("argv", [["no-such-command-at-all"], ["a\0b"]])
async def test_a_command_that_cannot_be_started_is_an_error(argv: list[str]) -> None:
    text = await said(python("", argv=argv))
    assert text.startswith("ERROR act cannot be started: ")
    assert text.endswith("It was not run.")


async def test_a_command_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'pids')!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(60)"
    )
    text = await said(python(code, timeout=1.5))
    assert text.startswith("ERROR act did not end within 1.5 seconds and was stopped. It may or may not")
    for pid in (tmp_path / "pids").read_text(encoding="ascii").split():
        await anyio.to_thread.run_sync(wait_until_gone, int(pid))


async def test_a_cancelled_command_ends_even_if_it_would_not(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open({str(tmp_path / 'pid.new')!r}, 'w').write(str(os.getpid()))\n"
        f"os.rename({str(tmp_path / 'pid.new')!r}, {str(tmp_path / 'pid')!r})\ntime.sleep(60)"
    )
    pid = tmp_path / "pid"
    async with anyio.create_task_group() as group:
        group.start_soon(python(code).run, "{}")
        with anyio.fail_after(20):
            while not await anyio.Path(pid).exists():
                await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text(encoding="ascii")), signal.SIGTERM)


async def test_a_command_need_not_read_its_arguments() -> None:
    code = "import os; os.close(0); print('done')"
    assert await said(python(code), '"' + "x" * 1_000_000 + '"') == "done\n"


async def test_a_long_output_is_cut_and_says_so() -> None:
    cut = "\n[cut: the output of act has more than 1000 characters]"
    assert await said(python("print('x' * 1_500)")) == "x" * 1_000 + cut
    assert await said(python("print('x' * 1_000_000)")) == "x" * 1_000 + cut


async def test_of_a_secret_across_the_cut_nothing_is_left() -> None:
    for shift in range(1, 12):
        code = f"import sys; sys.stderr.write('secret-token' * 3 + '.' * {2_000 - shift} + 'why'); sys.exit(1)"
        text = await said(python(code))
        assert text.endswith("..why")
        assert "token" not in text
        assert set(text.partition("\n")[2]) <= set("[.]why")
    code = "import sys; sys.stderr.write('secret-token' * 1_000); sys.exit(1)"
    assert set((await said(python(code))).partition("\n")[2]) == set("[.]")


async def test_of_long_errors_the_end_is_kept() -> None:
    text = await said(python("import sys; sys.stderr.write('x' * 100_000 + 'why'); sys.exit(1)"))
    assert text.endswith("xxxwhy")
    assert len(text) < 2_100
