"""From a tool call to a tool result: check the arguments, run the handler, bound what it returns."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from agentlin_bridge.delegation.client_tools import ClientTool
from agentlin_bridge.delegation.ledger.records import TaskRecord
from agentlin_bridge.delegation.limits import Limits
from agentlin_bridge.errors import InvalidRequestError
from agentlin_bridge.json_schema import misfit
from agentlin_bridge.remote.backend import ToolDefinition
from agentlin_bridge.task import (
    AudioContentItem,
    FileContentItem,
    ImageContentItem,
    MessageContent,
    TextContentItem,
    ToolCallItem,
    ToolResult,
    UnknownContentItem,
)

_CONTENT: TypeAdapter[list[Any]] = TypeAdapter(MessageContent)
_CONTENT_ITEMS = (str, TextContentItem, ImageContentItem, AudioContentItem, FileContentItem, UnknownContentItem)
_ERROR_CHARS = 500

current_call: ContextVar[ToolCallItem] = ContextVar("current_call")
"""The call that the running handler or approval answers."""


def refusal(name: str, arguments: str, offered: Mapping[str, ToolDefinition]) -> ToolResult | None:
    """The error result for a call that nobody should be asked to execute; None if it is in order."""
    tool = offered.get(name)
    if tool is None:
        known = ", ".join(sorted(offered)) or "none"
        return ToolResult.error(
            f"There is no tool {name!r} here, and nothing was executed. Tools you can call: {known}."
        )
    try:
        value = json.loads(arguments or "{}")
    except (ValueError, RecursionError) as error:
        return ToolResult.error(f"The arguments of {name} are not JSON ({error}). Nothing was executed; call it again.")
    if problem := misfit(tool.parameters, value):
        return ToolResult.error(
            f"The arguments of {name} do not fit its schema: {problem[:_ERROR_CHARS]}. "
            "Nothing was executed; call it again."
        )
    return None


def edited_arguments(task: TaskRecord, wanted: Mapping[str, Mapping[str, Any] | None]) -> dict[str, str | None]:
    """The arguments a person gave calls of a task's current round, as JSON by call_id.

    Raises:
        InvalidRequestError: they do not fit the tool's schema.
    """
    called = {call.call_id: call.name for call in task.current.calls}
    offered = {tool.name: tool for tool in task.client_tools or ()}
    found: dict[str, str | None] = {}
    for call_id, arguments in wanted.items():
        tool = offered.get(called.get(call_id, ""))
        if arguments is None:
            found[call_id] = None
            continue
        try:
            found[call_id] = json.dumps(dict(arguments), ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InvalidRequestError(
                f"The arguments for {call_id!r} cannot be written as JSON: {error}. Nothing was approved.",
                next_step="use JSON values",
            ) from error
        # What an adopted task was offered is not known.
        if tool is not None and (problem := misfit(tool.parameters, arguments)):
            raise InvalidRequestError(
                f"The arguments for {call_id!r} do not fit the schema of {tool.name}: {problem[:_ERROR_CHARS]}. "
                "Nothing was approved.",
                next_step="correct them",
            )
    return found


async def execute(tool: ClientTool, call: ToolCallItem, limits: Limits) -> ToolResult:
    """Run a client tool's handler for a call that `refusal` let pass.

    Whatever goes wrong in it becomes an error result the remote agent can read; only the cancellation of
    the task itself gets through. While it runs, `current_call` is the call.
    """
    current_call.set(call)
    try:
        with anyio.move_on_after(limits.handler_timeout):
            if callable(tool.approval) and not await _called(tool.approval, call):
                return ToolResult.error(f"The call of {tool.name} was not approved, and nothing was executed.")
            arguments = json.loads(call.arguments or "{}")
            if tool.arguments_type is not None:
                try:
                    arguments = tool.arguments_type.validate_python(arguments)
                except ValidationError as error:
                    found = error.errors(include_url=False)[0]
                    return ToolResult.error(f"The arguments of {tool.name} do not fit: {found['loc']}: {found['msg']}.")
            returned = await _called(tool.handler, **arguments)
            return unicode_only(bounded(as_result(returned), limits.result_chars))
        return ToolResult.error(f"{tool.name} did not finish within {limits.handler_timeout:g} seconds.")
    except anyio.get_cancelled_exc_class():
        await anyio.lowlevel.checkpoint_if_cancelled()
        return ToolResult.error(f"{tool.name} was cancelled by the host before it finished.")
    except Exception as error:
        return unicode_only(
            ToolResult.error(f"{tool.name} failed: {type(error).__name__}: {str(error)[:_ERROR_CHARS]}")
        )


async def _called(function: Any, /, *arguments: Any, **keywords: Any) -> Any:
    if inspect.iscoroutinefunction(function):
        return await function(*arguments, **keywords)
    # A thread cannot be stopped; a canceled task no longer waits for it.
    # It has a thread of its own: the ledger must not wait for those that handlers hold.
    returned = await anyio.to_thread.run_sync(
        partial(function, *arguments, **keywords), abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
    )
    return await returned if inspect.isawaitable(returned) else returned


def as_result(value: object) -> ToolResult:
    """What a handler returned, or a host submitted, as a tool result.

    Text and content items stay what they are; anything else becomes JSON text.
    """
    if isinstance(value, ToolResult):
        return value
    if value is None:
        return ToolResult()
    if isinstance(value, _CONTENT_ITEMS):
        return ToolResult(content=_CONTENT.validate_python([value]))
    if isinstance(value, list | tuple) and value and all(isinstance(item, _CONTENT_ITEMS) for item in value):
        return ToolResult(content=_CONTENT.validate_python(list(value)))
    return ToolResult(content=[TextContentItem(text=_json_text(value))])


def _json_text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    try:
        return to_json(value).decode()
    except PydanticSerializationError:
        return str(value)


def unicode_only(result: ToolResult) -> ToolResult:
    """A result that can be stored and sent: what is no Unicode in it (half surrogates) becomes `?`."""
    try:
        result.model_dump_json().encode()
    except (PydanticSerializationError, UnicodeEncodeError):
        plain = json.dumps(result.model_dump(), ensure_ascii=False).encode("utf-8", "replace")
        return ToolResult.model_validate_json(plain)
    return result


def size_of(result: ToolResult) -> int:
    """Characters of a result as it is sent."""
    return sum(_size(item) for item in result.content)


def bounded(result: ToolResult, limit: int) -> ToolResult:
    """A result cut to a number of characters, saying so where it was cut."""
    if size_of(result) <= limit:
        return result
    kept: list[BaseModel] = []
    room = limit
    for item in result.content:
        size = _size(item)
        if size <= room:
            kept.append(item)
        elif isinstance(item, TextContentItem):
            kept.append(TextContentItem(text=item.text[:room]))
            size = room
        else:
            kept.append(TextContentItem(text=f"[left out: content of type {item.type!r} with {size} characters]"))
            size = 0
        room -= size
        if room <= 0:
            break
    note = f"\n[cut: the result has {size_of(result)} characters, the limit is {limit}]"
    return ToolResult(content=[*kept, TextContentItem(text=note)], is_error=result.is_error)


def _size(item: Any) -> int:
    return len(item.text) if isinstance(item, TextContentItem) else len(item.model_dump_json())
