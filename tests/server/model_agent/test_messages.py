"""What the model is told of the conversation, as it arrives at the endpoint."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from agentlin_bridge.server.agent import Conversation, Round, Turn, answer
from agentlin_bridge.task import ContentItem, ReasoningItem, TextContentItem, ToolCallItem, ToolResultItem

from .agents import MOVE, WEATHER, asked, called, failed, returned, talking
from .endpoint import Json, Reply

pytestmark = pytest.mark.anyio

GOOD = Reply(("Hello",))
_content = TypeAdapter(list[ContentItem])


def content(*items: Any) -> tuple[BaseModel, ...]:
    return tuple(_content.validate_python(list(items)))


async def told(conversation: Conversation, **fields: Any) -> list[Json]:
    """The messages the model gets for a conversation."""
    async with talking(GOOD, **fields) as talk:
        await talk.step(conversation)
        return talk.endpoint.messages()


async def test_the_prompt_comes_first() -> None:
    assert await told(asked("hi"), prompt="Be brief.") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
    ]


async def test_a_round_of_tool_calls_with_its_results() -> None:
    first = Round(
        items=(
            ReasoningItem(content=[TextContentItem(text="hm")]),
            answer("I look."),
            called("get_weather", "call_a", city="Rom"),
            called("move", "call_b"),
        ),
        results=(returned("call_b", "moved"), failed("call_a", "no such city")),
    )
    second = Round(items=(called("move", "call_c"),), results=(returned("call_c", "moved again"),))
    conversation = asked("hi", tools=[WEATHER, MOVE], rounds=(first, second))
    messages = await told(conversation)
    calls = messages[1].pop("tool_calls")
    again = messages[4].pop("tool_calls")
    assert [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in [*calls, *again]] == [
        ("call_a", "get_weather", '{"city": "Rom"}'),
        ("call_b", "move", "{}"),
        ("call_c", "move", "{}"),
    ]
    assert messages == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "I look."},
        {"role": "tool", "tool_call_id": "call_a", "content": "ERROR: no such city"},
        {"role": "tool", "tool_call_id": "call_b", "content": "moved"},
        {"role": "assistant", "content": None},
        {"role": "tool", "tool_call_id": "call_c", "content": "moved again"},
    ]


async def test_a_call_without_a_result_and_a_result_without_a_call_are_left_out() -> None:
    odd = Round(items=(called("move", "call_a"),), results=(returned("call_b", "moved"),))
    assert await told(asked("hi", rounds=(odd,))) == [{"role": "user", "content": "hi"}]


async def test_broken_arguments_are_quoted_to_the_model() -> None:
    broken = ToolCallItem(call_id="call_a", name="move", arguments='{"to')
    messages = await told(asked("hi", rounds=(Round((broken,), (failed("call_a", "no JSON"),)),)))
    assert messages[1]["tool_calls"][0]["function"]["arguments"] == '{"not a JSON object": "{\\"to"}'
    assert messages[2]["content"] == "ERROR: no JSON"


async def test_earlier_turns_come_before_this_one() -> None:
    earlier = Turn(
        user_content=content("move"),
        rounds=(Round((called("move", "call_a"),), (returned("call_a", ""),)),),
        output=(called("move", "call_a"), returned("call_a", ""), answer("I moved.")),
    )
    messages = await told(Conversation(content("and now?"), earlier=(earlier,)))
    assert [(message["role"], message["content"]) for message in messages] == [
        ("user", "move"),
        ("assistant", None),
        ("tool", "(nothing)"),
        ("assistant", "I moved."),
        ("user", "and now?"),
    ]


async def test_an_item_with_an_unread_text_is_still_said() -> None:
    spoken = answer("").model_copy(update={"message_content": []})
    messages = await told(Conversation(content("hi"), earlier=(Turn(content("ho"), (), (spoken,)),)))
    assert messages[1] == {"role": "assistant", "content": "(nothing)"}


async def test_nothing_said_is_said_to_be_nothing() -> None:
    assert await told(Conversation(())) == [{"role": "user", "content": "(nothing)"}]


async def test_several_texts_stand_on_lines_of_their_own() -> None:
    assert await told(Conversation(content("a", "b"))) == [{"role": "user", "content": "a\nb"}]


async def test_images_and_audio_arrive_as_such() -> None:
    conversation = Conversation(
        content(
            "look",
            {"type": "input_image", "image_url": {"url": "https://example.com/a.png"}},
            {"type": "image_url", "image_url": {"url": "data:image/gif;base64,R0lG"}},
            {"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}},
            {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
        )
    )
    (message,) = await told(conversation)
    assert message["content"] == [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/gif;base64,R0lG"}},
        {"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}},
        {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
    ]


def file(data: bytes | str, mime_type: str, name: str | None = None) -> Json:
    encoded = data if isinstance(data, str) else base64.b64encode(data).decode()
    return {"type": "file", "file": {"file_data": f"data:{mime_type};base64,{encoded}", "filename": name}}


async def test_a_text_file_arrives_as_its_text() -> None:
    conversation = Conversation(content(file("größe".encode(), "text/csv", "a.csv"), file(b"{}", "application/json")))
    assert await told(conversation) == [{"role": "user", "content": "[a.csv]\ngröße\n[file]\n{}"}]


@pytest.mark.parametrize(
    ("given", "data"),
    [
        (file(b"%PDF", "application/pdf", "a.pdf"), "data:application/pdf;base64,JVBERg=="),
        (file(b"\xff\xfe", "text/plain", "a.pdf"), "data:text/plain;base64,//4="),
        (file("no base64!", "text/plain", "a.pdf"), "data:text/plain;base64,no base64!"),
        (
            {"type": "file", "file": {"file_data": "JVBERg==", "filename": "a.pdf"}},
            "data:application/octet-stream;base64,JVBERg==",
        ),
    ],
)
async def test_another_file_arrives_as_a_file(given: Json, data: str) -> None:
    (message,) = await told(Conversation(content(given)))
    assert message["content"] == [{"type": "file", "file": {"file_data": data, "filename": "a.pdf"}}]


async def test_content_nobody_knows_arrives_as_json() -> None:
    assert await told(Conversation(content({"type": "hologram", "size": 3}))) == [
        {"role": "user", "content": '{"type": "hologram", "size": 3}'}
    ]


async def test_media_a_tool_returned_follow_its_result_and_the_users_note_comes_last() -> None:
    picture = {"type": "image", "image_url": {"url": "data:image/png;base64,iVBO"}}
    results = (
        ToolResultItem(call_id="call_a", message_content=[picture]),
        ToolResultItem(call_id="call_b", message_content=["seen", picture]),
    )
    one = Round((called("move", "call_a"), called("move", "call_b")), results, note=content("hurry"))
    messages = await told(asked("hi", rounds=(one,)))
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}}
    assert messages[2:] == [
        {"role": "tool", "tool_call_id": "call_a", "content": "(it follows the tool results)"},
        {"role": "tool", "tool_call_id": "call_b", "content": "seen"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What the tool call call_a returned:"},
                image,
                {"type": "text", "text": "What the tool call call_b returned:"},
                image,
                {"type": "text", "text": "hurry"},
            ],
        },
    ]
