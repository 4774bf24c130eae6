"""Which of the offered client tools brings a file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentlin_bridge.server.agent import OfferedTool, tool_call
from agentlin_bridge.task import ToolCallItem

ASK_HOST = "ask_host"
_ABOUT_MARKS = {"mark", "set", "as"}


@dataclass(frozen=True)
class Reader:
    """A tool, and the parameter that takes what is wanted."""

    tool: str
    parameter: str

    @property
    def asks_a_model(self) -> bool:
        """Whether the tool is the host itself, which reads a sentence rather than a path."""
        return self.tool == ASK_HOST

    def for_file(self, path: str) -> ToolCallItem:
        """The call that brings a file."""
        wanted = f"Send me the complete text of the file {path}, and nothing else." if self.asks_a_model else path
        return self._call(wanted)

    def for_material(self, instructions: str) -> ToolCallItem:
        """The call that brings what a task without file names is about."""
        return self._call(f'Send me the text this task is about, and nothing else: "{instructions[:500]}"')

    def _call(self, wanted: str) -> ToolCallItem:
        return tool_call(self.tool, json.dumps({self.parameter: wanted}, ensure_ascii=False))


def reader_among(tools: Sequence[OfferedTool]) -> Reader | None:
    """`read_file`, else a tool that reads one named thing, else `ask_host`, else None."""
    for tool in sorted(tools, key=lambda tool: tool.name != "read_file"):
        words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", tool.name)}
        parameter = _parameter(tool.parameters, "path")
        if "read" in words and not words & _ABOUT_MARKS and parameter:
            return Reader(tool.name, parameter)
    return host_among(tools)


def host_among(tools: Sequence[OfferedTool]) -> Reader | None:
    """`ask_host`, if it is offered."""
    for tool in tools:
        if tool.name == ASK_HOST and (parameter := _parameter(tool.parameters, "request")):
            return Reader(tool.name, parameter)
    return None


def _parameter(schema: Mapping[str, Any], usual: str) -> str | None:
    """The one string parameter the tool needs; the usual one where the schema leaves it open."""
    properties = schema.get("properties")
    required = schema.get("required")
    if not isinstance(properties, dict):
        properties = {}
    if not isinstance(required, list) or not required:
        return usual if usual in properties or not properties else None
    if len(required) != 1 or not isinstance(properties.get(required[0]), dict):
        return None
    kind = properties[required[0]].get("type", "string")
    return str(required[0]) if kind == "string" else None
