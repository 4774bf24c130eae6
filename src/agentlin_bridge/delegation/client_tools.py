"""Client tools: what the host side offers to the remote agent."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, overload

from pydantic import ConfigDict, TypeAdapter
from pydantic.errors import PydanticUserError
from typing_extensions import TypedDict

from agentlin_bridge.errors import InvalidRequestError
from agentlin_bridge.json_schema import schema_problem
from agentlin_bridge.remote.backend import ToolDefinition
from agentlin_bridge.task import ToolCallItem

Handler = Callable[..., Any]
"""Called with the validated arguments as keywords; sync (on a worker thread) or async."""

Approval = Callable[[ToolCallItem], bool | Awaitable[bool]] | Literal["required"]
"""A function asked before a handler runs (False refuses the call); or `required`: the call is pending until a
person approved it (`TaskBridge.approve`)."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NO_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}}


@dataclass(frozen=True, slots=True)
class ClientTool:
    """A tool the host side offers to the remote agent.

    Attributes:
        name: 1 to 64 letters, digits, underscores or hyphens.
        description: for the remote agent's model.
        parameters: a JSON Schema of type object; every call is checked against it.
        handler: runs the tool. Without one its calls become pending and the host answers them.
        approval: what has to happen before each run of the handler; None lets it run.
        idempotent: whether the handler may run again when a crash hid whether it had run.
        arguments_type: turns JSON values into the types the handler declares, once they fit `parameters`.

    Raises:
        InvalidRequestError: the name or the schema cannot be used.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: dict(_NO_PARAMETERS))
    handler: Handler | None = None
    approval: Approval | None = None
    idempotent: bool = False
    arguments_type: TypeAdapter[dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InvalidRequestError(
                f"The client tool name {self.name!r} cannot be used.",
                next_step="use 1 to 64 letters, digits, underscores or hyphens",
            )
        if self.parameters.get("type") != "object":
            raise InvalidRequestError(
                f"The parameters of the client tool {self.name!r} are not a JSON Schema of type object.",
                next_step='start from {"type": "object", "properties": {}}',
            )
        problem = schema_problem(self.parameters)
        if problem:
            raise InvalidRequestError(
                f"The parameters of the client tool {self.name!r} are no valid JSON Schema: {problem}.",
                next_step="correct the schema",
            )

    @property
    def definition(self) -> ToolDefinition:
        """The tool as the remote agent sees it."""
        return ToolDefinition(self.name, self.description, self.parameters)


@overload
def client_tool(function: Handler, /) -> ClientTool: ...
@overload
def client_tool(
    *,
    name: str | None = None,
    description: str | None = None,
    approval: Approval | None = None,
    idempotent: bool = False,
) -> Callable[[Handler], ClientTool]: ...
def client_tool(
    function: Handler | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    approval: Approval | None = None,
    idempotent: bool = False,
) -> ClientTool | Callable[[Handler], ClientTool]:
    """Make a client tool of a typed function: its name, docstring and annotations say all there is to say.

    Raises:
        InvalidRequestError: a parameter has no annotation, or one that no JSON Schema can express.
    """

    def make(function: Handler) -> ClientTool:
        called = name or function.__name__
        try:
            arguments = _arguments_type(called, function)
            schema = arguments.json_schema()
        except PydanticUserError as error:
            raise InvalidRequestError(
                f"A parameter of the client tool {called!r} cannot be described by a JSON Schema: {error.message}",
                next_step="use types that JSON can carry",
            ) from error
        schema.pop("title", None)
        return ClientTool(
            name=called,
            description=inspect.getdoc(function) or "" if description is None else description,
            parameters=schema,
            handler=function,
            approval=approval,
            idempotent=idempotent,
            arguments_type=arguments,
        )

    return make if function is None else make(function)


def _arguments_type(name: str, function: Handler) -> TypeAdapter[dict[str, Any]]:
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise InvalidRequestError(
                f"The client tool {name!r} cannot have the parameter {parameter}.",
                next_step="give it named parameters only",
            )
        if parameter.annotation is parameter.empty:
            raise InvalidRequestError(
                f"The parameter {parameter.name!r} of the client tool {name!r} has no type.",
                next_step="annotate it",
            )
        required = parameter.default is parameter.empty
        fields[parameter.name] = parameter.annotation if required else NotRequired[parameter.annotation]
    # A model class would not do: parameters may be called `json` or `copy`.
    typed_dict: Any = TypedDict
    arguments = typed_dict(name, fields)
    arguments.__pydantic_config__ = ConfigDict(extra="forbid")
    return TypeAdapter(arguments)


ToolLike = ClientTool | Mapping[str, Any] | Handler
"""What `client_tools` takes: a `ClientTool`, `{name, description, parameters}`, or a typed function."""


def as_client_tools(tools: Iterable[ToolLike]) -> dict[str, ClientTool]:
    """Client tools by name.

    Raises:
        InvalidRequestError: one of them cannot be used, or two have the same name.
    """
    by_name: dict[str, ClientTool] = {}
    for given in tools:
        tool = _as_client_tool(given)
        if tool.name in by_name:
            raise InvalidRequestError(f"Two client tools are called {tool.name!r}.", next_step="give each its own name")
        by_name[tool.name] = tool
    return by_name


def _as_client_tool(given: ToolLike) -> ClientTool:
    if isinstance(given, ClientTool):
        return given
    if isinstance(given, Mapping):
        function = given.get("function", given) if given.get("type") == "function" else given
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise InvalidRequestError(
                f"{dict(given)!r} is no client tool.", next_step="give it name, description and parameters"
            )
        parameters = function.get("parameters") or _NO_PARAMETERS
        if not isinstance(parameters, Mapping):
            raise InvalidRequestError(
                f"The parameters of the client tool {function['name']!r} are not an object.",
                next_step='give a JSON Schema such as {"type": "object", "properties": {}}',
            )
        return ClientTool(str(function["name"]), str(function.get("description") or ""), dict(parameters))
    if callable(given):
        return client_tool(given)
    raise InvalidRequestError(
        f"{given!r} is no client tool.",
        next_step="give a typed function, a ClientTool or a dict with name and parameters",
    )
