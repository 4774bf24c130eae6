"""What an MCP tool returned, as a tool result of bounded size."""

from __future__ import annotations

import json
from collections.abc import Sequence

from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from agentlin_bridge.media import audio_format
from agentlin_bridge.task import (
    AudioContentItem,
    AudioData,
    ContentItem,
    FileContentItem,
    FileData,
    ImageContentItem,
    ImageURL,
    TextContentItem,
    ToolResult,
)

MEDIA_CHARS = 7_000_000
"""Characters of base64 of one result, all its images, audio and files together: about 5 MB."""


def result_of(returned: CallToolResult, limit: int) -> ToolResult:
    """The result; of its text at most `limit` characters, then a word about the cut."""
    content = [_item(block) for block in returned.content]
    has_text = any(isinstance(item, TextContentItem) for item in content)
    if returned.structured_content is not None and not has_text:
        content.append(_text(json.dumps(returned.structured_content, ensure_ascii=False)))
    return ToolResult(content=_bounded(content, limit), is_error=returned.is_error)


def _item(block: ContentBlock) -> ContentItem:
    match block:
        case TextContent():
            return _text(block.text)
        case ImageContent():
            return ImageContentItem(image_url=ImageURL(url=_data_uri(block.mime_type, block.data)))
        case AudioContent():
            kind = block.mime_type.partition("/")[2]
            return AudioContentItem(input_audio=AudioData(data=block.data, format=audio_format(kind)))
        case ResourceLink():
            return _text(f"[{block.title or block.name}: {block.uri}]")
        case EmbeddedResource():
            return _resource(block.resource)


def _resource(resource: TextResourceContents | BlobResourceContents) -> ContentItem:
    if isinstance(resource, TextResourceContents):
        return _text(f"[{resource.uri}]\n{resource.text}")
    uri = _data_uri(resource.mime_type or "application/octet-stream", resource.blob)
    return FileContentItem(file=FileData(file_data=uri, filename=str(resource.uri).rpartition("/")[2] or None))


def _text(text: str) -> TextContentItem:
    return TextContentItem(text=text)


def _data_uri(mime_type: str, data: str) -> str:
    return f"data:{mime_type};base64,{data}"


def _bounded(content: Sequence[ContentItem], limit: int) -> list[ContentItem]:
    kept: list[ContentItem] = []
    texts, media, cut, left_out = limit, MEDIA_CHARS, 0, 0
    for item in content:
        if isinstance(item, TextContentItem):
            piece = item.text[:texts]
            cut += len(item.text) - len(piece)
            texts -= len(piece)
            if piece:
                kept.append(_text(f"\n{piece}" if kept else piece))
        elif (size := _size(item)) <= media:
            media -= size
            kept.append(item)
        else:
            left_out += 1
    if cut:
        kept.append(_text(f"\n[{cut} more characters were cut off; ask for less at a time]"))
    if left_out:
        kept.append(_text(f"\n[{left_out} images, sounds or files were left out, as they are too large]"))
    return kept


def _size(item: ContentItem) -> int:
    return len(item.model_dump_json())
