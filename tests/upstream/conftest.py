"""The published Agentlin server for tests: one process for each way it talks to its model."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
import pytest

from .model import ScriptedModel

Backend = Literal["responses", "chat", "chat-stream"]
BACKENDS: tuple[Backend, ...] = ("responses", "chat", "chat-stream")
StartUpstream = Callable[..., "Upstream"]

_ROOT = Path(__file__).parents[2]
_ENVIRONMENT = _ROOT / ".venv-upstream"
_SECONDS_TO_START = 60.0


@dataclass(frozen=True)
class Upstream:
    """A running server and the model behind it."""

    backend: Backend
    base_url: str
    model: ScriptedModel
    log: Path

    def forget(self) -> None:
        """Lose all sessions and tasks, as a restart does."""
        httpx.post(self.base_url.removesuffix("/v1") + "/test/forget", trust_env=False).raise_for_status()


@pytest.fixture(scope="session")
def start_upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartUpstream]:
    """`start_upstream(backend="responses", handlers=True)`: a server of that kind, started once and then shared.

    `handlers=False` leaves out the exception handlers of the package, as some deployments do.
    """
    if not (_ENVIRONMENT / ".installed").exists():
        pytest.skip("no .venv-upstream with the published server: scripts/upstream-environment makes it")
    running: dict[tuple[Backend, bool], Upstream] = {}
    with ExitStack() as servers:

        def start(backend: Backend = "responses", *, handlers: bool = True) -> Upstream:
            if (backend, handlers) not in running:
                directory = tmp_path_factory.mktemp(f"upstream-{backend}")
                running[backend, handlers] = servers.enter_context(_serving(backend, directory, handlers=handlers))
            upstream = running[backend, handlers]
            upstream.model.reset()
            return upstream

        yield start


@pytest.fixture(params=BACKENDS)
def upstream(request: pytest.FixtureRequest, start_upstream: StartUpstream) -> Iterator[Upstream]:
    """The server, in turn with each backend; its model starts every test with an empty log.

    For one backend only: `@pytest.mark.parametrize("upstream", ["responses"], indirect=True)`.
    """
    upstream = start_upstream(request.param)
    yield upstream
    upstream.model.release()


@contextmanager
def _serving(backend: Backend, directory: Path, *, handlers: bool) -> Iterator[Upstream]:
    log = directory / "server.log"
    command = [
        str(_ENVIRONMENT / "bin" / "python"),
        "-I",  # neither this directory nor the developer's settings are importable there
        str(Path(__file__).with_name("server.py")),
        f"--directory={directory}",
        f"--backend={backend}",
        *([] if handlers else ["--no-handlers"]),
    ]
    with ScriptedModel().serve() as model, log.open("wb") as output:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "LOG_DIR": str(directory / "logs"),
            "OPENAI_BASE_URL": model.base_url,
            "OPENAI_API_KEY": "none",
        }
        # A pipe that nobody reads would block the server, so what it prints goes to a file.
        with subprocess.Popen(
            command, cwd=directory, env=environment, stdin=subprocess.PIPE, stdout=output, stderr=output
        ) as process:
            try:
                yield Upstream(backend, _reached(process, directory / "port", log), model, log)
            finally:
                assert process.stdin is not None
                process.stdin.close()
                model.release()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()


def _reached(process: subprocess.Popen[bytes], port: Path, log: Path) -> str:
    deadline = time.monotonic() + _SECONDS_TO_START
    while not port.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"the server did not start:\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.02)
    base_url = f"http://127.0.0.1:{port.read_text(encoding='utf-8')}/v1"
    httpx.get(f"{base_url}/tasks/unknown", timeout=_SECONDS_TO_START, trust_env=False).raise_for_status()
    return base_url
