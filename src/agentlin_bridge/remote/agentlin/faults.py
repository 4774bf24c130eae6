"""From an HTTP answer to a task object or to one of our errors.

Sources: the task API documents for the envelope; the recorded traffic of `agentlin` 0.0.27 for HTTP 200
with an error, bare error objects under 404 and `{success: false}` bodies.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from pydantic import ValidationError

from agentlin_bridge.errors import (
    TASK_NOT_FOUND,
    RemoteError,
    RemoteNotFound,
    RemoteProtocolError,
    RemoteRefused,
    RemoteUnavailable,
    ReplyLost,
)
from agentlin_bridge.remote.http import json_of
from agentlin_bridge.remote.messages import MESSAGE_LIMIT, clean_message
from agentlin_bridge.task import JsonrpcError, TaskObject


def read_json(status: int, content_type: str, body: bytes) -> Mapping[str, Any]:
    """The JSON object of an answer.

    Raises:
        RemoteProtocolError: it is not one.
    """
    value = json_of(body)
    if not isinstance(value, dict):
        raise RemoteProtocolError(
            f"The remote answered HTTP {status} with {content_type or 'no content type'}, not with a JSON object.",
            next_step="check that AGENTLIN_BASE_URL is the base of the task API (it usually ends in /v1)",
            status=status,
        )
    return value


def read_task(payload: Mapping[str, Any], status: int) -> TaskObject:
    """The task object of an envelope, or of a bare answer.

    Raises:
        RemoteNotFound: the envelope's error says so.
        RemoteError: the envelope holds another error and no task.
        RemoteProtocolError: there is neither task nor error.
    """
    result = payload.get("result")
    if not isinstance(result, dict):
        result = payload if payload.get("object") == "task" else None
    if result is None:
        raise_error(payload, status)
    try:
        task = TaskObject.model_validate(result)
    except ValidationError as error:
        raise RemoteProtocolError(
            f"The remote's task object cannot be read: {clean_message(error.errors()[0]['msg'])}.",
            next_step="report this to the operator of the remote",
            status=status,
        ) from error
    if task.error is not None:
        task.error = _cleaned(task.error)
    return task


def _cleaned(error: JsonrpcError) -> JsonrpcError:
    return JsonrpcError(code=error.code, message=clean_message(error.message))


def raise_error(payload: Mapping[str, Any], status: int) -> NoReturn:
    """Raise the error that a JSON answer without a task carries."""
    raw = payload.get("error")
    found: Mapping[str, Any] = raw if isinstance(raw, dict) else payload
    message = clean_message(found.get("message") or payload.get("detail") or f"HTTP {status}")
    code = found.get("code")
    request_id = payload.get("id")
    details: dict[str, Any] = {
        "remote_code": code if isinstance(code, int) else None,
        "status": status,
        "request_id": request_id if isinstance(request_id, str) else None,
    }
    if code == TASK_NOT_FOUND:
        raise RemoteNotFound(f"The remote knows no such task ({message}).", **details)
    if status in (401, 403):
        raise RemoteRefused(
            f"The remote refused the key (HTTP {status}: {message}).",
            next_step="check AGENTLIN_API_KEY and that it belongs to AGENTLIN_BASE_URL",
            **details,
        )
    if status == 404:
        raise RemoteNotFound(
            f"The remote has nothing there (HTTP 404: {message}).",
            next_step="check that AGENTLIN_BASE_URL is the base of the task API (it usually ends in /v1)",
            **details,
        )
    if status == 429:
        raise RemoteUnavailable(
            f"The remote is overloaded (HTTP 429: {message}).", next_step="try again later", **details
        )
    if status in (408, 500, 502, 503, 504):
        raise ReplyLost(
            f"The remote failed while answering (HTTP {status}: {message}).",
            next_step="retrieve the task to see whether it runs",
            **details,
        )
    if status == 422 and isinstance(payload.get("errors"), list):
        message = f"{message}: {clean_message(json.dumps(payload['errors'])[:MESSAGE_LIMIT])}"
    raise RemoteError(f"The remote rejected the request (HTTP {status}: {message}).", **details)
