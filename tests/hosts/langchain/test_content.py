"""LangChain's content blocks as Agentlin's content items."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import ToolMessage

from agentlin_bridge.hosts.langchain.content import result_of


def items_of(*blocks: Any) -> list[dict[str, Any]]:
    message = ToolMessage(list(blocks), tool_call_id="call_1")
    return [item.model_dump(exclude_none=True) for item in result_of("tool", message).content]


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


@pytest.mark.parametrize(
    ("block", "item"),
    [
        ("plain", text("plain")),
        ({"type": "text", "text": "hello"}, text("hello")),
        ({"type": "text-plain", "text": "a file's text", "mime_type": "text/plain"}, text("a file's text")),
        (
            {"type": "text-plain", "url": "https://a.example/b.txt", "mime_type": "text/plain"},
            {"type": "file", "file": {"file_url": "https://a.example/b.txt"}},
        ),
        (
            {"type": "image", "url": "https://a.example/b.png"},
            {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}},
        ),
        (
            {"type": "image", "base64": "QUJD", "mime_type": "image/jpeg"},
            {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,QUJD"}},
        ),
        (
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
        ),
        ({"type": "image", "file_id": "f_1"}, text('{"type": "image", "file_id": "f_1"}')),
        (
            {"type": "audio", "base64": "QUJD", "mime_type": "audio/mpeg"},
            {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "mp3"}},
        ),
        (
            {"type": "audio", "base64": "QUJD", "mime_type": "audio/wav"},
            {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
        ),
        (
            {"type": "audio", "url": "https://a.example/b.mp3"},
            {"type": "file", "file": {"file_url": "https://a.example/b.mp3"}},
        ),
        (
            {"type": "file", "base64": "QUJD", "mime_type": "application/pdf", "extras": {"filename": "b.pdf"}},
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,QUJD", "filename": "b.pdf"}},
        ),
        (
            {"type": "video", "url": "https://a.example/b.mp4", "filename": "b.mp4"},
            {"type": "file", "file": {"file_url": "https://a.example/b.mp4", "filename": "b.mp4"}},
        ),
        ({"type": "file", "file_id": "f_1"}, text('{"type": "file", "file_id": "f_1"}')),
        ({"type": "search_result", "title": "é"}, text('{"type": "search_result", "title": "é"}')),
        ({"type": "json", "json": {"a": 1}}, text('{"type": "json", "json": {"a": 1}}')),
    ],
)
def test_each_kind_of_block(block: Any, item: dict[str, Any]) -> None:
    assert items_of(block) == [item]


def test_order_is_kept() -> None:
    assert [item["type"] for item in items_of("a", {"type": "image", "url": "https://a.example"}, "b")] == [
        "text",
        "image_url",
        "text",
    ]


def test_nothing_is_an_empty_result() -> None:
    result = result_of("tool", ToolMessage("", tool_call_id="call_1"))
    assert result.content == []
    assert not result.is_error
