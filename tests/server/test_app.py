"""The wire: routes, authentication, envelopes, and what is refused."""

from __future__ import annotations

import json
import socket
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from agentlin_bridge.server.agent import Conversation
from agentlin_bridge.server.records.store import Store
from agentlin_bridge.server.web.app import VERSION

from .agents import Scripted, eventually
from .conftest import Server, Serving


def test_health_needs_no_key(serving: Serving) -> None:
    server = serving(api_key="secret")
    response = httpx.get(server.url.removesuffix("/v1") + "/healthz")
    assert response.status_code == 200
    assert response.json() == {"status": "ok", "server": "agentlin-bridge", "version": VERSION, "database": "ok"}


@pytest.mark.parametrize("path", ["tasks", "tasks/"])
def test_both_forms_of_the_path_answer_directly(server: Server, path: str) -> None:
    made = server.post(path, json={"user_message_content": "Paris", "request_id": "req_7"})
    assert made.status_code == 200
    assert made.json()["jsonrpc"] == "2.0"
    assert made.json()["id"] == "req_7"
    listed = server.get(path)
    assert listed.status_code == 200
    assert [task["id"] for task in listed.json()["result"]] == [made.json()["result"]["id"]]
    assert server.get(f"tasks/{made.json()['result']['id']}{path[5:]}").status_code == 200


def test_a_task_object_has_what_every_client_reads(server: Server) -> None:
    task = server.make("Paris Rome", task_id="task_1", session_id="sess_1", user_id="user_1", metadata={"a": 1})
    first, second = task["output"]
    assert isinstance(task["created_at"], int)
    assert task == {
        "object": "task",
        "id": "task_1",
        "session_id": "sess_1",
        "user_id": "user_1",
        "status": "input-required",
        "created_at": task["created_at"],
        "output": [first, second],
        "usage": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0, "tool_calls": 2},
        "input_required": first,
        "input_required_call_ids": [first["call_id"], second["call_id"]],
        "metadata": {"a": 1},
    }
    assert first["name"] == "get_weather"
    assert json.loads(first["arguments"]) == {"city": "Paris"}


def test_a_message_carries_its_text_in_both_fields(demo: Server) -> None:
    (message,) = demo.make("hello")["output"]
    assert message["role"] == "assistant"
    assert message["message_content"] == [{"type": "text", "text": message["content"]}]
    assert message["status"] == "completed"
    assert message["id"].startswith("msg_")


def test_ids_come_from_body_then_headers_then_are_made(server: Server) -> None:
    names = {"X-Task-ID": "task_h", "X-Session-ID": "sess_h", "X-User-ID": "user_h", "X-Request-ID": "req_h"}
    body = {"user_message_content": "Paris", "user_id": "user_b"}
    found = server.post("tasks", json=body, headers=names).json()
    task = found["result"]
    assert (found["id"], task["id"], task["session_id"], task["user_id"]) == ("req_h", "task_h", "sess_h", "user_b")
    found = server.post("tasks", json={"user_message_content": "Paris"}).json()
    task = found["result"]
    assert all(len(made.partition("_")[2]) == 32 for made in (found["id"], task["id"], task["session_id"]))
    assert task["user_id"].startswith("user_")


@pytest.mark.parametrize("token", [None, "Bearer wrong", "Bearer", "secret", "Basic secret", "Bearer s\xe9cret"])
def test_a_key_is_asked_for(serving: Serving, token: str | None) -> None:
    server = serving(api_key="secret")
    headers = {} if token is None else {b"Authorization": token.encode("latin-1")}
    for method, path in [("GET", "tasks"), ("POST", "tasks/"), ("DELETE", "tasks/x"), ("POST", "tasks/x/cancel")]:
        response = httpx.request(method, f"{server.url}/{path}", headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert "Authorization" in response.json()["error"]["message"]
    assert server.get("tasks").json()["result"] == []


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://[x"}, {"Host": "evil.example:80"}],
)
def test_an_open_server_is_closed_to_web_pages(server: Server, headers: dict[str, str]) -> None:
    response = server.get("tasks", headers=headers)
    assert response.status_code == 403
    assert "own machine" in response.json()["error"]["message"]
    assert server.get("tasks", headers={"Origin": "http://localhost:3000"}).status_code == 200


BAD_BODIES = [
    (b"", "not JSON"),
    (b"{", "not JSON"),
    (b"\xff\xfe{", "not JSON"),
    (b"[]", "must be a JSON object"),
    (b"[" * 100_000, "not JSON"),
    (b'{"user_message_content": NaN}', "NaN"),
    (b'{"user_message_content": "a", "x": 1e999}', "finite"),
    (b'{"user_message_content": "\\ud800"}', "Unicode"),
    (b"{}", "user_message_content is missing"),
    (b'{"user_message_content": 7}', "user_message_content must be"),
    (b'{"user_message_content": {"type": "text", "text": "a"}}', "user_message_content must be"),
    (b'{"user_message_content": [{"text": "no type"}]}', "user_message_content must be"),
    (b'{"user_message_content": [{"type": "text", "text": 7}]}', "user_message_content must be"),
    (b'{"user_message_content": [{"type": "odd", "text": 7}]}', "user_message_content must be"),
    (b'{"user_message_content": "a", "task_id": 7}', "task_id"),
    (b'{"user_message_content": "a", "task_id": "a/b"}', "task_id"),
    (b'{"user_message_content": "a", "session_id": ""}', "session_id"),
    (b'{"user_message_content": "a", "request_id": ["a"]}', "request_id"),
    (b'{"user_message_content": "a", "stream": "yes"}', "stream"),
    (b'{"user_message_content": "a", "client_tools": {}}', "client_tools"),
    (b'{"user_message_content": "a", "client_tools": [{"type": "function"}]}', "client_tools.0.function"),
    (b'{"user_message_content": "a", "thought_messages": "x"}', "thought_messages"),
    (b'{"user_message_content": "a", "thought_messages": [7]}', "thought_messages"),
    (b'{"user_message_content": "a", "thought_messages": [{"role": "tool"}]}', "tool_call_id"),
    (b'{"user_message_content": "a", "thought_messages": [{"type": "tool_call"}]}', "without call_id or name"),
    (b'{"user_message_content": "a", "history_messages": [{"role": "tool", "tool_call_id": "c"}]}', "follows no call"),
    (b'{"user_message_content": "a", "expires_in": 0}', "expires_in"),
    (b'{"user_message_content": "a", "env": {"A": 1}}', "env.A"),
    (b'{"user_message_content": "a", "tool_results": [{"call_id": "c", "message_content": 7}]}', "0.message_content"),
]


