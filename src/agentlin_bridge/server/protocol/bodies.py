"""What clients send, as models: they check a request, and the OpenAPI document is made from them. No IO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator

from agentlin_bridge.server.protocol.refusals import Refusal
from agentlin_bridge.task import TEXT_TYPES, TaskStatus

TASK_ID = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,199}$"
OTHER_ID = r"^[\x21-\x7e][\x20-\x7e]{0,199}$"
LONGEST = 10 * 365 * 24 * 3600.0
"""Seconds a task may be given at most."""

M = TypeVar("M", bound=BaseModel)

TaskId = Annotated[str, Field(pattern=TASK_ID)]
OtherId = Annotated[str, Field(pattern=OTHER_ID)]
Call = Annotated[str, Field(min_length=1, max_length=1000)]


class Body(BaseModel):
    """A JSON object somebody sends. Fields this server does not know are kept for the agent."""

    model_config = ConfigDict(extra="allow", strict=True)


class ContentPart(Body):
    """A piece of content: a text (`text`, `input_text`, ...), an `image_url`, an `input_audio` or a `file`."""

    type: str
    text: str | None = None


def is_content(item: object) -> bool:
    """Whether something can stand in a content list. Items of unknown types can; a text without text cannot."""
    if not isinstance(item, dict):
        return isinstance(item, str)
    kind, text = item.get("type"), item.get("text")
    return isinstance(kind, str) and (isinstance(text, str) or (text is None and kind not in TEXT_TYPES))


def _content(value: object) -> list[Any]:
    items = [] if value is None else value if isinstance(value, list) else [value]
    if isinstance(value, dict) or not all(map(is_content, items)):
        raise ValueError('must be a string or a list of content items such as {"type": "text", "text": "..."}')
    return items


Content = Annotated[list[Any], PlainValidator(_content, json_schema_input_type=str | list[str | ContentPart] | None)]
"""Content as clients write it; validated, it is a list of strings and objects."""


class FunctionSchema(Body):
    """A function a client offers; `parameters` is a JSON Schema."""

    name: str = Field(min_length=1)
    description: str | None = None
    parameters: dict[str, Any] = {}


class ClientToolData(Body):
    """A client tool: the agent may call it, the client runs it."""

    type: Literal["function"]
    function: FunctionSchema


class ResultBody(Body):
    """A tool result."""

    type: Literal["tool_result"] = "tool_result"
    call_id: Call
    message_content: Content = []


class ChatFunction(Body):
    """The function of a chat model's tool call."""

    name: str
    arguments: str = "{}"


class ChatToolCall(Body):
    """A tool call as chat models write it."""

    id: Call
    function: ChatFunction


class DialogueMessage(Body):
    """One message of a dialogue: in the form of chat models (`role`), or an output item (`type`).

    A tool result is `{"type": "tool_result", "call_id", "message_content"}` or
    `{"role": "tool", "tool_call_id", "content"}`.
    """

    type: str | None = None
    role: str | None = None
    content: Content = []
    message_content: Content = []
    tool_calls: list[ChatToolCall] | None = None
    tool_call_id: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> DialogueMessage:
        if self.type == "tool_call" and not (self.call_id and self.name):
            raise ValueError("is a tool call without call_id or name")
        return self


class CreateBody(Body):
    """A create request. Without results it begins a turn of its session; with results it continues one.

    Missing ids are taken from the headers X-Task-ID, X-Session-ID, X-User-ID, X-Request-ID and X-Client-ID, and
    generated else. Repeating a request with the same `task_id` gives the same task. `history_messages`,
    `thought_messages` and `tool_results` may hold 10,000 messages together.
    """

    user_message_content: Content = []
    stream: bool | None = Field(None, description="Answer with the task's event stream.")
    task_id: TaskId | None = None
    session_id: OtherId | None = None
    user_id: OtherId | None = None
    client_id: OtherId | None = None
    request_id: OtherId | None = None
    previous_task_id: OtherId | None = Field(None, description="A task of the session that is continued.")
    client_tools: list[ClientToolData] | None = None
    history_messages: list[DialogueMessage] | None = Field(None, description="Dialogue before this turn.")
    thought_messages: list[DialogueMessage] | None = Field(
        None, description="This turn so far: tool results, or with `history_messages` everything to replay."
    )
    tool_results: list[ResultBody] | None = None
    structured_output: dict[str, Any] | None = Field(None, description="A JSON Schema for the answer.")
    inference_args: dict[str, Any] | None = None
    agent_config: dict[str, Any] | None = None
    allowed_tools: list[str] | None = None
    disallowed_tools: list[str] | None = None
    allowed_subagents: list[str] | None = None
    stop_tools: list[str] | None = None
    env: dict[str, str] | None = None
    workspace_dir: str | None = None
    log_dir: str | None = None
    rollout_save_dir: str | None = None
    return_rollout: bool | None = None
    include_subagent_rollout: bool | None = None
    include_compress_model_rollout: bool | None = None
    metadata: dict[str, Any] | None = None
    expires_in: float | None = Field(
        None, gt=0, le=LONGEST, allow_inf_nan=False, description="Seconds after which the task expires."
    )


class ListParams(BaseModel):
    """Which tasks to list, newest first. All filters apply together; a cursor is a task id and is excluded."""

    model_config = ConfigDict(extra="ignore")

    limit: int = Field(20, ge=1, le=100)
    offset: int = Field(0, ge=0, le=1_000_000, description="Tasks to skip.")
    session_id: OtherId | None = None
    user_id: OtherId | None = None
    status: list[TaskStatus] = []
    starting_after: OtherId | None = Field(None, description="Tasks older than this one.")
    ending_before: OtherId | None = Field(None, description="Tasks newer than this one.")


class EventParams(BaseModel):
    """From where on to tell a task's events."""

    after: int = Field(0, ge=0, lt=10**9, description="The number of the last event that is known: its SSE id.")


class RpcTaskParams(Body):
    """The task a JSON-RPC request is about."""

    id: str = Field(min_length=1)
    after: int = Field(0, ge=0, lt=10**9, description="For tasks/resubscribe: the last event that is known.")


class RpcCreateParams(Body):
    """A create request in JSON-RPC. `payload` holds the parameters of POST /v1/tasks, without the ids."""

    id: TaskId | None = None
    session_id: OtherId | None = None
    user_id: OtherId | None = None
    payload: dict[str, Any]


class RpcListParams(Body):
    """A list request in JSON-RPC; see the parameters of GET /v1/tasks."""

    limit: int = Field(20, ge=1, le=100)
    offset: int = Field(0, ge=0, le=1_000_000)
    session_id: OtherId | None = None
    user_id: OtherId | None = None
    status: list[str] | str | None = None
    starting_after: OtherId | None = None
    ending_before: OtherId | None = None


class StopBody(Body):
    """The session that is to be stopped."""

    session_id: OtherId


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("must be an object")
    return value


_Params = Annotated[
    dict[str, Any],
    PlainValidator(_object, json_schema_input_type=RpcCreateParams | RpcTaskParams | RpcListParams),
]


class RpcRequest(Body):
    """A JSON-RPC 2.0 request."""

    jsonrpc: Literal["2.0"]
    id: str | int
    method: str
    params: _Params = {}


def checked(model: type[M], fields: Mapping[str, Any]) -> M:
    """What a client sent, as a model.

    Raises:
        Refusal: it does not fit; the message names the field and what is wrong with it.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        what = first["msg"].removeprefix("Value error, ")
        raise Refusal(f"{where} {what}" if first["type"] == "value_error" else f"{where}: {what}") from None
