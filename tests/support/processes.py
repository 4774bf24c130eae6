"""Real processes for tests: their environment, and their end."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

_PASSED_ON = ("COVERAGE", "COV_", "PYTHON", "XDG_")


def subprocess_environment(**settings: str) -> dict[str, str]:
    """What a child process needs: coverage goes on measuring, nothing of the developer's settings gets in."""
    inherited = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
    return {**inherited, "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **settings}


def wait_until_gone(pid: int, seconds: float = 10) -> None:
    """Wait until a process that is not our child has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} did not end within {seconds} seconds")


def embedded_server_pid(database: Path) -> int | None:
    """The process id of the embedded server of a database, if one runs."""
    try:
        return int(json.loads(Path(f"{database}.server.json").read_text(encoding="utf-8"))["pid"])
    except (OSError, ValueError, KeyError):
        return None


def end_embedded_server(database: Path, how: signal.Signals = signal.SIGTERM) -> None:
    """End the embedded server of a database, if one runs."""
    pid = embedded_server_pid(database)
    if pid is None:
        return
    with suppress(ProcessLookupError):
        os.kill(pid, how)
    wait_until_gone(pid)
