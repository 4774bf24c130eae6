"""Bridges on the portal's thread: opened once, closed in time, opened again."""

from __future__ import annotations

import gc
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from agentlin_bridge import ConfigurationError, TaskBridge
from agentlin_bridge.hosts.langchain.portal import BridgeKeeper
from tests.support.processes import subprocess_environment

from .remote import Remote


class Watched(TaskBridge):
    """A bridge that says when it is left."""

    left: threading.Event
    fault: Exception | None = None

    async def __aexit__(self, *error: object) -> None:
        await super().__aexit__(None, None, None)
        self.left.set()
        if self.fault is not None:
            raise self.fault


@pytest.fixture
def built() -> list[Watched]:
    return []


@pytest.fixture
def build(built: list[Watched], remote: Remote) -> Callable[[], TaskBridge]:
    def build() -> TaskBridge:
        bridge = TaskBridge.from_env()
        bridge.__class__ = Watched
        assert isinstance(bridge, Watched)
        bridge.left = threading.Event()
        built.append(bridge)
        return bridge

    return build


async def itself(bridge: TaskBridge) -> TaskBridge:
    return bridge


def test_one_bridge_until_it_is_closed(build: Callable[[], TaskBridge], built: list[Watched]) -> None:
    keeper = BridgeKeeper(build)
    keeper.close()
    assert keeper.call(itself) is keeper.call(itself) is built[0]
    keeper.close()
    assert built[0].left.is_set()
    keeper.close()
    assert keeper.call(itself) is built[1]
    keeper.close()
    assert len(built) == 2


def test_closed_from_the_portals_own_thread(build: Callable[[], TaskBridge], built: list[Watched]) -> None:
    keeper = BridgeKeeper(build)

    async def close(bridge: TaskBridge) -> None:
        keeper.close()

    keeper.call(close)
    assert built[0].left.wait(10)


def test_closed_when_nobody_has_the_keeper(build: Callable[[], TaskBridge], built: list[Watched]) -> None:
    keeper = BridgeKeeper(build)
    keeper.call(itself)
    del keeper
    gc.collect()
    assert built[0].left.wait(10)


def test_an_opening_that_failed_is_tried_again(build: Callable[[], TaskBridge], built: list[Watched]) -> None:
    failures = [ConfigurationError("Not now.")]

    def sometimes() -> TaskBridge:
        if failures:
            raise failures.pop()
        return build()

    keeper = BridgeKeeper(sometimes)
    with pytest.raises(ConfigurationError, match="Not now"):
        keeper.call(itself)
    assert keeper.call(itself) is built[0]
    keeper.close()


def test_a_bridge_that_ended_by_itself_is_opened_again(
    build: Callable[[], TaskBridge], built: list[Watched], caplog: pytest.LogCaptureFixture
) -> None:
    keeper = BridgeKeeper(build)
    keeper.call(itself)

    built[0].fault = OSError("disk full")
    keeper.close()
    assert "disk full" in caplog.text
    assert keeper.call(itself) is built[1]
    keeper.close()


SCRIPT = """
from agentlin_bridge.hosts.langchain import AgentlinTaskTool
tool = AgentlinTaskTool()
print(tool.invoke({"instructions": "Say nothing"}))
"""


def test_closed_when_the_interpreter_exits(remote: Remote, tmp_path: Path) -> None:
    ledger = tmp_path / "other.sqlite3"
    environment = subprocess_environment(AGENTLIN_BASE_URL=remote.base_url, AGENTLIN_BRIDGE_LEDGER=str(ledger))
    command = [sys.executable, "-W", "error", "-c", SCRIPT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "completed" in done.stdout
    # The instance has left the ledger as it should.
    assert list(Path(f"{ledger}.instances").iterdir()) == []


def _delegate(keeper: BridgeKeeper, built: list[Watched]) -> None:
    bridge = keeper.call(itself)
    keeper.close()
    sys.exit(0 if bridge is built[-1] and len(built) == 2 else 1)


def test_after_a_fork_there_is_a_new_thread(build: Callable[[], TaskBridge], built: list[Watched]) -> None:
    keeper = BridgeKeeper(build)
    keeper.call(itself)
    child = multiprocessing.get_context("fork").Process(target=_delegate, args=(keeper, built))
    child.start()
    child.join(20)
    assert child.exitcode == 0
    keeper.close()
