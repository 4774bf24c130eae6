"""The vocabulary: tasks, statuses, output items, content items, tool calls and tool results.

The wire models carry the class names of Agentlin's published client (`agentlin_client.types`) and the
fields of the task API documents. They are lenient on purpose: fields nobody told us about are kept, an
item of an unknown type or shape becomes an `UnknownItem` holding what came, and nothing here raises for
what a remote sent inside a task object.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)


class TaskStatus(StrEnum):
    """Agentlin's nine statuses, spelled as on its wire."""

    CREATED = "created"
    QUEUED = "queued"
    WORKING = "working"
    INPUT_REQUIRED = "input-required"
    PAUSED = "paused"
    COMPLETED = "completed"
    CANCELED = "canceled"
    EXPIRED = "expired"
    FAILED = "failed"

    @property
    def is_terminal(self) -> bool:
        """Whether a task with this status will never change again."""
        return self in TERMINAL


TERMINAL = frozenset({TaskStatus.COMPLETED, TaskStatus.CANCELED, TaskStatus.EXPIRED, TaskStatus.FAILED})

_SPELLINGS = frozenset(status.value for status in TaskStatus)
_OTHER_SPELLINGS = {"input_required": "input-required", "cancelled": "canceled"}


def _known_status(value: object) -> object:
    """An unknown status counts as `working`: the run is neither waiting for us nor known to be over."""
    if not isinstance(value, str) or isinstance(value, TaskStatus):
        return value
    value = _OTHER_SPELLINGS.get(value, value)
    return value if value in _SPELLINGS else TaskStatus.WORKING


class WireModel(BaseModel):
    """A model of what is on the wire: unknown fields are kept and sent on."""

    model_config = ConfigDict(extra="allow")


class JsonrpcError(WireModel):
    """A JSON-RPC error object."""

    code: int = -32000
    message: str = ""
    data: Any = None


class TopLogProb(WireModel):
    """One alternative of a `LogProb`."""

    token: str
    logprob: float
    bytes: list[int] | None = None


class LogProb(TopLogProb):
    """The log probability of one token."""

    top_logprobs: list[TopLogProb] = []


class Annotation(WireModel):
    """A citation or file reference inside a text.

    One model for the four documented kinds (`file_citation`, `url_citation`,
    `container_file_citation`, `file_path`): `type` tells which fields to expect.
    """

    type: str = ""
    index: int | None = None
    file_id: str | None = None
    file_url: str | None = None
    filename: str | None = None
    url: str | None = None
    title: str | None = None
    container_id: str | None = None
    start_index: int | None = None
    end_index: int | None = None


# Content items ------------------------------------------------------------------------------------------

TEXT_TYPES = frozenset({"text", "input_text", "output_text", "reasoning_text", "summary_text", "refusal"})
IMAGE_TYPES = frozenset({"image", "input_image", "output_image", "image_url"})
AUDIO_TYPES = frozenset({"audio", "input_audio", "output_audio"})


class TextContentItem(WireModel):
    """A piece of text. `type` is one of `TEXT_TYPES`."""

    type: str = "text"
    text: str
    annotations: list[Annotation] | None = None
    logprobs: list[LogProb] | None = None


class ImageURL(WireModel):
    """Where an image is: an http(s) URL or a data URI."""

    url: str
    detail: str | None = None


class ImageContentItem(WireModel):
    """An image. `type` is one of `IMAGE_TYPES`."""

    type: str = "image_url"
    image_url: ImageURL


class AudioData(WireModel):
    """Base64 audio and its format (`wav` or `mp3`)."""

    data: str
    format: str


class AudioContentItem(WireModel):
    """Audio. `type` is one of `AUDIO_TYPES`."""

    type: str = "input_audio"
    input_audio: AudioData


class FileData(WireModel):
    """A file by URL, or by content as a data URI."""

    file_url: str | None = None
    file_data: str | None = None
    filename: str | None = None


class FileContentItem(WireModel):
    """A file."""

    type: Literal["file"] = "file"
    file: FileData


class UnknownContentItem(WireModel):
    """Content of a type or shape this version does not know. Everything that came is kept."""

    type: str = ""


