"""The engine's agents, for whoever has to choose one.

Source: the engine's public repository and pages, unverified; what does not fit is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentlin_bridge.remote.backend import AgentSummary
from agentlin_bridge.remote.messages import clean_message
from agentlin_bridge.remote.nla_engine.secrets import Secrets

MOST = 500
"""So many agents are given out at most."""

_TEMPLATE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_NAME_LIMIT = 200
_MOST_INPUTS = 50


def agents_of(raw: Any, secrets: Secrets) -> list[AgentSummary]:
    """The agents of a list. Their variables, which may be keys, are left out."""
    found = raw if isinstance(raw, list) else []
    return [agent for part in found[:MOST] if (agent := _agent(part, secrets)) is not None]


def _agent(raw: Any, secrets: Secrets) -> AgentSummary | None:
    agent_id = raw.get("id") if isinstance(raw, Mapping) else None
    if not isinstance(agent_id, str) or not agent_id or len(agent_id) > _NAME_LIMIT:
        return None
    name, description = (
        clean_message(secrets.redact(text)) if isinstance(text := raw.get(field), str) else ""
        for field in ("name", "description")
    )
    return AgentSummary(agent_id, name[:_NAME_LIMIT], description, _inputs(raw))


def _inputs(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """What its prompts ask for and neither its variables nor its earlier nodes give."""
    variables = raw.get("variables")
    given = {key for key, value in variables.items() if value} if isinstance(variables, Mapping) else set()
    wanted: dict[str, None] = {}
    workflow = raw.get("workflow")
    for node in workflow if isinstance(workflow, Sequence) else ():
        if isinstance(node, Mapping) and node.get("type") != "return":
            wanted.update(dict.fromkeys(key for key in _templates(node) if key not in given))
            if isinstance(made := node.get("output"), str):
                given.add(made)
    return tuple(wanted)[:_MOST_INPUTS]


def _templates(node: Mapping[str, Any]) -> Iterator[str]:
    for field, text in node.items():
        if field != "output" and isinstance(text, str):
            yield from _TEMPLATE.findall(text)
