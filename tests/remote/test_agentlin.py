"""The `agentlin` backend: what it sends, and what it makes of what a real server answered."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import SecretStr

from agentlin_bridge.errors import (
    RemoteError,
    RemoteNotFound,
    RemoteProtocolError,
    RemoteRefused,
    RemoteUnavailable,
    ReplyLost,
    UnsupportedError,
)
from agentlin_bridge.remote.agentlin import transport
from agentlin_bridge.remote.agentlin.backend import AgentlinBackend
from agentlin_bridge.remote.agentlin.dialect import Dialect
from agentlin_bridge.remote.agentlin.endpoint import Address, FixedEndpoint
from agentlin_bridge.remote.backend import Continuation, PastRound, StartRequest, ToolDefinition
from agentlin_bridge.task import TaskObject, TaskStatus, TextContentItem, ToolResult
from tests.support.replay import Answer, Player, playing, recorded

pytestmark = pytest.mark.anyio

REQUEST = StartRequest("task_1", "sess_1", "user_1", [TextContentItem(text="hello")])


def backend_at(url: str, key: str | None = None, **settings: Any) -> AgentlinBackend:
    settings.setdefault("dialect", Dialect.DOCUMENTED)
    return AgentlinBackend(FixedEndpoint(Address(url, SecretStr(key) if key else None)), **settings)


async def started(answer: Answer) -> TaskObject:
    async with playing(answer) as player, backend_at(player.base_url) as backend:
        return await backend.start(REQUEST)


async def test_what_start_sends() -> None:
    tool = ToolDefinition("get_weather", "Weather.", {"type": "object", "properties": {}})
    request = StartRequest(
        "task_1", "sess_1", "user_1", [TextContentItem(text="hello")], [tool], "task_0", {"type": "object"}, {"env": {}}
    )
    answer = recorded("create_nonstream_text")
    async with playing(answer) as player, backend_at(player.base_url, "key", client_id="AIME") as backend:
        await backend.start(request)
    (seen,) = player.seen
    assert (seen.method, seen.url) == ("POST", "/v1/tasks")
    assert seen.headers["authorization"] == "Bearer key"
    assert seen.headers["x-client-id"] == "AIME"
    assert seen.body == {
        "env": {},
        "stream": False,
        "task_id": "task_1",
        "session_id": "sess_1",
        "user_id": "user_1",
        "user_message_content": [{"type": "text", "text": "hello"}],
        "client_id": "AIME",
        "client_tools": [
            {
                "type": "function",
                "function": {
                    "name": "get_weather",
                    "description": "Weather.",
                    "parameters": {"type": "object", "properties": {}},
                },
            }
        ],
        "structured_output": {"type": "object"},
        "previous_task_id": "task_0",
    }


async def test_what_proceed_sends() -> None:
    results = [
        ToolResult(content=[TextContentItem(text="sunny")]).to_item("call_1"),
        ToolResult.error("no network").to_item("call_2"),
        ToolResult().to_item("call_3"),
    ]
    async with playing(recorded("create_nonstream_text")) as player, backend_at(player.base_url) as backend:
        history = [PastRound([], []), PastRound([], results)]
        await backend.proceed(Continuation("results", "task_2", "sess_1", "user_1", "task_1", history, []))
    body = player.seen[0].body
    assert body["user_message_content"] == []
    assert (body["task_id"], body["previous_task_id"], body["session_id"]) == ("task_2", "task_1", "sess_1")
    assert body["thought_messages"] == [
        {
            "type": "tool_result",
            "call_id": call_id,
            "message_content": [{"type": "text", "text": text} for text in texts],
            "block_list": [],
        }
        for call_id, texts in (
            ("call_1", ["sunny"]),
            ("call_2", ["ERROR: ", "no network"]),
            ("call_3", ["(no output)"]),
        )
    ]
    assert "authorization" not in player.seen[0].headers


@pytest.mark.parametrize(
    ("name", "status", "calls", "texts"),
    [
        ("create_nonstream_text", TaskStatus.COMPLETED, 0, ["message"]),
        ("create_client_tool_nonstream", TaskStatus.INPUT_REQUIRED, 1, ["tool_call"]),
        ("create_two_client_calls", TaskStatus.INPUT_REQUIRED, 2, ["tool_call", "tool_call"]),
        ("create_mixed_client_and_server_call", TaskStatus.INPUT_REQUIRED, 2, ["tool_call", "tool_call"]),
        ("create_bad_args", TaskStatus.INPUT_REQUIRED, 1, ["tool_call"]),
        ("create_subagent_nonstream", TaskStatus.COMPLETED, 0, ["tool_call", "tool_result", "message"]),
        ("backend_reasoning_responses", TaskStatus.COMPLETED, 0, ["reasoning", "message"]),
    ],
)
async def test_recorded_tasks(name: str, status: TaskStatus, calls: int, texts: list[str]) -> None:
    answer = recorded(name)
    task = await started(answer)
    assert task.status is status
    assert len(task.open_calls) == calls
    assert [item.type for item in task.output] == texts
    again = task.model_dump(mode="json", exclude_unset=True)
    assert again["id"] == answer.body["result"]["id"]
    assert [item["type"] for item in again["output"]] == texts


async def test_a_failed_model_is_a_failed_task_without_its_traceback() -> None:
    task = await started(recorded("model_failure_401"))
    assert task.status is TaskStatus.FAILED
    assert task.error is not None
    assert task.error.code == -32000
    assert "Traceback" not in task.error.message
    assert "/srv/" not in task.error.message
    assert 0 < len(task.error.message) <= 500


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (recorded("retrieve_unknown"), RemoteNotFound, "Task not found"),
        (recorded("missing_stream"), RemoteError, r"HTTP 422: Request data validation failed: .*stream"),
        (recorded("bare_malformed_json"), RemoteError, "HTTP 422: .*JSON decode error"),
        (recorded("bare_structured"), ReplyLost, "HTTP 500: Internal Server Error"),
        (recorded("structured_output_nonstream"), ReplyLost, "HTTP 500"),
        (recorded("rig_auth_missing"), RemoteRefused, r"HTTP 401: Unauthorized.*AGENTLIN_API_KEY"),
        (Answer(404, "not found", {"content-type": "text/plain"}), RemoteNotFound, "HTTP 404: Not Found.*BASE_URL"),
        (Answer(429, {"detail": "slow down"}), RemoteUnavailable, "HTTP 429: slow down"),
        (Answer(200, "<html>", {"content-type": "text/html"}), RemoteProtocolError, "HTTP 200 with text/html"),
        (Answer(200, [1]), RemoteProtocolError, "not with a JSON object"),
        (Answer(200, {"result": {"status": "completed"}}), RemoteProtocolError, "task object cannot be read"),
        (Answer(200, {}), RemoteError, "HTTP 200"),
        (Answer(200, "x" * 2000), RemoteProtocolError, "larger than 0 MiB"),
        (Answer(307, "", {"location": "/v1/tasks"}), RemoteProtocolError, "redirects in a circle"),
        (Answer(307, "", {"location": "https://evil.example/v1"}), RemoteProtocolError, "another host .evil.example"),
    ],
)
async def test_answers_without_a_task(
    answer: Answer, error: type[RemoteError], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "ANSWER_LIMIT", 1500)
    with pytest.raises(error, match=said) as raised:
        await started(answer)
    assert type(raised.value) is error


async def test_the_remotes_own_words_are_kept_in_fields() -> None:
    with pytest.raises(RemoteNotFound) as raised:
        await started(recorded("retrieve_unknown"))
    error = raised.value
    assert (error.remote_code, error.code, error.status) == (-32001, -32001, 200)
    assert error.request_id == "req_4e6b42cc-f1aa-47e7-91af-ee3aa075dc57"


async def test_a_redirect_is_followed_on_our_own_origin_with_the_key() -> None:
    """The published server sends `/tasks` to an absolute URL of its own making."""
    redirect = recorded("create_noslash_redirect")
    answers = redirect, recorded("create_nonstream_text")
    async with playing(*answers) as player, backend_at(player.base_url, "key") as backend:
        assert (await backend.start(REQUEST)).status is TaskStatus.COMPLETED
    assert redirect.headers["location"].startswith("http://127.0.0.1:9999/")
    assert [seen.url for seen in player.seen] == ["/v1/tasks", "/v1/tasks/"]
    assert [seen.headers["authorization"] for seen in player.seen] == ["Bearer key"] * 2
    assert player.seen[1].body == player.seen[0].body


async def test_safe_requests_are_repeated_and_creates_are_not() -> None:
    failing = Answer(502, "bad gateway", {"content-type": "text/plain"})
    async with playing(failing, recorded("retrieve_completed")) as player, backend_at(player.base_url) as backend:
        assert (await backend.retrieve("task_1")).status is TaskStatus.COMPLETED
        assert len(player.seen) == 2
    async with playing(failing, recorded("retrieve_completed")) as player, backend_at(player.base_url) as backend:
        with pytest.raises(ReplyLost, match="HTTP 502: Bad Gateway"):
            await backend.start(REQUEST)
        assert len(player.seen) == 1


Ending = Callable[[AgentlinBackend], Awaitable[str]]


@pytest.mark.parametrize(
    ("answers", "operation", "outcome"),
    [
        ([recorded("cancel_working"), recorded("retrieve_working")], "cancel", "kept running"),
        ([recorded("cancel_working"), recorded("retrieve_completed")], "cancel", "stopped"),
        ([recorded("delete_working")], "delete", "kept running"),
        ([Answer(405, {"detail": "Method Not Allowed"})], "cancel", "unsupported"),
        ([Answer(501, {})], "delete", "unsupported"),
        ([recorded("retrieve_completed")], "delete", "stopped"),
    ],
)
async def test_what_ending_did(answers: list[Answer], operation: str, outcome: str) -> None:
    async with playing(*answers) as player, backend_at(player.base_url) as backend:
        assert await getattr(backend, operation)("task_1") == outcome
    expected = ("POST", "/v1/tasks/task_1/cancel") if operation == "cancel" else ("DELETE", "/v1/tasks/task_1")
    assert (player.seen[0].method, player.seen[0].url) == expected


@pytest.mark.parametrize(("name", "operation"), [("cancel_unknown", "cancel"), ("delete_unknown", "delete")])
async def test_ending_an_unknown_task(name: str, operation: str) -> None:
    async with playing(recorded(name)) as player, backend_at(player.base_url) as backend:
        with pytest.raises(RemoteNotFound):
            await getattr(backend, operation)("task_1")


@pytest.mark.parametrize("operation", ["pause", "resume"])
async def test_pause_and_resume_say_what_happened(operation: str) -> None:
    unable = [recorded(f"{operation}_working"), Answer(405, {"detail": "no"})]
    for answer in unable:
        async with playing(answer) as player, backend_at(player.base_url) as backend:
            with pytest.raises(UnsupportedError, match=rf"The remote cannot {operation} this task .* Next: "):
                await getattr(backend, operation)("task_1")
        assert (player.seen[0].method, player.seen[0].url) == ("POST", f"/v1/tasks/task_1/{operation}")
    async with playing(recorded(f"{operation}_unknown")) as player, backend_at(player.base_url) as backend:
        with pytest.raises(RemoteNotFound):
            await getattr(backend, operation)("task_1")
    paused = Answer(body={"object": "task", "id": "task_1", "status": "paused"})
    async with playing(paused) as player, backend_at(player.base_url) as backend:
        assert (await getattr(backend, operation)("task_1")).status is TaskStatus.PAUSED


def pages(player: Player) -> list[str]:
    return [seen.url for seen in player.seen]


async def test_list_ends_whatever_the_cursor_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentlin_bridge.remote.agentlin.backend._PAGE", 2)
    a, b, c = ({"id": name, "object": "task", "session_id": "s", "status": "completed"} for name in "abc")
    inclusive = [Answer(body={"result": page}) for page in ([a, b], [b, c], [c])]
    exclusive = [Answer(body={"result": page}) for page in ([a, b], [c])]
    stuck = [Answer(body={"result": [a, b]})]
    for answers, found in ((inclusive, "abc"), (exclusive, "abc"), (stuck, "ab")):
        async with playing(*answers) as player, backend_at(player.base_url) as backend:
            assert "".join([task.id async for task in backend.list()]) == found
        assert pages(player)[1].endswith("limit=2&starting_after=b")


async def test_list_filters_again_on_our_side() -> None:
    """The published server combines its filters with OR."""
    async with playing(recorded("list_user")) as player, backend_at(player.base_url) as backend:
        everything = [task async for task in backend.list()]
        session = everything[0].session_id
        ours = [task.id async for task in backend.list(session_id=session, status=TaskStatus.COMPLETED)]
    assert len(everything) == 6
    assert ours == [t.id for t in everything if t.session_id == session and t.status is TaskStatus.COMPLETED]
    assert pages(player)[1] == f"/v1/tasks?limit=100&session_id={session}&status=completed"


async def test_list_errors() -> None:
    async with playing(recorded("list_no_user")) as player, backend_at(player.base_url) as backend:
        with pytest.raises(RemoteError, match="X-User-ID header is required"):
            [task async for task in backend.list()]


async def test_a_key_that_cannot_be_sent_is_not_shown() -> None:
    async with playing(recorded("create_nonstream_text")) as player:
        for key in ("very-secret\n", "very-sécret"):
            async with backend_at(player.base_url, key) as backend:
                with pytest.raises(RemoteUnavailable, match=r"cannot be sent.*AGENTLIN_API_KEY") as raised:
                    await backend.start(REQUEST)
            assert "secret" not in str(raised.value)
            assert "cret" not in repr(raised.value.__cause__)
    assert player.seen == []


@pytest.mark.parametrize("body", ['{"result":' * 100_000, "[" * 100_000])
async def test_a_body_nested_too_deeply_is_garbage(body: str) -> None:
    with pytest.raises(RemoteProtocolError, match="not with a JSON object"):
        await started(Answer(200, body))


async def test_half_a_surrogate_pair_is_repaired() -> None:
    answer = recorded("create_nonstream_text")
    text = json.dumps(answer.body).replace('"content": "', '"content": "\\ud83d')
    task = await started(Answer(200, text))
    task.model_dump_json().encode()
    assert task.status is TaskStatus.COMPLETED


async def test_an_unusable_url() -> None:
    async with backend_at("http://127.0.0.1:port/v1") as backend:
        with pytest.raises(RemoteUnavailable, match=r"is not a usable URL.*AGENTLIN_BASE_URL"):
            await backend.start(REQUEST)
