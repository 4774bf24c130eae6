"""Events about what the agent puts out: items, their parts, and live pieces of them.

The published server sends an item whole, in `task.output_item.done`, and only reasoning and tool results in
pieces as well; other servers send every `delta` there is.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from agentlin_bridge.events.base import ContentEvent, ItemEvent, StepEvent
from agentlin_bridge.task import ContentItem, LogProb, MessageContent, OutputItem


class OutputItemEvent(StepEvent):
    """An event that carries an output item. Its `added` and `done` share `item.id`."""

    item: OutputItem


class TaskOutputItemAddedEvent(OutputItemEvent):
    """An item has begun; it may be empty yet."""

    type: Literal["task.output_item.added"] = "task.output_item.added"


class TaskOutputItemDoneEvent(OutputItemEvent):
    """An item is complete."""

    type: Literal["task.output_item.done"] = "task.output_item.done"


# Text and reasoning -------------------------------------------------------------------------------------


class TaskContentPartAddedEvent(ContentEvent):
    """A part of an item's content has begun."""

    type: Literal["task.content_part.added"] = "task.content_part.added"
    part: ContentItem


class TaskContentPartDoneEvent(ContentEvent):
    """A part of an item's content is complete."""

    type: Literal["task.content_part.done"] = "task.content_part.done"
    part: ContentItem


class TaskTextDeltaEvent(ContentEvent):
    """The next piece of a message."""

    type: Literal["task.text.delta"] = "task.text.delta"
    delta: str
    logprobs: list[LogProb] | None = None


class TaskTextDoneEvent(ContentEvent):
    """A whole text of a message."""

    type: Literal["task.text.done"] = "task.text.done"
    text: str
    logprobs: list[LogProb] | None = None


class TaskReasoningTextDeltaEvent(ContentEvent):
    """The next piece of what the model thinks."""

    type: Literal["task.reasoning_text.delta"] = "task.reasoning_text.delta"
    delta: str


class TaskReasoningTextDoneEvent(ContentEvent):
    """A whole text of what the model thought."""

    type: Literal["task.reasoning_text.done"] = "task.reasoning_text.done"
    text: str


class TaskReasoningSummaryPartAddedEvent(ItemEvent):
    """A part of the reasoning's summary has begun."""

    type: Literal["task.reasoning_summary_part.added"] = "task.reasoning_summary_part.added"
    part: ContentItem
    summary_index: int | None = None


class TaskReasoningSummaryPartDoneEvent(ItemEvent):
    """A part of the reasoning's summary is complete."""

    type: Literal["task.reasoning_summary_part.done"] = "task.reasoning_summary_part.done"
    part: ContentItem
    summary_index: int | None = None


class TaskReasoningSummaryTextDeltaEvent(ContentEvent):
    """The next piece of the reasoning's summary."""

    type: Literal["task.reasoning_summary_text.delta"] = "task.reasoning_summary_text.delta"
    delta: str | None = None
    summary_index: int | None = None


class TaskReasoningSummaryTextDoneEvent(ContentEvent):
    """A whole text of the reasoning's summary."""

    type: Literal["task.reasoning_summary_text.done"] = "task.reasoning_summary_text.done"
    text: str
    summary_index: int | None = None


# Tools --------------------------------------------------------------------------------------------------


class TaskToolCallArgumentsDeltaEvent(ItemEvent):
    """The next piece of a tool call's arguments."""

    type: Literal["task.tool_call_arguments.delta"] = "task.tool_call_arguments.delta"
    call_id: str
    delta: str


class TaskToolCallArgumentsDoneEvent(ItemEvent):
    """A tool call's arguments, as the model wrote them."""

    type: Literal["task.tool_call_arguments.done"] = "task.tool_call_arguments.done"
    call_id: str
    arguments: str


class TaskToolResultDeltaEvent(ItemEvent):
    """The next piece of a server tool's result."""

    type: Literal["task.tool_result.delta"] = "task.tool_result.delta"
    call_id: str
    delta_message_content: MessageContent = Field(default=[])
    delta_block_list: list[Any] | None = None


class TaskToolResultDoneEvent(ItemEvent):
    """A server tool's whole result."""

    type: Literal["task.tool_result.done"] = "task.tool_result.done"
    call_id: str
    message_content: MessageContent = Field(default=[])
    block_list: list[Any] | None = None


# Images, audio, files, blocks ---------------------------------------------------------------------------


class TaskImageDeltaEvent(ItemEvent):
    """A piece of an image, in base64."""

    type: Literal["task.image.delta"] = "task.image.delta"
    partial_image_b64: str
    partial_image_index: int | None = None


class TaskImageDoneEvent(ItemEvent):
    """The image is complete."""

    type: Literal["task.image.done"] = "task.image.done"


class TaskAudioDeltaEvent(ItemEvent):
    """A piece of audio, in base64."""

    type: Literal["task.audio.delta"] = "task.audio.delta"
    delta: str


class TaskAudioDoneEvent(ItemEvent):
    """The audio is complete."""

    type: Literal["task.audio.done"] = "task.audio.done"


class TaskFileDeltaEvent(ItemEvent):
    """A piece of a file, in base64."""

    type: Literal["task.file.delta"] = "task.file.delta"
    partial_file_b64: str
    partial_file_index: int | None = None


class TaskFileDoneEvent(ItemEvent):
    """The file is complete."""

    type: Literal["task.file.done"] = "task.file.done"


class TaskBlockDeltaEvent(ItemEvent):
    """A piece of a display block."""

    type: Literal["task.block.delta"] = "task.block.delta"
    block: Any


class TaskBlockDoneEvent(ItemEvent):
    """A display block is complete."""

    type: Literal["task.block.done"] = "task.block.done"
    block: Any = None
