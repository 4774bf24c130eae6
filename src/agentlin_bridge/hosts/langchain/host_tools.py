"""The host's tools as client tools: LangChain tools, `ClientTool`s and typed functions.

The remote agent decides what they are called with, so it is given no more than a model of the host's has:
injected arguments are neither offered to it nor taken from it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, get_args, get_origin, get_type_hints

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import merge_configs
from langchain_core.tools import BaseTool, StructuredTool, Tool
from langchain_core.tools.base import get_all_basemodel_annotations
from langchain_core.utils.function_calling import convert_to_openai_tool

from agentlin_bridge.delegation.answering import current_call
from agentlin_bridge.delegation.client_tools import ClientTool, ToolLike, as_client_tools
from agentlin_bridge.errors import InvalidRequestError
from agentlin_bridge.hosts.langchain.caller import Caller, is_graph_control
from agentlin_bridge.hosts.langchain.content import result_of
from agentlin_bridge.hosts.langchain.standing import TASK_METADATA
from agentlin_bridge.task import ToolResult

HostTool = BaseTool | ToolLike
"""What `client_tools` takes."""

_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9_-]+")
_NAME_LENGTH = 64


def as_offered(tools: Iterable[HostTool], caller: Caller | None = None) -> dict[str, ClientTool]:
    """Client tools that run on the caller's side, by the names the host gave them.

    Args:
        tools: the host's tools.
        caller: where they run; without one they are only checked.

    Raises:
        InvalidRequestError: one of them cannot be used, or two have the same name.
    """
    offered: dict[str, ClientTool] = {}
    names: set[str] = set()
    for given in tools:
        if isinstance(given, BaseTool):
            tool, called = _from_langchain(given, caller), given.name
        else:
            (tool,) = as_client_tools([given]).values()
            tool, called = _in_callers_loop(tool, caller), tool.name
        if tool.name in names:
            raise InvalidRequestError(
                f"Two client tools would be called {tool.name!r}; one of them is {called!r}.",
                next_step="give each its own name of letters, digits, underscores and hyphens",
            )
        names.add(tool.name)
        offered[called] = tool
    return offered


def _in_callers_loop(tool: ClientTool, caller: Caller | None) -> ClientTool:
    """The same tool, with what is async of it running where the caller's async code runs."""

    def moved(function: Callable[..., Any] | None) -> Callable[..., Any] | None:
        if caller is None or not inspect.iscoroutinefunction(function):
            return function
        return partial(caller.run, function)

    approval = moved(tool.approval) if callable(tool.approval) else tool.approval
    return replace(tool, handler=moved(tool.handler), approval=approval)


def _from_langchain(tool: BaseTool, caller: Caller | None) -> ClientTool:
    try:
        function = convert_to_openai_tool(tool)["function"]
    except Exception as error:
        raise InvalidRequestError(
            f"The arguments of the tool {tool.name!r} cannot be described to the remote agent: {error}",
            next_step="use types that JSON can carry",
        ) from error
    parameters = {"type": "object", "properties": {}, "additionalProperties": False, **function["parameters"]}
    return ClientTool(
        name=_NOT_ALLOWED.sub("_", tool.name)[:_NAME_LENGTH],
        description=function.get("description") or "",
        parameters=parameters,
        handler=partial(_run, tool, frozenset(parameters["properties"]), caller) if caller else _unbound,
    )


def _unbound(**_: Any) -> None:
    """Stands for the handler of a tool that is only checked."""


async def _run(tool: BaseTool, names: frozenset[str], caller: Caller, /, **arguments: Any) -> ToolResult:
    call_id = current_call.get().call_id
    given = {name: value for name, value in arguments.items() if name in names}
    if caller.runtime is not None:
        given |= _injected(tool, replace(caller.runtime, tool_call_id=call_id))
    call = {"type": "tool_call", "id": call_id, "name": tool.name, "args": given}
    traced: RunnableConfig = {
        "tags": ["agentlin:client_tool"],
        "metadata": {TASK_METADATA: caller.task_id, "agentlin_call_id": call_id},
    }
    config = merge_configs(caller.config, traced)
    try:
        if caller.is_sync and not _is_async_only(tool):
            returned = await caller.run_in_thread(tool.invoke, call, config)
        else:
            returned = await caller.run(tool.ainvoke, call, config)
    except Exception as error:
        if is_graph_control(error):
            return ToolResult.error(
                f"{tool.name} wants to interrupt the host's graph, which a client tool cannot. Nobody was asked."
            )
        raise
    return result_of(tool.name, returned)


def _is_async_only(tool: BaseTool) -> bool:
    return isinstance(tool, StructuredTool | Tool) and tool.func is None


def _injected(tool: BaseTool, runtime: Any) -> dict[str, Any]:
    """The arguments a graph gives its tools: the runtime, its store, its state or parts of that."""
    # There is a runtime, so there is LangGraph.
    from langgraph.prebuilt import InjectedState, InjectedStore, ToolRuntime  # noqa: PLC0415

    found: dict[str, Any] = {}
    for name, annotation in _annotations(tool).items():
        for part in _parts(annotation):
            if part is ToolRuntime or (name == "runtime" and name not in tool.args):
                found[name] = runtime
            elif part is InjectedStore or isinstance(part, InjectedStore):
                found[name] = runtime.store
            elif part is InjectedState or isinstance(part, InjectedState):
                field = getattr(part, "field", None)
                if field is None:
                    found[name] = runtime.state
                elif field in runtime.state:
                    found[name] = runtime.state[field]
    return found


def _annotations(tool: BaseTool) -> Mapping[str, Any]:
    function = getattr(tool, "func", None) or getattr(tool, "coroutine", None)
    of_function = get_type_hints(function, include_extras=True) if function is not None else {}
    return {**of_function, **get_all_basemodel_annotations(tool.get_input_schema())}


def _parts(annotation: Any) -> Iterator[Any]:
    """An annotation and all it is made of: origins, arguments, marks."""
    yield annotation
    if (origin := get_origin(annotation)) is not None:
        yield origin
    for part in get_args(annotation):
        yield from _parts(part)
