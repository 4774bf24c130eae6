"""Tools the bridge itself runs, offered with every task: they come from elsewhere and may have to be started first."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from agentlin_bridge.delegation.client_tools import ClientTool
from agentlin_bridge.delegation.ledger.records import NewTask, TaskRecord

OWN_TOOLS = "bridge_tools"
"""In a task's metadata: by name, where the tools came from that it was offered and the bridge runs. A tool of the
same name that a host offers is the host's own, in any process and after any restart."""


@dataclass(frozen=True, slots=True)
class OwnTool:
    """A tool the bridge runs.

    Attributes:
        source: where it comes from; the same after a restart.
    """

    source: str
    tool: ClientTool


class OwnTools(AbstractAsyncContextManager[Any], Protocol):
    """Where they come from. Entering it starts nothing yet."""

    async def offered(self) -> Mapping[str, OwnTool]:
        """What can be offered now, by name; what has to be started for it is."""
        ...

    async def find(self, name: str, source: str) -> ClientTool:
        """A tool that was offered, even by an earlier process. If it cannot be run, its handler says why."""
        ...

    def has(self, source: str) -> bool:
        """Whether this source is configured here."""
        ...


def sources_of(task: NewTask | TaskRecord) -> Mapping[str, str]:
    """By name, where the tools of a task come from that the bridge runs."""
    found = task.metadata.get(OWN_TOOLS)
    return found if isinstance(found, Mapping) else {}
