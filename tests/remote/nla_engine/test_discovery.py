"""The engine's agents: listed, searched, and without their keys."""

from __future__ import annotations

from typing import Any

import pytest

from agentlin_bridge.remote.backend import AgentSummary
from agentlin_bridge.remote.nla_engine import discovery
from tests.remote.nla_engine.conftest import Open
from tests.support.nla_engine import NlaEngine

pytestmark = pytest.mark.anyio

MOVIE = {
    "id": "movie-agent",
    "name": "Movies",
    "description": "Writes a film",
    "variables": {"replicate": "r8_variable_of_the_agent", "tone": "dry", "genre": ""},
    "workflow": [
        {
            "type": "prompt",
            "name": "Synopsis",
            "system": "Be {tone}.",
            "user": "{prompt} as {genre}",
            "apikey": "{replicate}",
            "output": "synopsis",
        },
        {"type": "prompt", "name": "Script", "user": "{synopsis} for {audience}, {prompt}", "output": "script"},
        {"type": "return", "output": "{script}"},
    ],
}


async def test_agents_are_listed_and_searched(open_backend: Open) -> None:
    others = [{"id": f"a{number}", "description": "Paints"} for number in range(7)]
    async with open_backend(NlaEngine(agents=[MOVIE, *others])) as (backend, engine):
        everyone = await backend.agents()
        found = await backend.agents("film")
        painters = await backend.agents("Paints")
    assert everyone[0] == AgentSummary("movie-agent", "Movies", "Writes a film", ("prompt", "genre", "audience"))
    assert everyone[1] == AgentSummary("a0", "", "Paints")
    assert len(everyone) == 8
    assert found == everyone[:1]
    assert len(painters) == 5
    assert "r8_variable" not in repr(everyone)
    assert engine.starts == []


async def test_agents_of_any_shape(open_backend: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    odd: list[dict[str, Any]] = [
        {"id": "a", "name": 3, "description": "with engine-key\x07", "variables": "x", "workflow": "{b}"},
        {"id": "b", "workflow": [None, {"type": "prompt", "user": ["{c}"], "output": ["d"]}, {"user": "{e}"}]},
        {"id": 7},
        {"name": "x"},
        {"id": "y" * 300},
    ]
    async with open_backend(NlaEngine(agents=odd)) as (backend, engine):
        assert await backend.agents() == [
            AgentSummary("a", "", "with [removed]"),
            AgentSummary("b", inputs=("e",)),
        ]
        monkeypatch.setattr(discovery, "MOST", 1)
        assert len(await backend.agents()) == 1
        engine.failing["GET /agent"] = ['{"message": "no list"}']
        assert await backend.agents() == []