def _type_of(value: object) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return kind if isinstance(kind, str) else ""


def _content_tag(value: object) -> str:
    kind = "" if isinstance(value, UnknownContentItem) else _type_of(value)
    if kind in TEXT_TYPES:
        return "text"
    if kind in IMAGE_TYPES:
        return "image"
    if kind in AUDIO_TYPES:
        return "audio"
    return "file" if kind == "file" else "unknown"


def _raw_fields(value: object) -> dict[str, Any]:
    fields = dict(value) if isinstance(value, dict) else {"value": value}
    fields["type"] = _type_of(value)
    return fields


def _content_or_unknown(value: object, handler: ValidatorFunctionWrapHandler) -> Any:
    if isinstance(value, str):
        return TextContentItem(text=value)
    try:
        return handler(value)
    except ValidationError:
        return UnknownContentItem(**_raw_fields(value))


ContentItem = Annotated[
    Annotated[TextContentItem, Tag("text")]
    | Annotated[ImageContentItem, Tag("image")]
    | Annotated[AudioContentItem, Tag("audio")]
    | Annotated[FileContentItem, Tag("file")]
    | Annotated[UnknownContentItem, Tag("unknown")],
    Discriminator(_content_tag),
    WrapValidator(_content_or_unknown),
]


def _as_list(value: object) -> object:
    if value is None:
        return []
    return value if isinstance(value, list | tuple) else [value]


MessageContent = Annotated[list[ContentItem], BeforeValidator(_as_list)]
"""A message's content. On the wire: a string, one item, or a list of items and strings."""


def text_of(content: Sequence[BaseModel]) -> str:
    """The text parts of a content list, joined as they stand."""
    return "".join(item.text for item in content if isinstance(item, TextContentItem))


# Output items -------------------------------------------------------------------------------------------


class MessageItem(WireModel):
    """A message. The published server repeats the text in an extra field `content`."""

    type: Literal["message"] = "message"
    id: str | None = None
    role: str = "assistant"
    message_content: MessageContent = []
    block_list: list[Any] | None = None
    name: str | None = None
    status: str | None = None

    @property
    def text(self) -> str:
        """The message's text, wherever the remote put it."""
        return text_of(self.message_content) or _extra_text(self, "content")


class ReasoningItem(WireModel):
    """What the remote model thought, as far as it tells."""

    type: Literal["reasoning"] = "reasoning"
    id: str | None = None
    summary: MessageContent = []
    content: MessageContent = []
    status: str | None = None


class ToolCallItem(WireModel):
    """A tool call. `arguments` is a JSON string as the remote model wrote it, possibly broken."""

    type: Literal["tool_call"] = "tool_call"
    call_id: str
    name: str
    arguments: str = "{}"
    id: str | None = None
    language: str | None = None
    status: str | None = None


class ToolResultItem(WireModel):
    """A tool's result, keyed by `call_id`. The API has no error flag: an error is text that says so."""

    type: Literal["tool_result"] = "tool_result"
    call_id: str
    message_content: MessageContent = []
    block_list: list[Any] = []
    id: str | None = None
    status: str | None = None

    @property
    def text(self) -> str:
        """The result's text, wherever the remote put it."""
        return text_of(self.message_content) or _extra_text(self, "output")


class UnknownItem(WireModel):
    """An output item of a type or shape this version does not know. Everything that came is kept."""

    type: str = ""


def _extra_text(item: WireModel, field: str) -> str:
    value = (item.model_extra or {}).get(field)
    return value if isinstance(value, str) else ""


def _item_tag(value: object) -> str:
    kind = "" if isinstance(value, UnknownItem) else _type_of(value)
    return kind if kind in {"message", "reasoning", "tool_call", "tool_result"} else "unknown"


def _item_or_unknown(value: object, handler: ValidatorFunctionWrapHandler) -> Any:
    try:
        return handler(value)
    except ValidationError:
        return UnknownItem(**_raw_fields(value))


OutputItem = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[ToolCallItem, Tag("tool_call")]
    | Annotated[ToolResultItem, Tag("tool_result")]
    | Annotated[UnknownItem, Tag("unknown")],
    Discriminator(_item_tag),
    WrapValidator(_item_or_unknown),
]

