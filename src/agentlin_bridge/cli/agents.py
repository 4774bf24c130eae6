"""`agentlin-bridge agents`: the configured agent profiles, and the agents that the remotes say they have."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import anyio
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from agentlin_bridge.delegation.backends import BACKEND
from agentlin_bridge.errors import RemoteError
from agentlin_bridge.remote.backend import AgentSummary, ListsAgents
from agentlin_bridge.settings import load_settings
from agentlin_bridge.wiring import build_backends

_WORDS = 100


def list_agents(query: str, *, as_json: bool) -> int:
    """Print them; 0, or 1 if one of the remotes could not be asked.

    Args:
        query: what the remotes search for; profiles are left out then.
        as_json: one JSON object a line.

    Raises:
        ConfigurationError: the settings are wrong.
    """
    settings = load_settings()
    config = settings.load_config()
    backends = build_backends(settings, config)
    unasked: list[RemoteError] = []

    async def found() -> list[tuple[str, AgentSummary]]:
        agents: list[tuple[str, AgentSummary]] = []
        for backend in backends:
            async with backend:
                if isinstance(backend, ListsAgents):
                    try:
                        agents += [(backend.name, agent) for agent in await backend.agents(query)]
                    except RemoteError as error:
                        unasked.append(error)
        return agents

    default = backends[0].name
    profiles = {} if query else {name: profile.get(BACKEND, default) for name, profile in config.agents.items()}
    agents = anyio.run(found)
    if as_json:
        for name, backend_name in profiles.items():
            sys.stdout.write(json.dumps({"profile": name, "backend": backend_name}) + "\n")
        for backend_name, agent in agents:
            sys.stdout.write(json.dumps({"backend": backend_name, **asdict(agent)}, ensure_ascii=False) + "\n")
    else:
        _print(profiles, agents)
    for error in unasked:
        sys.stderr.write(f"agentlin-bridge: {error}\n")
    return 1 if unasked else 0


def _print(profiles: dict[str, str], agents: list[tuple[str, AgentSummary]]) -> None:
    table = Table("profile or agent_id", "backend", "description", "inputs")
    for name, backend in profiles.items():
        table.add_row(escape(name), backend, "agent profile", "")
    for backend, agent in agents:
        said = " ".join(f"{agent.name}: {agent.description}".strip(": ").split())
        shown = said if len(said) <= _WORDS else f"{said[: _WORDS - 1]}…"
        table.add_row(escape(agent.id), backend, escape(shown), escape(", ".join(agent.inputs)))
    Console().print(table)
