"""The two dialects: which one is spoken, and what is said in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from agentlin_bridge.errors import RemoteError, RemoteNotFound, RemoteRefused
from agentlin_bridge.remote.agentlin.backend import AgentlinBackend
from agentlin_bridge.remote.agentlin.dialect import Dialect
from agentlin_bridge.remote.agentlin.endpoint import Address, FixedEndpoint
from agentlin_bridge.remote.agentlin.published import remedy, rpc_request, start_request
from agentlin_bridge.remote.backend import Continuation, ContinuationKind, PastRound, StartRequest
from agentlin_bridge.task import ContentItem, MessageItem, TaskObject, TextContentItem, ToolResult
from tests.support.replay import Answer, Player, playing, recorded

pytestmark = pytest.mark.anyio

HERE = recorded("agent_rpc_get")
NOWHERE = Answer(404, {"detail": "Not Found"})
DONE = Answer(body={"jsonrpc": "2.0", "id": "r", "result": {"object": "task", "id": "task_2", "status": "completed"}})
KNOWN = recorded("retrieve_input_required")
START = StartRequest("task_2", "sess_1", "user_1", [TextContentItem(text="hello")])


def content(*items: Any) -> list[ContentItem]:
    found: list[ContentItem] = MessageItem.model_validate({"message_content": list(items)}).message_content
    return found


def past(output: list[dict[str, Any]], **results: Any) -> PastRound:
    items = TaskObject.model_validate({"id": "t", "output": output}).output
    given = [ToolResult(content=content(*given)).to_item(call_id) for call_id, given in results.items()]
    return PastRound(items, given)


def call(call_id: str) -> dict[str, Any]:
    return {"type": "tool_call", "call_id": call_id, "name": "look", "arguments": '{"at":"it"}'}


def continuation(kind: ContinuationKind, *history: PastRound, **fields: Any) -> Continuation:
    said = content("Look.", {"type": "input_text", "text": "Closely."})
    return Continuation(kind, "task_2", "sess_1", "user_1", "task_1", [*history], said, **fields)


def backend_at(player: Player, **settings: Any) -> AgentlinBackend:
    return AgentlinBackend(FixedEndpoint(Address(player.base_url)), **settings)


def paths(player: Player) -> list[str]:
    return [f"{seen.method} {seen.url.removeprefix('/v1')}" for seen in player.seen]


# Finding out --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("probe", "route"),
    [
        (HERE, "POST /tasks/"),
        (recorded("retrieve_unknown"), "POST /tasks/"),
        (NOWHERE, "POST /tasks"),
        (Answer(405, {"detail": "Method Not Allowed"}), "POST /tasks"),
        (Answer(200, {"hello": "world"}), "POST /tasks"),
    ],
)
async def test_the_dialect_is_found_out_once(probe: Answer, route: str) -> None:
    async with playing(probe, DONE) as player, backend_at(player) as backend:
        await backend.start(START)
        await backend.start(START)
        learned = dict(backend.notes)
    assert paths(player) == ["POST /tasks/agent", route, route]
    assert player.seen[0].body["method"] == "tasks/get"
    expected = Dialect.PUBLISHED if route.endswith("/") else Dialect.DOCUMENTED
    assert learned == {player.base_url: expected}


async def test_what_is_known_is_not_asked_again() -> None:
    async with playing(DONE) as player, backend_at(player) as backend:
        backend.recall({player.base_url: "published", "http://elsewhere/v1": "documented", "http://old/v1": "klingon"})
        await backend.start(START)
        assert dict(backend.notes) == {player.base_url: "published", "http://elsewhere/v1": "documented"}
    async with playing(DONE) as player, backend_at(player, dialect=Dialect.DOCUMENTED) as backend:
        await backend.start(START)
        assert dict(backend.notes) == {}
    assert paths(player) == ["POST /tasks"]


async def test_a_refused_probe_creates_nothing() -> None:
    async with playing(Answer(401, {"detail": "no"})) as player, backend_at(player) as backend:
        with pytest.raises(RemoteRefused):
            await backend.start(START)
    assert paths(player) == ["POST /tasks/agent"]


@pytest.mark.parametrize("status", [404, 405, 422])
async def test_a_server_that_was_replaced_is_asked_again(status: int) -> None:
    """What was noted is wrong by now: the answer stored nothing, so the other form may be tried."""
    refusal = Answer(status, {"detail": "no"})
    async with playing(refusal, HERE, KNOWN, DONE) as player, backend_at(player) as backend:
        backend.recall({player.base_url: "documented"})
        task = await backend.proceed(continuation("results", past([call("c")], c=["seen"])))
        assert dict(backend.notes) == {player.base_url: "published"}
    assert task.status == "completed"
    assert paths(player) == ["POST /tasks", "POST /tasks/agent", "GET /tasks/task_1", "POST /tasks/agent"]


async def test_a_refusal_in_the_right_dialect_stays_one() -> None:
    refusal = Answer(422, {"detail": "no"})
    async with playing(refusal, NOWHERE) as player, backend_at(player) as backend:
        backend.recall({player.base_url: "documented"})
        with pytest.raises(RemoteError, match="HTTP 422"):
            await backend.start(START)
    assert paths(player) == ["POST /tasks", "POST /tasks/agent"]


async def test_a_forgotten_session_gets_no_results() -> None:
    async with (
        playing(recorded("retrieve_unknown")) as player,
        backend_at(player, dialect=Dialect.PUBLISHED) as backend,
    ):
        with pytest.raises(RemoteNotFound):
            await backend.proceed(continuation("results", past([call("c")], c=["seen"])))
    assert paths(player) == ["GET /tasks/task_1"]


async def test_a_subagents_task_is_not_ours() -> None:
    theirs = {"object": "task", "id": "call_9", "status": "failed", "error": {"code": -32000, "message": "boom"}}
    async with playing(Answer(body={"result": theirs})) as player, backend_at(player, dialect=Dialect.PUBLISHED) as b:
        task = await b.start(START)
    assert (task.id, task.status) == ("task_2", "failed")
    assert task.error is not None
    assert task.error.message == "A subagent of the remote agent failed: boom"


# What is said -------------------------------------------------------------------------------------------


def said(kind: ContinuationKind, *history: PastRound) -> Mapping[str, Any]:
    payload: Mapping[str, Any] = rpc_request(continuation(kind, *history), None)["params"]["payload"]
    return payload


def text(what: str) -> dict[str, Any]:
    return {"type": "text", "text": what}


def test_the_json_rpc_request() -> None:
    request = rpc_request(
        continuation("results", past([call("c")], c=["seen"]), options={"env": {}}, output_schema={}), "AIME"
    )
    assert request == {
        "jsonrpc": "2.0",
        "id": "req_task_2",
        "method": "tasks/create",
        "params": {
            "id": "task_2",
            "session_id": "sess_1",
            "user_id": "user_1",
            "payload": {
                "client_id": "AIME",
                "env": {},
                "user_message_content": [],
                "previous_task_id": "task_1",
                "thought_messages": [{"role": "tool", "tool_call_id": "c", "content": [text("seen")]}],
            },
        },
    }
    assert rpc_request(continuation("nudge", stream=True), None)["method"] == "tasks/createSubscribe"


def test_what_is_not_text_follows_all_results() -> None:
    image = {"type": "image", "image_url": {"url": "u"}}
    audio = {"type": "audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    file = {"type": "file", "file": {"file_url": "f", "filename": "n"}}
    payload = said("results", past([call("a"), call("b")], a=["see", image], b=[audio, file, {"type": "odd", "x": 1}]))
    first, second, user = payload["thought_messages"]
    assert first == {"role": "tool", "tool_call_id": "a", "content": [text("see")]}
    assert second == {"role": "tool", "tool_call_id": "b", "content": [text('{"type":"odd","x":1}')]}
    assert user == {
        "role": "user",
        "content": [
            text("Attached to the result of tool call a:"),
            {"type": "image_url", "image_url": {"url": "u"}},
            text("Attached to the result of tool call b:"),
            {"type": "file", "file": {"filename": "audio.wav", "file_data": "data:audio/wav;base64,AAAA"}},
            {"type": "file", "file": {"file_url": "f", "filename": "n"}},
        ],
    }
    only = said("results", past([call("a")], a=[image]))["thought_messages"][0]
    assert only["content"] == [text("(see the attachment that follows)")]


def test_a_nudge_repeats_no_result() -> None:
    payload = said("nudge", past([call("c")], c=["seen"]))
    assert payload["thought_messages"] == [{"role": "user", "content": [text("continue")]}]


def test_a_replay_tells_everything() -> None:
    first = past(
        [
            {"type": "reasoning", "summary": []},
            {"type": "message", "message_content": "Let me look."},
            call("a"),
            {"type": "tool_call", "call_id": "s", "name": "grep", "arguments": "{}"},
            {"type": "tool_result", "call_id": "s", "message_content": "server side"},
            call("b"),
        ],
        a=["1"],
        b=["2"],
    )
    payload = said("replay", first, past([call("a")], a=["3"]))
    assert payload["history_messages"] == [{"role": "user", "content": [text("Look."), text("Closely.")]}]
    shape = [
        (m["role"], [c["id"] for c in m["tool_calls"]] if "tool_calls" in m else m["content"][0]["text"])
        for m in payload["thought_messages"]
    ]
    assert shape == [
        ("assistant", "Let me look."),
        ("assistant", ["a", "s", "b"]),
        ("tool", "1"),
        ("tool", "server side"),
        ("tool", "2"),
        ("assistant", ["a"]),
        ("tool", "3"),
    ]
    assert all(m["content"] == [] for m in payload["thought_messages"] if "tool_calls" in m)


def test_a_replay_of_nothing_starts_anew() -> None:
    payload = said("replay")
    assert payload["user_message_content"] == [text("Look."), text("Closely.")]
    assert "thought_messages" not in payload


def test_calls_and_messages_keep_their_order() -> None:
    turns = past([call("a"), {"type": "message", "message_content": "And now?"}, call("b")], a=["1"])
    roles = [message["role"] for message in said("replay", turns)["thought_messages"]]
    assert roles == ["assistant", "tool", "assistant", "assistant", "tool"]


def test_the_start_request_has_no_form_the_server_refuses() -> None:
    audio = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}}
    given = content("a", {"type": "output_text", "text": "b"}, audio)
    body = start_request(StartRequest("t", "s", "u", given, output_schema={"type": "object"}), None)
    assert [part["type"] for part in body["user_message_content"]] == ["text", "text", "input_audio"]
    assert "structured_output" not in body


def failed(message: str) -> TaskObject:
    return TaskObject.model_validate({"id": "t", "status": "failed", "error": {"code": 1, "message": message}})


@pytest.mark.parametrize(
    ("task", "tried", "expected"),
    [
        (failed("boom"), ["start"], None),
        (None, ["start"], "replay"),
        (None, ["start", "replay"], None),
        (failed("boom"), ["results"], "nudge"),
        (failed("boom"), ["results", "nudge"], "replay"),
        (failed("boom"), ["results", "nudge", "replay"], None),
        (failed("boom"), ["results", "replay"], None),
        (failed("'str' object has no attribute 'get'"), ["results"], "replay"),
        (failed("No tool output found for function call c."), ["results"], "replay"),
        (failed("messages must be followed by tool messages"), ["results", "nudge"], "replay"),
        (None, ["results"], "replay"),
        (TaskObject(id="t"), ["results"], "nudge"),
    ],
)
def test_remedies(task: TaskObject | None, tried: list[str], expected: str | None) -> None:
    assert remedy(task, tried) == expected


async def test_the_documented_dialect_knows_no_remedy() -> None:
    """Whatever another remote was found to speak."""
    backend = AgentlinBackend(FixedEndpoint(Address("http://127.0.0.1:1/v1")), dialect=Dialect.DOCUMENTED)
    backend.recall({"http://elsewhere/v1": "published"})
    assert await backend.remedy(None, ["results"]) is None
    assert not await backend.dies_with_its_stream()
    with pytest.raises(RemoteError, match="can no longer take a nudge"):
        await backend.proceed(continuation("nudge"))
