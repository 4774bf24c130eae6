from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentlin_bridge.hosts.langchain import AgentlinTaskTool

from .remote import Remote

NOTES = "# Harbour\n\nCranes lift cranes.\n\n## Tides\n\nThe tide turns and the tide returns twice a day.\n"
"""Two sections; the longest is Tides."""

MakeTool = Callable[..., AgentlinTaskTool]


@pytest.fixture(autouse=True)
def _embedded_by_default(embedded: dict[str, str]) -> None:
    """Tasks go to the embedded server unless a test says otherwise."""


@pytest.fixture
def task_tool() -> Iterator[MakeTool]:
    """Makes task tools that are closed with the test."""
    made: list[AgentlinTaskTool] = []

    def make(*client_tools: Any, **options: Any) -> AgentlinTaskTool:
        made.append(AgentlinTaskTool(client_tools=client_tools, **options))
        return made[-1]

    yield make
    for tool in made:
        tool.close()


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    """A remote that asks for what it is told to, in place of the embedded server."""
    with Remote().serving() as remote:
        monkeypatch.setenv("AGENTLIN_BASE_URL", remote.base_url)
        yield remote
