"""Runs an example as it stands, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.processes import subprocess_environment

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(example: str, settings: dict[str, str], *arguments: str | Path) -> str:
    """What it prints; it has to succeed without a warning."""
    done = _done(example, settings, *arguments)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


def run_in_vain(example: str, settings: dict[str, str], *arguments: str | Path) -> tuple[str, str]:
    """What it prints, and what it says of its failure; it has to fail."""
    done = _done(example, settings, *arguments)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def _done(example: str, settings: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / example), *map(str, arguments)],
        env=subprocess_environment(**settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
