"""A LangChain host with the published MCP adapters, which speak mcp 1.x."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.support.processes import subprocess_environment

from .conftest import SECONDS, TOOLS, stdio_server


def test_a_langchain_host_makes_a_round_trip(python: Path, embedded: dict[str, str], tmp_path: Path) -> None:
    connection = {"transport": "stdio", **stdio_server(embedded, tmp_path)}
    script = Path(__file__).with_name("adapters.py")

    ran = subprocess.run(
        # Neither this directory nor the developer's settings are importable there.
        [str(python), "-I", str(script), json.dumps(connection)],
        env=subprocess_environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    said = json.loads(ran.stdout)
    assert set(said["tools"]) >= TOOLS
    (call,) = said["asked"]["tool_calls"]
    assert (said["asked"]["status"], call["name"]) == ("input-required", "read_file")
    assert (said["done"]["task_id"], said["done"]["status"]) == (said["asked"]["task_id"], "completed")
    assert "Tides" in said["done"]["answer"]
    (shown,) = said["shown"]
    assert "Tides" in shown["text"]
    status, (refusal,) = said["refused"]
    assert status == "error"
    assert "Next: " in refusal["text"]
