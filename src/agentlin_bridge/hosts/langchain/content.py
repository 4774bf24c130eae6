"""Content between LangChain and the remote agent: what a host's tool returned, and what the agent answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from langchain_core.messages import ToolMessage

from agentlin_bridge.media import audio_format, audio_type
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


def result_of(name: str, returned: object) -> ToolResult:
    """The tool result for what `tool.invoke` returned for a tool call."""
    if isinstance(returned, ToolMessage):
        content = [_item(block) for block in returned.content_blocks]
        return ToolResult(content=content, is_error=returned.status == "error")
    messages = [message for message in _messages_of(returned) if isinstance(message, ToolMessage)]
    if messages:
        said = result_of(name, messages[-1])
        note = TextContentItem(text="[What else it returned is for the host's graph, and was not applied.]")
        return ToolResult(content=[*said.content, note], is_error=said.is_error)
    return ToolResult.error(
        f"{name} ran, but returned a {type(returned).__name__}, which only the host's own graph can use."
    )


def _messages_of(command: Any) -> list[Any]:
    """The messages that LangGraph's `Command` adds to the graph's state, if that is what this is."""
    update = getattr(command, "update", None)
    found = update.get("messages", []) if isinstance(update, Mapping) else update
    return found if isinstance(found, list) else []


def blocks_of(items: Iterable[ContentItem]) -> list[dict[str, Any]]:
    """Content blocks of LangChain's version 1 shape, for what a remote agent says."""
    return [_block(item) for item in items]


def _block(item: ContentItem) -> dict[str, Any]:
    if isinstance(item, TextContentItem):
        return {"type": "text", "text": item.text}
    if isinstance(item, ImageContentItem):
        return {"type": "image", **_source(item.image_url.url)}
    if isinstance(item, AudioContentItem):
        mime_type = audio_type(item.input_audio.format)
        return {"type": "audio", "base64": item.input_audio.data, "mime_type": mime_type}
    if isinstance(item, FileContentItem):
        source = item.file.file_data or item.file.file_url
        named = {"extras": {"filename": item.file.filename}} if item.file.filename else {}
        if source:
            return {"type": "file", **_source(source), **named}
    return {"type": "non_standard", "value": item.model_dump(mode="json", exclude_none=True)}


def _source(url: str) -> dict[str, str]:
    head, comma, data = url.partition(",")
    if comma and head.startswith("data:") and head.endswith(";base64"):
        return {"base64": data, "mime_type": head[len("data:") : -len(";base64")]}
    return {"url": url}


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
    return AudioContentItem(input_audio=AudioData(data=block["base64"], format=audio_format(kind)))


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
