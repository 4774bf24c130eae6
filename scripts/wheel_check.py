"""Run by `check-wheel` inside an environment that holds the built wheel, outside of the checkout."""

import subprocess
import sys
from pathlib import Path

HEAVY = {"mcp", "langchain_core", "starlette", "uvicorn", "sqlalchemy", "httpx"}


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("agentlin-bridge")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=60)


def check_base() -> None:
    assert command("--help").returncode == 0
    listing = "import agentlin_bridge, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout.split()
    assert not HEAVY & set(loaded), HEAVY & set(loaded)
    for arguments, extra in (
        (("mcp",), "mcp"),
        (("serve",), "server"),
        (("demo",), "mcp"),
        (("run", "hello"), "server"),
    ):
        refused = command(*arguments)
        assert refused.returncode == 2, refused
        assert f"pip install --upgrade 'agentlin-bridge[{extra}]'" in refused.stderr, refused.stderr
        assert not refused.stdout, refused.stdout
    langchain = subprocess.run(
        [sys.executable, "-c", "import agentlin_bridge.hosts.langchain"], capture_output=True, text=True, check=False
    )
    assert "pip install --upgrade 'agentlin-bridge[langchain]'" in langchain.stderr, langchain.stderr


def check_all() -> None:
    assert command("--version").stdout.strip()
    subprocess.run([sys.executable, "-c", "import agentlin_bridge.hosts.langchain"], check=True)


{"base": check_base, "all": check_all}[sys.argv[1]]()
