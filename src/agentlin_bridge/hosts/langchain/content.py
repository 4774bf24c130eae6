"""What a host's tool returned, as a result the remote agent can read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.messages import ToolMessage

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

Block = Mapping[str, Any]
"""A content block of LangChain's version 1 shape."""

_AUDIO_FORMATS = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "vnd.wave": "wav"}


def result_of(name: str, returned: object) -> ToolResult:
    """The tool result for what `tool.invoke` returned for a tool call."""
    if isinstance(returned, ToolMessage):
        content = [_item(block) for block in returned.content_blocks]
        return ToolResult(content=content, is_error=returned.status == "error")
    return ToolResult.error(
        f"{name} ran, but returned a {type(returned).__name__}, which only the host's own graph can use."
    )


def _item(block: Any) -> ContentItem:
    convert = _CONVERTERS.get(block["type"])
    item = convert(block) if convert is not None else None
    return item or _as_json(block)


def _text(block: Block) -> ContentItem | None:
    return TextContentItem(text=block["text"]) if "text" in block else _file(block)


def _image(block: Block) -> ContentItem | None:
    url = block.get("url") or _data_uri(block, "image/png")
    return ImageContentItem(image_url=ImageURL(url=url)) if url else None


def _audio(block: Block) -> ContentItem | None:
    if "base64" not in block:
        return _file(block)
    kind = str(block.get("mime_type", "audio/wav")).partition("/")[2]
    return AudioContentItem(input_audio=AudioData(data=block["base64"], format=_AUDIO_FORMATS.get(kind, kind)))


def _file(block: Block) -> ContentItem | None:
    name = block.get("filename") or (block.get("extras") or {}).get("filename")
    if "url" in block:
        return FileContentItem(file=FileData(file_url=block["url"], filename=name))
    data = _data_uri(block, "application/octet-stream")
    return FileContentItem(file=FileData(file_data=data, filename=name)) if data else None


def _data_uri(block: Block, usual: str) -> str | None:
    return f"data:{block.get('mime_type') or usual};base64,{block['base64']}" if "base64" in block else None


def _as_json(block: Block) -> ContentItem:
    value = block["value"] if block["type"] == "non_standard" else block
    return TextContentItem(text=json.dumps(value, ensure_ascii=False, default=str))


_CONVERTERS: Mapping[str, Callable[[Block], ContentItem | None]] = {
    "text": _text,
    "text-plain": _text,
    "image": _image,
    "audio": _audio,
    "video": _file,
    "file": _file,
}
