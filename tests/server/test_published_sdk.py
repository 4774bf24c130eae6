"""The published client, unchanged, against this server: two versions of it, sync and async."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import agentlin_client
import anyio
import pytest
from anyio import to_thread

from tests.support.processes import subprocess_environment

from .agents import Gated, Scripted, eventually, weather
from .conftest import Serving

_OLD = Path(__file__).parents[2] / ".venv-sdk"
_VERSIONS = {"1.14.0": Path(sys.executable), "1.10.0": _OLD / "bin" / "python"}


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("version", list(_VERSIONS))
def test_every_operation(serving: Serving, version: str, kind: str) -> None:
    if version == "1.10.0" and not (_OLD / ".installed").exists():
        pytest.skip("no .venv-sdk with the older client: scripts/sdk-environment makes it")
    server = serving(Scripted(weather), api_key="secret")
    driver = Path(__file__).with_name("sdk_driver.py")
    command = [str(_VERSIONS[version]), "-I", str(driver), server.url, "secret", kind]
    outcome = subprocess.run(
        command,
        env=subprocess_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    report = json.loads(outcome.stdout)
    assert report["version"] == version
    assert set(report["offered"]) == set(report["used"])


def test_the_sync_client_pauses_and_resumes(serving: Serving) -> None:
    agent = Gated()
    server = serving(agent, api_key="secret")
    with (
        agentlin_client.Client(api_key="secret", base_url=server.url, max_retries=0) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        creating = pool.submit(client.tasks.create, stream=False, user_message_content="stay", task_id="task_1")
        assert agent.entered.wait(10)
        paused = client.tasks.pause("task_1")
        assert (paused.id, paused.status) == ("task_1", "paused")
        rests = creating.result(10).result
        assert rests is not None
        assert rests.status == "paused"
        agent.gate.set()
        assert client.tasks.resume("task_1").status in {"created", "working", "completed"}
        _until_completed(server.task)
        with pytest.raises(agentlin_client.ConflictError):
            client.tasks.pause("task_1")


@pytest.mark.anyio
async def test_the_async_client_pauses_and_resumes(serving: Serving) -> None:
    agent = Gated()
    server = serving(agent, api_key="secret")
    async with (
        agentlin_client.AsyncClient(api_key="secret", base_url=server.url, max_retries=0) as client,
        anyio.create_task_group() as group,
    ):

        async def create() -> None:
            await client.tasks.create(stream=False, user_message_content="stay", task_id="task_1")

        group.start_soon(create)
        assert await to_thread.run_sync(agent.entered.wait, 10)
        assert (await client.tasks.pause("task_1")).status == "paused"
        agent.gate.set()
        assert (await client.tasks.resume("task_1")).status in {"created", "working", "completed"}
        await to_thread.run_sync(_until_completed, server.task)
        with pytest.raises(agentlin_client.ConflictError):
            await client.tasks.resume("task_1")


def _until_completed(task: Callable[[str], dict[str, Any]]) -> None:
    eventually(lambda: task("task_1")["status"] == "completed")
