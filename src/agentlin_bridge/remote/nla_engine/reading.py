"""From a task of NLA Engine to ours. Tolerant: the document's class, its examples and the engine differ.

Everything is built anew from the fields that are known: `agent` and `user` are dropped, since an agent's
variables hold keys.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from agentlin_bridge.errors import SERVER_ERROR, RemoteProtocolError
from agentlin_bridge.remote.messages import clean_message
from agentlin_bridge.remote.nla_engine.secrets import Secrets
from agentlin_bridge.task import JsonrpcError, MessageItem, OutputItem, TaskObject, TaskStatus, TextContentItem

STATUS = {"running": TaskStatus.WORKING, "complete": TaskStatus.COMPLETED, "error": TaskStatus.FAILED}
"""NLA Engine's statuses. Any other counts as working: the run is not known to be over."""

LOG_LINES = 20
"""So many log lines are shown, the last ones."""

_LINE_LIMIT = 300
_STATUS_LIMIT = 64
_MILLISECONDS = 1e11


def task_id_of(raw: Any) -> str | None:
    """The id in a task, if there is one."""
    found = raw.get("id") if isinstance(raw, Mapping) else None
    return found if isinstance(found, str) and found else None


def said_status(raw: Mapping[str, Any], secrets: Secrets) -> str:
    """The status as it was said, fit to be shown."""
    found = raw.get("status")
    return clean_message(secrets.redact(found))[:_STATUS_LIMIT] if isinstance(found, str) else ""


def read_task(raw: Any, secrets: Secrets) -> TaskObject:
    """A task as it stands. While it runs, its output is its log; that is how a watcher sees it get on.

    Raises:
        RemoteProtocolError: it is no task.
    """
    task_id = task_id_of(raw)
    if task_id is None:
        raise RemoteProtocolError(
            "NLA Engine answered with something that is no task.",
            next_step="check that NLA_ENGINE_BASE_URL is the address before /api/v1",
        )
    said = raw.get("status")
    status = STATUS.get(said, TaskStatus.WORKING) if isinstance(said, str) else TaskStatus.WORKING
    log = _log(raw.get("logs"), secrets)
    return TaskObject(
        id=task_id,
        status=status,
        created_at=created_at(raw) or 0,
        output=_shown_log(log) if status is TaskStatus.WORKING else _output(raw.get("output"), secrets),
        error=_error(log) if status is TaskStatus.FAILED else None,
    )


def created_at(raw: Mapping[str, Any]) -> float | None:
    """When the task was created, as POSIX seconds; a time without a zone is taken for UTC."""
    found = raw.get("createdAt")
    try:
        if isinstance(found, str):
            when = datetime.fromisoformat(found)
            return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
        if isinstance(found, int | float) and not isinstance(found, bool):
            return found / 1000 if found > _MILLISECONDS else float(found)
    except (ValueError, OverflowError):
        pass
    return None


def _log(raw: Any, secrets: Secrets) -> list[str]:
    lines: Sequence[Any] = raw if isinstance(raw, list) else [raw] if isinstance(raw, str) else []
    texts = (line for line in lines[-LOG_LINES:] if isinstance(line, str))
    return [text for line in texts if (text := _one_line(secrets.redact(line)))]


def _one_line(text: str) -> str:
    line = " ".join(clean_message(text).split())
    return line if len(line) <= _LINE_LIMIT else f"{line[: _LINE_LIMIT - 1]}…"


def _shown_log(log: Sequence[str]) -> list[OutputItem]:
    return [MessageItem(role="log", message_content=[TextContentItem(text="\n".join(log))])] if log else []


def _error(log: Sequence[str]) -> JsonrpcError:
    reason = f"the last line of its log is: {log[-1]}" if log else "gives no reason"
    return JsonrpcError(
        code=SERVER_ERROR,
        message=f"The run ended with an error on NLA Engine; {reason}. Next: look at the run there, "
        "then correct the input or the agent.",
    )


def _output(raw: Any, secrets: Secrets) -> list[OutputItem]:
    found = secrets.redact_all(raw)
    if found is None or found in ("", {}, []):
        return []
    if not isinstance(found, dict):
        return [MessageItem(message_content=[TextContentItem(text=_as_text(found))])]
    answer = next(iter(found.values())) if len(found) == 1 else found
    item = MessageItem.model_validate({"message_content": [TextContentItem(text=_as_text(answer))], "output": found})
    return [item]


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
