"""The OpenAPI document, made from the operations and their models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Any

from pydantic import BaseModel, Field, create_model
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from agentlin_bridge.events import EVENTS
from agentlin_bridge.server.protocol.bodies import CreateBody
from agentlin_bridge.server.protocol.wire import Envelope
from agentlin_bridge.server.web.operation import EVENT_STREAM, REASONS, Operation
from agentlin_bridge.task import JsonrpcError

_REF = "#/components/schemas/{model}"
_SENT = (
    "task.created",
    "task.queued",
    "task.working",
    "task.input_required",
    "task.paused",
    "task.completed",
    "task.canceled",
    "task.expired",
    "task.failed",
    "task.output_item.added",
    "task.output_item.done",
    "task.text.delta",
    "task.reasoning_text.delta",
)
"""Events of the streams. Clients have to bear others."""

_EVENT = {
    "type": "object",
    "description": "One server-sent event.",
    "required": ["id", "data"],
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9]+$"},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/EventEnvelope"},
        },
    },
}

_ABOUT = """\
Agentlin's task API, as `agentlin-bridge serve` answers it.

An event stream is server-sent events. The data of each is an `EventEnvelope`; its id is the number to go on from with \
`after` or `Last-Event-ID`. The stream ends with `task.completed`, `task.failed`, `task.input_required`, \
`task.paused`, `task.canceled` or `task.expired`; one that ends without was cut, and the task goes on.
"""


class _Schema(GenerateJsonSchema):
    """Unions here are told apart by rules that JSON Schema cannot say, and an unknown item fits wherever it stands.

    What is always the same is always sent.
    """

    def field_is_required(self, field: Any, total: bool) -> bool:
        inner = field["schema"]
        is_constant = inner["type"] == "default" and inner["schema"]["type"] == "literal"
        return (is_constant and self.mode == "serialization") or super().field_is_required(field, total)

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        made = super().tagged_union_schema(schema)
        if "oneOf" in made:
            made = {"anyOf": made["oneOf"]}
        return made


def event_envelope() -> type[BaseModel]:
    """The model of one event's data."""
    result: Any = reduce(or_, (EVENTS[kind] for kind in _SENT))
    return create_model(
        "EventEnvelope",
        __base__=Envelope,
        __doc__="The data of one event.",
        result=(result, ...),
        error=(JsonrpcError | None, Field(None, description="Why the task failed.")),
    )


def openapi_document(operations: Sequence[Operation], version: str) -> dict[str, Any]:
    """The document, as JSON."""
    sent = {operation.body for operation in operations if operation.body is not None}
    sent |= {operation.query for operation in operations if operation.query is not None}
    answered = {model for operation in operations for model in operation.models().values()} | {event_envelope()}
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in _ordered(sent)]
    wanted += [(model, "serialization") for model in _ordered(answered)]
    schemas, definitions = models_json_schema(wanted, ref_template=_REF, schema_generator=_Schema)
    components = dict(definitions["$defs"])
    paths: dict[str, Any] = {}
    for operation in operations:
        described = _described(operation, schemas, components)
        if operation.body is CreateBody:
            described["responses"]["200"]["links"] = _links(operations)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {"title": "agentlin-bridge", "version": version, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "Where the server has keys."}
            },
        },
    }


def _ordered(models: set[type[BaseModel]]) -> list[type[BaseModel]]:
    return sorted(models, key=lambda model: model.__name__)


Schemas = Mapping[tuple[Any, JsonSchemaMode], JsonSchemaValue]
"""The schema, or a reference to it, by model and mode."""


def _described(operation: Operation, schemas: Schemas, components: Mapping[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"operationId": operation.id, "summary": operation.summary}
    if parameters := _parameters(operation, schemas, components):
        described["parameters"] = parameters
    if operation.body is not None:
        content = {"application/json": {"schema": schemas[operation.body, "validation"]}}
        described["requestBody"] = {"required": True, "content": content}
    described["responses"] = _responses(operation, schemas)
    described["security"] = [{"key": []}, {}] if 401 in operation.refusals else []
    return described


def _links(operations: Sequence[Operation]) -> dict[str, Any]:
    """What can be done with a task that was created."""
    parameters = {"task_id": "$response.body#/result/id"}
    return {
        operation.id: {"operationId": operation.id, "parameters": parameters}
        for operation in operations
        if operation.is_about_a_task
    }


def _responses(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, model in sorted(operation.models().items()):
        schema = schemas[model, "serialization"]
        responses[str(status)] = {
            "description": REASONS.get(status, "It went well."),
            "content": {"application/json": {"schema": schema}},
        }
    well = responses.setdefault("200", {"description": "It went well.", "content": {}})
    if isinstance(operation.answer, str) and operation.answer != EVENT_STREAM:
        well["content"][operation.answer] = {"schema": {"type": "string"}}
    if operation.streams:
        well["content"][EVENT_STREAM] = {"schema": _EVENT}
    if operation.answer is None:
        well["content"]["application/json"] = {"schema": {"type": "object"}}
    return dict(sorted(responses.items()))


def _parameters(operation: Operation, schemas: Schemas, components: Mapping[str, Any]) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = []
    if operation.is_about_a_task:
        parameters.append({"name": "task_id", "in": "path", "required": True, "schema": {"type": "string"}})
    if operation.query is not None:
        reference = schemas[operation.query, "validation"]["$ref"]
        for name, schema in components[reference.rsplit("/", 1)[1]]["properties"].items():
            parameters.append({"name": name, "in": "query", "required": False, "schema": schema})
    for name, schema in operation.headers.items():
        parameters.append({"name": name, "in": "header", "required": False, "schema": schema})
    return parameters
