"""Whether a person has to approve a tool's calls, by what its server says about it."""

from __future__ import annotations

from typing import Protocol

from agentlin_bridge.tool_servers.description import Policy


class Hints(Protocol):
    """A server's claims about a tool: MCP's annotations."""

    @property
    def read_only_hint(self) -> bool | None:
        """It changes nothing."""

    @property
    def destructive_hint(self) -> bool | None:
        """What it changes may be lost."""


def needs_approval(policy: Policy, hints: Hints | None) -> bool:
    """Whether each call has to be approved. A tool about which nothing is claimed counts as destructive."""
    if policy != "destructive":
        return policy == "always"
    if hints is None:
        return True
    return not (hints.read_only_hint is True or hints.destructive_hint is False)


def is_repeatable(hints: Hints | None) -> bool:
    """Whether a call may be run again when it is not known whether it has run."""
    return hints is not None and hints.read_only_hint is True
