"""Reading what clients send: the create body, the headers, the list query. No IO."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NoReturn
from uuid import uuid4

from agentlin_bridge.server.protocol.bodies import OTHER_ID, TASK_ID, CreateBody, FunctionSchema, ListParams, checked
from agentlin_bridge.server.protocol.dialogue import is_replay, said_in, told_in
from agentlin_bridge.server.protocol.refusals import Refusal
from agentlin_bridge.server.protocol.results import tool_results
from agentlin_bridge.task import TaskStatus, ToolResultItem

_ID_PATTERNS = {
    "task_id": re.compile(TASK_ID),
    **dict.fromkeys(("session_id", "user_id", "client_id", "request_id"), re.compile(OTHER_ID)),
}
_PREFIXES = {
    "task_id": "task_",
    "session_id": "sess_",
    "user_id": "user_",
    "client_id": "client_",
    "request_id": "req_",
}
_NOT_MEANING = {"task_id", "request_id", "stream"}
_DIALOGUE = ("history_messages", "thought_messages", "tool_results")

MAX_PAGE = 16 * 1024 * 1024
"""Bytes of tasks on one page of a list, unless one task alone has more."""
MAX_MESSAGES = 10_000
"""Messages and tool results that a create request may hold together."""


@dataclass(frozen=True)
class CreateRequest:
    """A create request that can be served.

    Attributes:
        session_id: the session it names; None if it names none.
        user_id: likewise; with an owner always the owner.
        owner: the user that the caller's key names. Tasks and sessions of others are as if they did not exist.
            None may see all.
        results: tool results it delivers; empty for a new turn.
        is_nudge: it says something without content of its own, so that a turn which failed goes on.
        stream: whether it is answered with the task's event stream.
        expires_in: seconds after which the task expires; None leaves it to the server.
        body: what came, to be stored; `dialogue.told_in` and `dialogue.said_in` say what it means.
        fingerprint: equal for two requests that mean the same.
    """

    task_id: str
    session_id: str | None
    user_id: str | None
    request_id: str
    previous_task_id: str | None
    results: tuple[ToolResultItem, ...]
    body: Mapping[str, Any] = field(repr=False)
    fingerprint: str
    owner: str | None = None
    is_nudge: bool = False
    stream: bool = False
    expires_in: float | None = None


@dataclass(frozen=True)
class ListQuery:
    """Which tasks to list, newest first. Cursors are task ids and exclusive.

    Attributes:
        owner: only this user's tasks, cursors included, whatever else is asked for.
        offset: so many tasks are skipped.
        max_bytes: the page holds fewer tasks, but at least one, when what they were asked and put out is more.
    """

    session_id: str | None = None
    user_id: str | None = None
    statuses: tuple[TaskStatus, ...] = ()
    limit: int = 20
    starting_after: str | None = None
    ending_before: str | None = None
    owner: str | None = None
    offset: int = 0
    max_bytes: int = MAX_PAGE


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
        if isinstance(value, str) and _ID_PATTERNS["request_id"].fullmatch(value):
            return value
    return new_id("request_id")


def read_create(
    body: dict[str, Any], headers: Mapping[str, str], request_id: str, *, owner: str | None = None
) -> CreateRequest:
    """Check a create body. Missing ids come from the headers, else they are generated.

    Raises:
        Refusal: it cannot be served.
    """
    _not_too_many(body)
    given = checked(CreateBody, body)
    ids = {name: _id(given, headers, name) for name in _PREFIXES}
    if owner is not None:
        ids["user_id"] = owner
    _names_of_their_own(read_tools(body) or [])
    replay = is_replay(body)
    results = () if replay else tool_results(body)
    content = said_in(body) if results else told_in(body, replay=replay).user_content
    if body.get("user_message_content") is None and not results and not content:
        raise Refusal("user_message_content is missing")
    return CreateRequest(
        task_id=ids["task_id"] or new_id("task_id"),
        session_id=ids["session_id"],
        user_id=ids["user_id"],
        request_id=request_id,
        # Who replays a turn names a task that is lost.
        previous_task_id=None if replay else given.previous_task_id,
        results=results,
        body=_worth_keeping({**body, "client_id": ids["client_id"]} if ids["client_id"] else body),
        fingerprint=_fingerprint(body, {**ids, "previous_task_id": given.previous_task_id}),
        owner=owner,
        is_nudge=bool(content) and not (results or given.user_message_content or replay),
        stream=bool(given.stream),
        expires_in=given.expires_in,
    )


def _not_too_many(body: Mapping[str, Any]) -> None:
    lists = (body.get(name) for name in _DIALOGUE)
    count = sum(len(messages) for messages in lists if isinstance(messages, list))
    if count > MAX_MESSAGES:
        raise Refusal(
            f"{', '.join(_DIALOGUE)}: {count} messages are more than the {MAX_MESSAGES} a request may hold; "
            "leave out the oldest",
            status=413,
        )


def _id(given: CreateBody, headers: Mapping[str, str], name: str) -> str | None:
    in_body: str | None = getattr(given, name)
    header = "x-" + name.replace("_", "-")
    in_header = headers.get(header)
    if in_header is not None and not _ID_PATTERNS[name].fullmatch(in_header):
        raise Refusal(f"{header} must be a string of at most 200 characters without control characters")
    return in_header if in_body is None else in_body


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


def read_tools(body: Mapping[str, Any]) -> list[FunctionSchema] | None:
    """The client tools a checked body offers; None when it does not say."""
    tools = body.get("client_tools")
    return None if tools is None else [FunctionSchema.model_validate(tool["function"]) for tool in tools]


def _names_of_their_own(tools: list[FunctionSchema]) -> None:
    if len({tool.name for tool in tools}) < len(tools):
        raise Refusal("client_tools: every tool needs a name of its own")


def _worth_keeping(body: Mapping[str, Any]) -> dict[str, Any]:
    """A request without the secrets of the published server's own tools, which this one does not have."""
    kept = {name: value for name, value in body.items() if name not in ("env", "jupyter_token")}
    for name in ("agent_config", "code_interpreter_config"):
        if isinstance(inner := kept.get(name), Mapping):
            kept[name] = _worth_keeping(inner)
    return kept


def read_list_query(params: ListParams, *, owner: str | None = None, max_bytes: int = MAX_PAGE) -> ListQuery:
    """What a list request asks for.

    Raises:
        Refusal: its parameters exclude each other.
    """
    if params.starting_after and params.ending_before:
        raise Refusal("starting_after and ending_before exclude each other")
    return ListQuery(
        session_id=params.session_id,
        user_id=params.user_id,
        statuses=tuple(params.status),
        limit=params.limit,
        starting_after=params.starting_after,
        ending_before=params.ending_before,
        owner=owner,
        offset=params.offset,
        max_bytes=max_bytes,
    )
