"""What the tools take: the shapes inside their arguments, and schemas every host can read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field, JsonValue, WithJsonSchema

from agentlin_bridge.hosts.content import content_item, is_content
from agentlin_bridge.task import ToolResult


def _parsed(value: object) -> object:
    """Hosts like to send an object as JSON text."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


class HostTool(BaseModel):
    """A tool the host can run itself, in MCP's or in Agentlin's spelling."""

    name: str
    description: str = ""
    parameters: Annotated[dict[str, Any], BeforeValidator(_parsed)] = Field(
        default_factory=lambda: {"type": "object", "properties": {}},
        description="JSON Schema of its arguments, type object",
        validation_alias=AliasChoices("parameters", "inputSchema", "input_schema"),
    )


class NamedTool(HostTool):
    """A tool given by its name alone; the configuration has the rest."""


def _or_named(value: object) -> object:
    value = _parsed(value)
    return NamedTool(name=value) if isinstance(value, str) else value


OfferedTool = Annotated[HostTool, BeforeValidator(_or_named)]


class CallResult(BaseModel):
    """What one tool call gave."""

    call_id: str
    content: Annotated[
        JsonValue,
        WithJsonSchema({"type": "string", "description": "What it returned: text, JSON, or a list of content items"}),
    ]
    is_error: Annotated[bool, Field(description="True if it failed or you refuse; content says why")] = False

    def as_result(self) -> ToolResult | JsonValue:
        """In the form `TaskBridge.submit` takes.

        Raises:
            InvalidRequestError: it is a content item, but not a whole one.
        """
        given = self.content if isinstance(self.content, list) else [self.content]
        if given and all(is_content(item) for item in given):
            return ToolResult(content=[content_item(item) for item in given], is_error=self.is_error)
        if not self.is_error:
            return self.content
        return ToolResult.error(self.content if isinstance(self.content, str) else json.dumps(self.content))


def lean_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A pydantic schema without what costs tokens or confuses hosts.

    References are put in place, without the docstrings of what they refer to; titles, null alternatives, empty
    defaults and `additionalProperties` go.
    """
    lean = _lean(schema, schema.get("$defs", {}))
    lean.pop("$defs", None)
    return lean


def _lean(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(schema)
    if "$ref" in found:
        definition = {**definitions[found.pop("$ref").rpartition("/")[2]]}
        definition.pop("description", None)
        found = {**definition, **found}
    if "anyOf" in found:
        alternatives = [one for one in found.pop("anyOf") if one.get("type") != "null"]
        found = {**_lean(alternatives[0], definitions), **found}
    lean: dict[str, Any] = {}
    for key, value in found.items():
        if key in ("title", "additionalProperties") or (key == "default" and not value):
            continue
        if key == "properties":
            lean[key] = {name: _lean(one, definitions) for name, one in value.items()}
        elif key == "items":
            lean[key] = _lean(value, definitions)
        else:
            lean[key] = value
    return lean
