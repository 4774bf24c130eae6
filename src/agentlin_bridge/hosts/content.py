"""Content items as hosts write them, in MCP's or in Agentlin's spelling."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from agentlin_bridge.errors import InvalidRequestError
from agentlin_bridge.task import AUDIO_TYPES, IMAGE_TYPES, TEXT_TYPES, ContentItem, UnknownContentItem

_ITEM: TypeAdapter[Any] = TypeAdapter(ContentItem)
_TYPES = TEXT_TYPES | IMAGE_TYPES | AUDIO_TYPES | {"file"}


class _McpBlock(BaseModel):
    """An image or audio block of MCP."""

    type: Literal["image", "audio"]
    data: str = Field(min_length=1)
    mime_type: str = Field(alias="mimeType", pattern=r"^(image|audio)/[A-Za-z0-9.+-]+$")


def is_content(value: object) -> bool:
    """Whether a value looks like a content item."""
    return isinstance(value, dict) and value.get("type") in _TYPES and len(value) > 1


def content_item(value: Any) -> Any:
    """A content item from its dict.

    Raises:
        InvalidRequestError: it has a known type, but not its fields.
    """
    item = _ITEM.validate_python(_agentlin_spelling(value))
    if isinstance(item, UnknownContentItem):
        raise InvalidRequestError(
            f"A content item of type {item.type[:40]!r} is not understood.",
            next_step='give {"type": "text", "text": "..."}, {"type": "image", "data": "<base64>", "mimeType": '
            '"image/png"}, {"type": "image_url", "image_url": {"url": "..."}} or {"type": "file", "file": '
            '{"file_url": "..."}} (or file_data, a data URI)',
        )
    return item


def _agentlin_spelling(value: Any) -> Any:
    if not isinstance(value, dict) or "data" not in value:
        return value
    try:
        block = _McpBlock.model_validate(value)
    except ValidationError:
        return value
    if block.type == "image":
        return {"type": "image_url", "image_url": {"url": f"data:{block.mime_type};base64,{block.data}"}}
    form = block.mime_type.rpartition("/")[2]
    return {"type": "input_audio", "input_audio": {"data": block.data, "format": "mp3" if form == "mpeg" else form}}
