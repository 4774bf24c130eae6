"""A tool whose failures are sentences: the cause, then what to do next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.mcpserver.tools import Tool
from mcp_types import ToolAnnotations
from pydantic import PrivateAttr, ValidationError

from agentlin_bridge.errors import BridgeError
from agentlin_bridge.hosts.arguments import lean_schema
from agentlin_bridge.hosts.mcp.results import ERROR_CHARS
from agentlin_bridge.hosts.text import one_line

_MISFITS = 3


class BridgeTool(Tool):
    """A tool with a lean schema and readable errors."""

    _prefix: str = PrivateAttr("")

    @classmethod
    def of(
        cls, function: Callable[..., Any], prefix: str, description: str, annotations: ToolAnnotations
    ) -> BridgeTool:
        """The tool `<prefix><function's name>`."""
        name = f"{prefix}{function.__name__}"
        made = cls.from_function(
            function, name=name, description=description, annotations=annotations, structured_output=False
        )
        made.parameters = lean_schema(made.parameters)
        tool = cast(BridgeTool, made)
        tool._prefix = prefix
        return tool

    async def run(self, arguments: dict[str, Any], context: Context[Any, Any], convert_result: bool = False) -> Any:
        """Run it.

        Raises:
            ToolError: with the cause and the next step.
        """
        # Hosts that have to fill in every argument send null for what they leave out.
        given = {name: value for name, value in arguments.items() if value is not None}
        known = self.parameters.get("properties", {})
        if unknown := sorted(given.keys() - known.keys()):
            raise self._misfit(f"there is no argument {unknown[0]!r}, only {', '.join(known)}")
        try:
            return await super().run(given, context, convert_result)
        except ToolError as error:
            cause = error.__cause__
            if isinstance(cause, ValidationError):
                raise self._misfit(_misfits(cause)) from cause
            if isinstance(cause, BridgeError):
                raise ToolError(in_words(cause)) from cause
            raise UnexpectedToolError(
                f"{self.name} failed: an error inside the bridge ({type(cause).__name__}). "
                f"Next: call {self._prefix}list_tasks to see where your tasks are; the bridge's stderr has the details."
            ) from cause

    def _misfit(self, problem: str) -> ToolError:
        return ToolError(
            f"{self.name} was not run, its arguments do not fit: {one_line(problem, ERROR_CHARS)}. "
            "Next: correct them and call it again."
        )


def in_words(error: BridgeError) -> str:
    """An error on one line; however long the cause is, the next step is kept."""
    next_step = error.next_step or "correct the call, or tell your user"
    return f"{one_line(error.message, ERROR_CHARS)} Next: {one_line(next_step, ERROR_CHARS)}"


def _misfits(error: ValidationError) -> str:
    # The values are left out: they may be long, and the caller knows them.
    found = error.errors(include_url=False, include_input=False, include_context=False)
    said = [f"{'.'.join(str(part) for part in one['loc'])}: {_says(one['type'], one['msg'])}" for one in found]
    more = len(said) - _MISFITS
    return "; ".join(said[:_MISFITS]) + (f"; and {more} more" if more > 0 else "")


def _says(kind: str, message: str) -> str:
    return "Input should be an object" if kind in ("model_type", "dict_type") else message
