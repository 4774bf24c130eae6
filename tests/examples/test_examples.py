"""The examples run as they stand, on the embedded server, and say what is true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.support.processes import subprocess_environment

from .running import EXAMPLES, run


def test_fan_out(embedded: dict[str, str], harbour: Path, prices: Path) -> None:
    printed = run("fan_out.py", embedded, harbour, prices)
    assert sorted(re.findall(r"the agent reads (\S+)", printed)) == ["harbour.md", "prices.csv"]
    of_harbour, of_prices = printed.split("\n=== ")[1:]
    assert of_harbour.startswith("harbour.md: completed\n")
    assert "2 sections" in of_harbour
    assert of_prices.startswith("prices.csv: completed\n")
    assert "price" in of_prices
    assert "6" in of_prices


def test_fan_out_over_the_repositorys_own_files(embedded: dict[str, str]) -> None:
    printed = run("fan_out.py", embedded)
    assert "=== README.md: completed" in printed


def test_langchain_agent(embedded: dict[str, str], harbour: Path) -> None:
    printed = run("langchain_agent.py", embedded, harbour)
    assert printed.count("host: the remote agent reads harbour.md") == 1
    assert "host: calls agentlin_task with {'instructions': 'Digest `harbour.md`.'}" in printed
    assert re.search(r"host: task task_[0-9a-f]{32} is completed", printed)
    assert "2 sections" in printed.partition("The agent I asked says:")[2]


def test_the_walk_through_names_what_exists() -> None:
    text = (EXAMPLES / "host_walkthrough.md").read_text(encoding="utf-8")
    for host in re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE):
        done = subprocess.run(
            [sys.executable, "-m", "agentlin_bridge", "config", host],
            env=subprocess_environment(),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        file = re.search(rf"^\| `{host}` \| `([^`]+)` \|", text, re.MULTILINE)
        assert file is not None
        assert f"Merge this into {file[1]}," in done.stderr
    for command in set(re.findall(r"agentlin-bridge ([a-z]+)", text)):
        assert command in {"mcp", "demo", "config", "tasks"}
    assert (EXAMPLES.parent / "configs").is_dir()