def test_bad_bodies_are_refused_with_a_reason(server: Server) -> None:
    for raw, problem in BAD_BODIES:
        response = server.post("tasks", content=raw)
        assert response.status_code == 400, raw
        refusal = response.json()
        assert refusal["jsonrpc"] == "2.0"
        assert refusal["id"]
        assert refusal["error"]["code"] == -32602
        assert problem in refusal["error"]["message"], raw
    assert server.get("tasks").json()["result"] == []


def test_bad_headers_are_refused_with_a_reason(server: Server) -> None:
    for name, value in {"X-Task-ID": "a/b", "X-Session-ID": "a" * 201, "X-User-ID": "\u00e9"}.items():
        headers = {name.encode(): value.encode("latin-1")}
        for body in ({}, {name[2:].lower().replace("-", "_"): "fine"}):
            response = server.post("tasks", json={"user_message_content": "a", **body}, headers=headers)
            assert response.status_code == 400, name
            assert name.lower() in response.json()["error"]["message"]


BAD_QUERIES = {
    "limit=0": "limit",
    "limit=101": "limit",
    "limit=x": "limit",
    "limit=": "limit",
    "offset=-1": "offset",
    "status=bogus": "status.0",
    "status[]=bogus": "status.0",
    "starting_after=a&ending_before=b": "exclude each other",
    "starting_after=task_none": "no task 'task_none'",
    "starting_after=": "starting_after",
    "session_id=a%00b": "session_id",
    "user_id=%F0%9F%98%80": "user_id",
}


def test_bad_queries_are_refused_with_a_reason(server: Server) -> None:
    for query, problem in BAD_QUERIES.items():
        response = server.get(f"tasks?{query}")
        assert response.status_code == 400, query
        assert problem in response.json()["error"]["message"], query
    assert server.get("tasks?unknown=1&limit=7").status_code == 200


def test_tools_need_names_of_their_own(server: Server) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    status, error = server.refuse("a", client_tools=[tool, tool])
    assert status == 400
    assert "name of its own" in error["message"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = """
user_message_content task_id session_id stream client_tools thought_messages tool_results previous_task_id
metadata request_id user_id
"""
fields = st.sampled_from(FIELDS.split())


@pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # the engine does, in a thread of its own
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.dictionaries(fields, json_values) | json_values)
def test_no_body_makes_the_server_fail(server: Server, body: Any) -> None:
    response = server.post("tasks", content=json.dumps(body).encode())
    assert response.status_code in {200, 400, 404, 409}, response.text
    assert ("result" in response.json()) == (response.status_code == 200)


def test_a_body_has_a_limit(server: Server) -> None:
    response = server.post("tasks", content=b"x" * (16 * 1024 * 1024 + 1))
    assert response.status_code == 413
    assert "larger than" in response.json()["error"]["message"]


def test_a_body_that_breaks_off_is_no_request(server: Server) -> None:
    url = httpx.URL(server.url)
    with socket.create_connection((url.host, url.port)) as connection:
        connection.sendall(b"POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass
    assert server.get("tasks").json()["result"] == []


def test_unknown_routes_and_methods_answer_in_json(server: Server) -> None:
    missing = server.get("nothing")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, -32000)
    wrong = server.patch("tasks/task_1")
    assert wrong.status_code == 405
    assert "GET" in wrong.headers["allow"]
    assert "error" in wrong.json()


def test_a_failing_agent_fails_its_task_without_a_traceback(serving: Serving, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: Conversation) -> list[Any]:
        raise ZeroDivisionError("with a secret")

    task = serving(Scripted(broken)).make("Paris")
    assert task["status"] == "failed"
    assert task["error"]["code"] == -32000
    assert "failed with ZeroDivisionError" in task["error"]["message"]
    assert "secret" not in json.dumps(task)
    assert "with a secret" in caplog.text


def test_an_agent_that_returns_nonsense_fails_its_task(serving: Serving) -> None:
    task = serving(Scripted(lambda _: "nonsense")).make("Paris")  # type: ignore[arg-type,return-value]
    assert task["status"] == "failed"


def test_a_bug_answers_500_without_a_traceback(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(*_: object) -> None:
        raise RuntimeError("inside information")

    monkeypatch.setattr("agentlin_bridge.server.records.store.page_of", explode)
    response = server.get("tasks")
    assert response.status_code == 500
    assert response.json()["error"]["code"] == -32603
    assert "inside" not in response.text
    eventually(lambda: "inside information" in caplog.text)


def test_a_lost_database_is_told(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def lost(*_: object) -> None:
        raise OperationalError("SELECT 1", {}, Exception("with a secret"))

    monkeypatch.setattr(Store, "page", lost)
    response = server.get("tasks")
    assert (response.status_code, response.json()["error"]["code"]) == (503, -32000)
    assert "secret" not in response.text
    assert "with a secret" in caplog.text
