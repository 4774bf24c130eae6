"""Reading what clients send: the create body, the headers, the list query. No IO."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, NoReturn
from uuid import uuid4

from pydantic import BaseModel, TypeAdapter, ValidationError

from agentlin_bridge.server.refusals import UNSUPPORTED, Refusal
from agentlin_bridge.server.results import is_content, tool_results
from agentlin_bridge.task import ContentItem, TaskStatus, ToolResultItem

_TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}")
_OTHER_ID = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,199}")
_ID_FIELDS = ("task_id", "session_id", "user_id", "client_id", "request_id", "previous_task_id")
_PREFIXES = {
    "task_id": "task_",
    "session_id": "sess_",
    "user_id": "user_",
    "client_id": "client_",
    "request_id": "req_",
}
_NOT_MEANING = {"task_id", "request_id", "stream"}

_content = TypeAdapter(list[ContentItem])


class _Function(BaseModel):
    name: str
    description: str | None = None
    parameters: dict[str, Any] = {}


class _ToolData(BaseModel):
    type: Literal["function"]
    function: _Function


_tool_list = TypeAdapter(list[_ToolData])


@dataclass(frozen=True)
class CreateRequest:
    """A create request that can be served.

    Attributes:
        session_id: the session it names; None if it names none.
        user_id: likewise.
        results: tool results it delivers; empty for a new turn.
        body: what came, to be stored.
        fingerprint: equal for two requests that mean the same.
    """

    task_id: str
    session_id: str | None
    user_id: str | None
    request_id: str
    previous_task_id: str | None
    results: tuple[ToolResultItem, ...]
    body: Mapping[str, Any]
    fingerprint: str


@dataclass(frozen=True)
class ListQuery:
    """Which tasks to list, newest first. Cursors are task ids and exclusive."""

    session_id: str | None = None
    user_id: str | None = None
    statuses: tuple[TaskStatus, ...] = ()
    limit: int = 20
    starting_after: str | None = None
    ending_before: str | None = None


def new_id(field: str) -> str:
    """A fresh id for `task_id`, `session_id`, `user_id`, `client_id` or `request_id`."""
    return _PREFIXES[field] + uuid4().hex


def read_json(raw: bytes) -> dict[str, Any]:
    """The JSON object in a request body.

    Raises:
        Refusal: it is not one.
    """
    try:
        body = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Refusal(f"The body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise Refusal("The body must be a JSON object")
    return body


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


def request_id_of(body: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    """The id an answer's envelope carries, usable or not as the rest of the request may be."""
    for value in (body.get("request_id"), headers.get("x-request-id")):
        if isinstance(value, str) and _OTHER_ID.fullmatch(value):
            return value
    return new_id("request_id")


def read_create(body: dict[str, Any], headers: Mapping[str, str], request_id: str) -> CreateRequest:
    """Check a create body. Missing ids come from the headers, else they are generated.

    Raises:
        Refusal: it cannot be served.
    """
    ids = {field: _id(body, headers, field) for field in _ID_FIELDS}
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise Refusal("stream must be true or false")
    if stream:
        raise Refusal(
            "This server cannot stream yet; send stream: false and poll GET /tasks/{task_id}", code=UNSUPPORTED
        )
    read_tools(body)
    results = tool_results(body)
    if body.get("user_message_content") is None and not results:
        raise Refusal("user_message_content is missing")
    read_content(body)
    return CreateRequest(
        task_id=ids["task_id"] or new_id("task_id"),
        session_id=ids["session_id"],
        user_id=ids["user_id"],
        request_id=request_id,
        previous_task_id=ids["previous_task_id"],
        results=results,
        body=body,
        fingerprint=_fingerprint(body, ids),
    )


def _id(body: Mapping[str, Any], headers: Mapping[str, str], field: str) -> str | None:
    value = body.get(field)
    if value is None and field != "previous_task_id":
        value = headers.get("x-" + field.replace("_", "-"))
    if value is None:
        return None
    pattern = _TASK_ID if field == "task_id" else _OTHER_ID
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise Refusal(f"{field} must be a string of at most 200 characters without spaces or control characters")
    return value


def _fingerprint(body: Mapping[str, Any], ids: Mapping[str, str | None]) -> str:
    meaning = {key: value for key, value in {**body, **ids}.items() if key not in _NOT_MEANING}
    meaning = {key: value for key, value in meaning.items() if value is not None}
    content = meaning.get("user_message_content")
    if isinstance(content, str):
        meaning["user_message_content"] = [{"type": "text", "text": content}]
    try:
        text = json.dumps(meaning, sort_keys=True, ensure_ascii=False, allow_nan=False)
        return sha256(text.encode()).hexdigest()
    except ValueError as error:
        raise Refusal(f"The body holds something that is not Unicode text or a finite number: {error}") from None


def read_content(body: Mapping[str, Any]) -> tuple[BaseModel, ...]:
    """This message's content items.

    Raises:
        Refusal: `user_message_content` is neither a string nor a list of strings and content items.
    """
    content = body.get("user_message_content")
    if content is None:
        return ()
    items = [content] if isinstance(content, str) else content
    if not isinstance(items, list) or not all(map(is_content, items)):
        raise Refusal(
            'user_message_content must be a string or a list of content items such as {"type": "text", "text": "..."}'
        )
    return tuple(_content.validate_python(items))


def read_tools(body: Mapping[str, Any]) -> list[_Function] | None:
    """The client tools a body offers; None when it does not say.

    Raises:
        Refusal: the list is malformed or names a tool twice.
    """
    if body.get("client_tools") is None:
        return None
    try:
        tools = [tool.function for tool in _tool_list.validate_python(body["client_tools"])]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in ("client_tools", *first["loc"]))
        raise Refusal(f"{where}: {first['msg']}") from None
    names = [tool.name for tool in tools]
    if len(set(names)) < len(names) or not all(names):
        raise Refusal("client_tools: every tool needs a name of its own")
    return tools


def read_list_query(params: Mapping[str, str], statuses: list[str]) -> ListQuery:
    """Check the query of a list request.

    Raises:
        Refusal: a parameter is out of range or unknown.
    """
    limit = params.get("limit", "20")
    if not re.fullmatch(r"[0-9]{1,3}", limit) or not 1 <= int(limit) <= 100:
        raise Refusal("limit must be a whole number from 1 to 100")
    if params.get("starting_after") and params.get("ending_before"):
        raise Refusal("starting_after and ending_before exclude each other")
    try:
        wanted = tuple(TaskStatus(status) for status in statuses)
    except ValueError as error:
        raise Refusal(f"status: {error}; known are {', '.join(TaskStatus)}") from None
    return ListQuery(
        session_id=params.get("session_id"),
        user_id=params.get("user_id"),
        statuses=wanted,
        limit=int(limit),
        starting_after=params.get("starting_after") or None,
        ending_before=params.get("ending_before") or None,
    )
