"""A backend on a double of NLA Engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import pytest
from pydantic import SecretStr

from agentlin_bridge.remote.nla_engine.backend import NlaEngineBackend
from agentlin_bridge.remote.nla_engine.pace import Pace
from tests.support.nla_engine import NlaEngine

FAST = Pace(first=0.01, longest=0.02, settle=0.1)

Open = Callable[..., AbstractAsyncContextManager[tuple[NlaEngineBackend, NlaEngine]]]


@pytest.fixture
def open_backend() -> Open:
    """Opens a backend, and the engine too unless it already listens."""

    @asynccontextmanager
    async def opened(
        engine: NlaEngine | None = None, *, key: str | None = "engine-key", **settings: Any
    ) -> AsyncIterator[tuple[NlaEngineBackend, NlaEngine]]:
        engine = engine or NlaEngine()
        settings.setdefault("pace", FAST)
        settings.setdefault("agent_id", "writer")
        with anyio.fail_after(20):
            async with engine.serve():
                api_key = SecretStr(key) if key else None
                async with NlaEngineBackend(engine.base_url, api_key, **settings) as backend:
                    yield backend, engine

    return opened
