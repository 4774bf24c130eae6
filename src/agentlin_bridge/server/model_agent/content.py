"""Content items as LangChain's content blocks, and back."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from agentlin_bridge.media import audio_format
from agentlin_bridge.task import (
    Annotation,
    AudioContentItem,
    AudioData,
    ContentItem,
    FileContentItem,
    FileData,
    ImageContentItem,
    ImageURL,
    TextContentItem,
)

Block = Mapping[str, Any]
"""A content block of LangChain's version 1 shape."""

_TEXTS = frozenset({"application/json", "application/xml", "application/yaml", "application/toml", "application/csv"})


def to_blocks(content: Iterable[BaseModel]) -> list[Block]:
    """Content items as a model is given them, without empty texts.

    A text file is given as its text: every model reads that.
    """
    return [block for item in content if (block := _to_block(item)) != _text("")]


def message_content(blocks: Sequence[Block]) -> Any:
    """The content of a message: a plain string where it is only text, as some servers take nothing else."""
    if all(block["type"] == "text" for block in blocks):
        return "\n".join(block["text"] for block in blocks)
    return [dict(block) for block in blocks]


def _to_block(item: BaseModel) -> Block:
    match item:
        case TextContentItem():
            return _text(item.text)
        case ImageContentItem():
            return _media("image", item.image_url.url)
        case AudioContentItem(input_audio=audio):
            return {"type": "audio", "base64": audio.data, "mime_type": f"audio/{audio.format}"}
        case FileContentItem():
            return _file(item.file)
        case _:
            return _text(json.dumps(item.model_dump(mode="json", exclude_none=True), ensure_ascii=False))


def _text(text: str) -> Block:
    return {"type": "text", "text": text}


def _file(file: FileData) -> Block:
    name = file.filename or "file"
    if file.file_data is None:
        return {**_media("file", file.file_url or ""), "filename": name}
    mime_type, data = _data_uri(file.file_data)
    if mime_type.startswith("text/") or mime_type in _TEXTS:
        try:
            return _text(f"[{name}]\n{base64.b64decode(data, validate=True).decode()}")
        except (binascii.Error, UnicodeDecodeError):
            pass
    return {"type": "file", "base64": data, "mime_type": mime_type, "filename": name}


def _media(kind: str, url: str) -> Block:
    if not url.startswith("data:"):
        return {"type": kind, "url": url}
    mime_type, data = _data_uri(url)
    return {"type": kind, "base64": data, "mime_type": mime_type}


def _data_uri(uri: str) -> tuple[str, str]:
    """The media type and the base64 of a data URI; of bare base64 the type is unknown."""
    head, found, data = uri.removeprefix("data:").partition(",")
    if not found:
        return "application/octet-stream", uri
    return head.partition(";")[0] or "text/plain", data


def from_block(block: Block) -> ContentItem | None:
    """A block of a model's answer as a content item; None for one that is no content."""
    match block:
        case {"type": "text", "text": str(text)}:
            return TextContentItem(text=text, annotations=_annotations(block) or None)
        case {"type": "audio", "base64": str(data)}:
            kind = str(block.get("mime_type", "audio/wav")).partition("/")[2]
            return AudioContentItem(input_audio=AudioData(data=data, format=audio_format(kind)))
        case {"type": "image"} if uri := _uri(block, "image/png"):
            return ImageContentItem(image_url=ImageURL(url=uri))
        case {"type": "file" | "video" | "audio"} if uri := _uri(block, "application/octet-stream"):
            where = "file_data" if uri.startswith("data:") else "file_url"
            return FileContentItem(file=FileData(filename=block.get("filename"), **{where: uri}))
        case _:
            return None


def _uri(block: Block, usual: str) -> str:
    if isinstance(data := block.get("base64"), str):
        return f"data:{block.get('mime_type') or usual};base64,{data}"
    url = block.get("url")
    return url if isinstance(url, str) else ""


def _annotations(block: Mapping[str, Any]) -> list[Annotation]:
    return [
        Annotation(
            type="url_citation",
            url=one["url"],
            title=one.get("title"),
            start_index=one.get("start_index"),
            end_index=one.get("end_index"),
        )
        for one in block.get("annotations") or ()
        if isinstance(one, Mapping) and isinstance(one.get("url"), str)
    ]
