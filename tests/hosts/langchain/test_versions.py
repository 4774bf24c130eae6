"""The lowest langchain-core that is allowed, beside langchain-mcp-adapters: an environment of its own
(`scripts/langchain-environment`). The highest that resolves is what all other tests run with."""

from __future__ import annotations

import json
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support.processes import subprocess_environment

ROOT = Path(__file__).parents[3]
VERSIONS = """
import json
from importlib.metadata import version
import langchain_mcp_adapters.client, langchain_mcp_adapters.tools
import agentlin_bridge.hosts.langchain.toolkit
print(json.dumps({name: version(name) for name in ("langchain-core", "mcp")}))
"""


@pytest.fixture
def python() -> Path:
    """Its interpreter."""
    if not (ROOT / ".venv-langchain" / ".installed").exists():
        pytest.skip("no .venv-langchain with the lowest langchain-core: scripts/langchain-environment makes it")
    return ROOT / ".venv-langchain" / "bin" / "python"


@pytest.fixture
def lowest() -> str:
    """The lowest langchain-core that is allowed."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (declared,) = [Requirement(line) for line in extras["langchain"] if line.startswith("langchain-core")]
    (lowest,) = [each.version for each in declared.specifier if each.operator == ">="]
    return lowest


def test_the_adapters_can_be_imported_beside_us(python: Path, lowest: str) -> None:
    ran = subprocess.run(
        [python, "-I", "-W", "error", "-c", VERSIONS], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    versions = json.loads(ran.stdout)
    assert versions["langchain-core"] == lowest
    assert versions["mcp"].startswith("1.")


def test_the_tests_pass_with_the_lowest_version(python: Path, lowest: str, tmp_path: Path) -> None:
    here = Path(__file__).parent.relative_to(ROOT)
    # Where the lowest is also the highest that resolves, all tests run with it anyway.
    tests = here / "test_agent.py" if version("langchain-core") == lowest else here
    left_out = [f"--ignore={here / name}.py" for name in ("test_versions", "test_standard")]
    ran = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'tests'}", *left_out, tests],
        cwd=ROOT,
        env=subprocess_environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-1000:]
