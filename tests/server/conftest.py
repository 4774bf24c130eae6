from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio.from_thread import start_blocking_portal
from pydantic import SecretStr

from agentlin_bridge.server.agent import Agent
from agentlin_bridge.server.process import ServeOptions, serve
from tests.support.postgres import Postgres, running_postgres

from .agents import Scripted, weather


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL of the test session's own."""
    with running_postgres() as server:
        yield server


class Server(httpx.Client):
    """A client of one running server."""

    url: str
    api_key: str | None

    def make(self, content: Any, **body: Any) -> dict[str, Any]:
        """Create a task and return it."""
        response = self.post("tasks", json={"user_message_content": content, "stream": False, **body})
        assert response.status_code == 200, response.text
        task: dict[str, Any] = response.json()["result"]
        return task

    def refuse(self, content: Any, **body: Any) -> tuple[int, dict[str, Any]]:
        """Create a task and return the HTTP status and the error it is refused with."""
        response = self.post("tasks", json={"user_message_content": content, **body})
        assert "result" not in response.json()
        return response.status_code, response.json()["error"]

    def task(self, task_id: str) -> dict[str, Any]:
        task: dict[str, Any] = self.get(f"tasks/{task_id}").json()["result"]
        return task


Serving = Callable[..., Server]


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """Starts real servers on loopback ports, each in a thread of its own; all stop with the test."""
    with ExitStack() as stack:

        def start(agent: Agent | None = None, *, api_key: str | None = None, **options: Any) -> Server:
            given = ServeOptions(
                database=options.pop("database", tmp_path / "server.sqlite"),
                api_key=SecretStr(api_key) if api_key else None,
                agent=agent,
            )
            portal = stack.enter_context(start_blocking_portal())
            future, url = portal.start_task(serve, replace(given, **options))
            stack.callback(future.cancel)
            headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
            server = stack.enter_context(Server(base_url=url, headers=headers, timeout=10))
            server.url, server.api_key = url, api_key
            return server

        yield start


@pytest.fixture
def server(serving: Serving) -> Server:
    """A server whose agent asks for the weather of the cities it is told."""
    return serving(Scripted(weather))


@pytest.fixture
def demo(serving: Serving) -> Server:
    """A server with the demo agent."""
    return serving()
