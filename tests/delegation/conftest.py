"""A bridge on a scripted remote."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import SecretStr

from agentlin_bridge import Limits, TaskBridge
from agentlin_bridge.remote.agentlin.backend import AgentlinBackend
from agentlin_bridge.remote.agentlin.endpoint import Address, FixedEndpoint
from tests.support.remote import Agent, ScriptedRemote

Open = Callable[..., AbstractAsyncContextManager[tuple[TaskBridge, ScriptedRemote]]]


@pytest.fixture
def open_bridge(tmp_path: Path) -> Open:
    """Opens a bridge on the test's ledger, and the remote too unless it already listens."""

    @asynccontextmanager
    async def opened(
        agent: Agent, *, remote: ScriptedRemote | None = None, **settings: Any
    ) -> AsyncIterator[tuple[TaskBridge, ScriptedRemote]]:
        limits = settings.pop("limits", Limits(settle=0.3))
        remote = remote or ScriptedRemote(agent)
        with anyio.fail_after(20):
            async with remote.serve():
                address = Address(remote.base_url, SecretStr(remote.key) if remote.key else None)
                backend = AgentlinBackend(FixedEndpoint(address))
                async with TaskBridge(backend, ledger=tmp_path / "ledger.sqlite3", limits=limits, **settings) as bridge:
                    yield bridge, remote

    return opened
