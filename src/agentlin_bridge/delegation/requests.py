"""What `create` was asked for: checked, completed from the agent profile, and fingerprinted."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any, TypedDict

from pydantic import TypeAdapter

from agentlin_bridge.delegation.backends import Backends
from agentlin_bridge.delegation.client_tools import ClientTool, ToolLike, as_client_tools
from agentlin_bridge.delegation.ledger.records import NewTask
from agentlin_bridge.delegation.limits import Limits
from agentlin_bridge.errors import InvalidRequestError
from agentlin_bridge.json_schema import schema_problem
from agentlin_bridge.remote.backend import TaskBackend
from agentlin_bridge.task import MessageContent, TextContentItem, UnknownContentItem

_CONTENT: TypeAdapter[list[Any]] = TypeAdapter(MessageContent)

Attachment = Any
"""A content item of `agentlin_bridge.task`, the same as a dict, or a string of text."""


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """The arguments of `TaskBridge.create`, for `run_many` and for keeping.

    Attributes:
        instructions: what the remote agent shall do.
        client_tools: what it may ask the host side to do.
        attachments: content items (text, image, audio, file) that go along.
        agent: the name of an agent profile in the configuration.
        continue_task: a finished task whose session goes on.
        output_schema: a JSON Schema that the answer, as JSON, must satisfy.
        request_id: repeating it gives the same task instead of a second one.
        deadline: seconds, or a timedelta, after which the task expires.
        metadata: yours; kept with the task, never sent.
        options: further parameters of the backend's own API.
        stream: whether to follow its rounds by event stream, where the backend can; None takes the bridge's
            default.
    """

    instructions: str
    client_tools: Sequence[ToolLike] = ()
    attachments: Sequence[Attachment] = ()
    agent: str | None = None
    continue_task: str | None = None
    output_schema: Mapping[str, Any] | None = None
    request_id: str | None = None
    deadline: float | timedelta | None = None
    metadata: Mapping[str, Any] | None = None
    options: Mapping[str, Any] | None = None
    stream: bool | None = None


class RequestFields(TypedDict, total=False):
    """The optional fields of a `TaskRequest`, as keyword arguments."""

    client_tools: Sequence[ToolLike]
    attachments: Sequence[Attachment]
    agent: str | None
    continue_task: str | None
    output_schema: Mapping[str, Any] | None
    request_id: str | None
    deadline: float | timedelta | None
    metadata: Mapping[str, Any] | None
    options: Mapping[str, Any] | None
    stream: bool | None


@dataclass(frozen=True, slots=True)
class Origin:
    """What the bridge adds to a request."""

    principal: str
    backends: Backends
    limits: Limits
    user_id: str
    stream: bool = False


def new_id(prefix: str) -> str:
    """An id with 128 random bits."""
    return f"{prefix}_{secrets.token_hex(16)}"


def prepare(request: TaskRequest, origin: Origin) -> tuple[NewTask, dict[str, ClientTool]]:
    """Check a request; what comes out can be written down.

    Raises:
        InvalidRequestError: with the cause and what to do.
    """
    if not isinstance(request.instructions, str) or not request.instructions.strip():
        raise InvalidRequestError("The instructions are empty.", next_step="say what the agent shall do")
    tools = as_client_tools(request.client_tools)
    backend, profile = origin.backends.chosen(request.agent)
    _check_possible(request, backend, tools)
    options = {**profile, **(request.options or {})}
    backend.check_options(options)
    if request.output_schema is not None and (problem := schema_problem(request.output_schema)):
        raise InvalidRequestError(f"The output_schema is no valid JSON Schema: {problem}.", next_step="correct it")
    content = [TextContentItem(text=request.instructions), *_attachments(request.attachments)]
    if not backend.capabilities.files and not all(isinstance(item, TextContentItem) for item in content):
        raise InvalidRequestError(
            f"The backend {backend.name!r} takes no attachments but text.", next_step="give their content as text"
        )
    new = NewTask(
        id=new_id("task"),
        principal=origin.principal,
        request_id=request.request_id,
        fingerprint="",
        backend=backend.name,
        place=backend.place,
        agent=request.agent,
        continue_task=request.continue_task,
        previous_remote_id=None,
        content=[item.model_dump(mode="json", exclude_none=True) for item in content],
        client_tools=[tool.definition for tool in tools.values()],
        options=as_json("options", options),
        output_schema=None if request.output_schema is None else as_json("output_schema", request.output_schema),
        metadata=as_json("metadata", request.metadata or {}),
        session_id=new_id("sess"),
        user_id=origin.user_id,
        stream=(origin.stream if request.stream is None else request.stream) and backend.capabilities.stream,
        deadline_at=time.time() + _seconds(request.deadline, origin.limits),
    )
    return _with_fingerprint(new, request), tools


def _check_possible(request: TaskRequest, backend: TaskBackend, tools: Mapping[str, ClientTool]) -> None:
    if tools and not backend.capabilities.client_tools:
        raise InvalidRequestError(f"The backend {backend.name!r} cannot call client tools.", next_step="leave them out")
    if request.continue_task is not None and not backend.capabilities.sessions:
        raise InvalidRequestError(
            f"The backend {backend.name!r} knows nothing of earlier tasks.",
            next_step="leave continue_task out, and say in the instructions what the agent needs to know",
        )


def _with_fingerprint(new: NewTask, request: TaskRequest) -> NewTask:
    fields = asdict(new)
    for varies in ("id", "session_id", "deadline_at", "fingerprint"):
        del fields[varies]
    fields["deadline"] = str(request.deadline)
    try:
        said = json.dumps(fields, sort_keys=True, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"The request holds text that is not Unicode ({error.reason}).", next_step="correct the text"
        ) from error
    return replace(new, fingerprint=hashlib.sha256(said).hexdigest())


def _attachments(given: Sequence[Attachment]) -> list[Any]:
    content = _CONTENT.validate_python(list(given))
    for item in content:
        if isinstance(item, UnknownContentItem):
            raise InvalidRequestError(
                f"An attachment of type {item.type!r} is not understood.",
                next_step="give text, or a text, image, audio or file content item",
            )
    return content


def as_json(what: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping as plain JSON.

    Raises:
        InvalidRequestError: it cannot be written as JSON.
    """
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(
            f"The {what} cannot be written as JSON: {error}.", next_step="use JSON values"
        ) from error
    return plain


def _seconds(deadline: float | timedelta | None, limits: Limits) -> float:
    if deadline is None:
        return limits.task_deadline
    seconds = deadline.total_seconds() if isinstance(deadline, timedelta) else float(deadline)
    if not seconds > 0:
        raise InvalidRequestError(f"The deadline {deadline!r} is not in the future.", next_step="give seconds from now")
    return seconds