Output = Annotated[list[OutputItem], BeforeValidator(_as_list)]


# Task objects -------------------------------------------------------------------------------------------


class TaskObject(WireModel):
    """A remote task as the API returns it.

    `input_required` is the documented form of what it waits for, `input_required_call_ids` the published
    server's; see `open_calls` for the calls that really need a result.
    """

    object: str = "task"
    id: str
    session_id: str = ""
    user_id: str = ""
    status: Annotated[TaskStatus | None, BeforeValidator(_known_status)] = None
    created_at: float = 0
    output: Output = []
    usage: dict[str, Any] | None = None
    error: JsonrpcError | None = None
    input_required: ToolCallItem | None = None
    input_required_call_ids: list[str] | None = None
    previous_task_id: str | None = None
    metadata: dict[str, Any] | None = None
    rollouts: list[dict[str, Any]] | None = None

    @property
    def open_calls(self) -> list[ToolCallItem]:
        """Every tool call without a result, in order.

        A mixed turn leaves server-side calls unanswered that `input_required_call_ids` does not name, so
        the output is searched as well.
        """
        answered = {item.call_id for item in self.output if isinstance(item, ToolResultItem)}
        calls = [item for item in self.output if isinstance(item, ToolCallItem)]
        if self.input_required is not None:
            calls.append(self.input_required)
        by_id: dict[str, ToolCallItem] = {}
        for call in calls:
            if call.call_id not in answered:
                by_id.setdefault(call.call_id, call)
        return list(by_id.values())


class ToolResult(BaseModel):
    """What a client tool returned, or why it could not.

    Attributes:
        content: text or content items for the remote agent.
        is_error: whether this says what went wrong instead of answering.
    """

    model_config = ConfigDict(frozen=True)

    content: MessageContent = []
    is_error: bool = False

    @classmethod
    def error(cls, message: str) -> ToolResult:
        """An error result the remote agent can read and act on."""
        return cls(content=[TextContentItem(text=message)], is_error=True)

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return text_of(self.content)

    def to_item(self, call_id: str) -> ToolResultItem:
        """The wire form. The API has no error flag, so an error is marked in its text."""
        content = list(self.content) or [TextContentItem(text="(no output)")]
        if self.is_error:
            content.insert(0, TextContentItem(text="ERROR: "))
        return ToolResultItem(call_id=call_id, message_content=content)


class PendingCall(ToolCallItem):
    """A tool call of the current round that has no result yet and that nobody on our side works on.

    Attributes:
        outcome_unknown: a handler had started on it when its process died, so it may have run already.
        approval_required: our side executes it once a person approved; until then, or without, a result
            may be submitted instead.
    """

    outcome_unknown: bool = False
    approval_required: bool = False


RemoteOutcome = Literal["stopped", "kept running", "unsupported"]
"""What a cancel or delete did to the remote run."""


def _utc(value: object) -> object:
    return datetime.fromtimestamp(value, UTC) if isinstance(value, int | float) else value


PlainStatus = Annotated[TaskStatus, PlainSerializer(lambda status: status.value, return_type=str)]
"""A status that is dumped as a plain string: LangGraph's checkpoints warn of types they do not know."""

Timestamp = Annotated[datetime, BeforeValidator(_utc)]


class Task(BaseModel):
    """One delegated subtask, from creation to a terminal status.

    Attributes:
        id: stable from creation on, across restarts and rounds.
        answer: the text of the final message; None until there is one.
        output: the items of all rounds so far, in order.
        pending: tool calls the host has to answer with `submit`.
        error: why the task failed or expired.
        usage: what the remote counted, summed over the rounds.
        remote: after a cancel or delete, what that did to the remote run.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    status: PlainStatus
    answer: str | None = None
    output: list[OutputItem] = Field(default=[], repr=False)
    pending: list[PendingCall] = []
    error: JsonrpcError | None = None
    usage: dict[str, Any] = {}
    session_id: str = ""
    created_at: Timestamp
    updated_at: Timestamp
    metadata: dict[str, Any] = {}
    remote: RemoteOutcome | None = None
