"""Delegate a subtask from an agent host to an Agentlin agent, and answer the tool calls it sends back."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentlin_bridge.delegation.bridge import TaskBridge
    from agentlin_bridge.delegation.client_tools import ClientTool, client_tool
    from agentlin_bridge.delegation.limits import Limits
    from agentlin_bridge.delegation.requests import TaskRequest
    from agentlin_bridge.errors import (
        AlreadyAnswered,
        BridgeError,
        ConfigurationError,
        InvalidRequestError,
        LedgerError,
        MissingExtraError,
        RemoteError,
        RemoteNotFound,
        RemoteProtocolError,
        RemoteRefused,
        RemoteUnavailable,
        ReplyLost,
        RequestConflict,
        TaskNotFound,
        UnknownCall,
        UnsupportedError,
    )
    from agentlin_bridge.task import PendingCall, Task, TaskStatus, ToolResult

__all__ = [
    "AlreadyAnswered",
    "BridgeError",
    "ClientTool",
    "ConfigurationError",
    "InvalidRequestError",
    "LedgerError",
    "Limits",
    "MissingExtraError",
    "PendingCall",
    "RemoteError",
    "RemoteNotFound",
    "RemoteProtocolError",
    "RemoteRefused",
    "RemoteUnavailable",
    "ReplyLost",
    "RequestConflict",
    "Task",
    "TaskBridge",
    "TaskNotFound",
    "TaskRequest",
    "TaskStatus",
    "ToolResult",
    "UnknownCall",
    "UnsupportedError",
    "client_tool",
]

_PLACES = {
    # Wiring registers what TaskBridge.from_env needs.
    "TaskBridge": "wiring",
    "ClientTool": "delegation.client_tools",
    "client_tool": "delegation.client_tools",
    "Limits": "delegation.limits",
    "TaskRequest": "delegation.requests",
    "PendingCall": "task",
    "Task": "task",
    "TaskStatus": "task",
    "ToolResult": "task",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that importing the package stays cheap."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_PLACES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
