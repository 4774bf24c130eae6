"""Answers of providers that no endpoint here speaks for, as LangChain hands them over."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from langchain_core.messages import AIMessage

from agentlin_bridge.server.agent import AgentFailure
from agentlin_bridge.server.model_agent.failures import explained, may_be_repeated
from agentlin_bridge.server.model_agent.output import items_of
from agentlin_bridge.task import MessageItem

from .agents import shape


def said(*blocks: dict[str, Any]) -> list[Any]:
    """The content of the message for blocks of a model's answer."""
    message = AIMessage(content=list(blocks), response_metadata={"output_version": "v1"})
    (item,) = items_of(message, "a:model")
    assert isinstance(item, MessageItem)
    return [part.model_dump(exclude_none=True) for part in item.message_content]


def test_a_citation_is_an_annotation() -> None:
    cited = {"type": "citation", "url": "https://example.com", "title": "Example", "start_index": 0, "end_index": 3}
    odd = {"type": "citation", "cited_text": "..."}
    assert said({"type": "text", "text": "See.", "annotations": [cited, odd]}) == [
        {
            "type": "text",
            "text": "See.",
            "annotations": [
                {
                    "type": "url_citation",
                    "url": "https://example.com",
                    "title": "Example",
                    "start_index": 0,
                    "end_index": 3,
                }
            ],
        }
    ]


@pytest.mark.parametrize(
    ("block", "item"),
    [
        (
            {"type": "image", "base64": "iVBO", "mime_type": "image/png"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}},
        ),
        (
            {"type": "image", "url": "https://example.com/a.png"},
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        ),
        (
            {"type": "audio", "base64": "SUQz", "mime_type": "audio/mpeg"},
            {"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}},
        ),
        (
            {"type": "audio", "url": "https://example.com/a.mp3"},
            {"type": "file", "file": {"file_url": "https://example.com/a.mp3"}},
        ),
        (
            {"type": "file", "base64": "JVBE", "filename": "a.pdf"},
            {"type": "file", "file": {"file_data": "data:application/octet-stream;base64,JVBE", "filename": "a.pdf"}},
        ),
    ],
)
def test_media_are_content(block: dict[str, Any], item: dict[str, Any]) -> None:
    assert said(block) == [item]


def test_blocks_that_are_no_content_are_left_out() -> None:
    odd = {"type": "image", "file_id": "file_1"}
    assert said({"type": "text", "text": "Hello"}, odd, {"type": "non_standard", "value": {}}) == [
        {"type": "text", "text": "Hello"}
    ]


@pytest.mark.parametrize(
    "metadata", [{"stop_reason": "max_tokens"}, {"finish_reason": "MAX_TOKENS"}, {"done_reason": "length"}]
)
def test_every_provider_says_in_its_own_words_that_an_answer_was_cut(metadata: dict[str, str]) -> None:
    with pytest.raises(AgentFailure, match="cut off at its length limit"):
        items_of(AIMessage("Hel", response_metadata=metadata), "a:model")


def test_a_stream_of_another_provider_may_end_without_a_reason() -> None:
    assert shape(items_of(AIMessage("Hello", response_metadata={"model_provider": "ollama"}), "a:model")) != []


class Refused(Exception):
    """A provider's error that LangChain has no class for."""

    def __init__(self, status: int, **headers: str) -> None:
        super().__init__("not like this")
        self.response = httpx.Response(status, headers=headers)


@pytest.mark.parametrize(
    ("error", "again", "told"),
    [
        (Refused(429), True, "no capacity"),
        (Refused(529, **{"retry-after": "7"}), 7.0, "failed. Next: try again later"),
        (Refused(401), False, "refused the server's key"),
        (Refused(418), False, "refused the request: not like this"),
        (httpx.ConnectError("no route"), True, "The connection to the provider of a:model failed"),
        (httpx.ReadTimeout("slow"), True, "did not answer in time"),
        (TimeoutError(), True, "did not answer in time"),
        (ConnectionResetError(), True, "The connection to the provider"),
    ],
)
def test_errors_outside_langchains_classes_are_understood_too(error: Exception, again: bool | float, told: str) -> None:
    assert may_be_repeated(error) == again
    failure = explained(error, "a:model")
    assert failure is not None
    assert told in failure.message


def test_an_error_that_is_no_providers_is_not_explained() -> None:
    assert explained(KeyError("x"), "a:model") is None
    assert may_be_repeated(KeyError("x")) is False
