"""Which of the two dialects a remote speaks, found out without side effects."""

from __future__ import annotations

from enum import StrEnum

from agentlin_bridge.remote.agentlin.faults import raise_error
from agentlin_bridge.remote.agentlin.published import RPC_PATH
from agentlin_bridge.remote.agentlin.transport import Transport

_PROBE = {"jsonrpc": "2.0", "id": "probe", "method": "tasks/get", "params": {"id": "task_probe"}}


class Dialect(StrEnum):
    """How a remote takes tool results: as documented, or as the published server 0.0.27 does."""

    DOCUMENTED = "documented"
    PUBLISHED = "published"


async def probe(transport: Transport) -> Dialect:
    """Ask for a task that does not exist, on the route only the published server has.

    Raises:
        RemoteError: the remote cannot be reached, or refuses us; nothing was changed.
    """
    status, payload = await transport.control("POST", RPC_PATH, json=_PROBE)
    if status in (404, 405):
        return Dialect.DOCUMENTED
    if status >= 400:
        raise_error(payload, status)
    return Dialect.PUBLISHED if payload.get("jsonrpc") == "2.0" else Dialect.DOCUMENTED
