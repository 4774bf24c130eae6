"""The JSON-RPC route: every method, every form of tool results, and how errors are told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .agents import READ_FILE, Scripted, result, tool_message, weather
from .conftest import Server, Serving

TEXT = [{"type": "text", "text": "Paris Rome"}]


def call(server: Server, method: str, params: Any, *, id: Any = "r1", path: str = "tasks/agent") -> tuple[int, Any]:
    response = server.post(path, json={"jsonrpc": "2.0", "id": id, "method": method, "params": params})
    return response.status_code, response.json()


def ask(server: Server, method: str, params: Any) -> Any:
    status, answer = call(server, method, params)
    assert status == 200, answer
    assert (answer["jsonrpc"], answer["id"]) == ("2.0", "r1")
    return answer["result"]


def create(server: Server, content: Any = None, *, id: str | None = None, session: str = "s", **payload: Any) -> Any:
    said = {} if content is None else {"user_message_content": content}
    ids = {"session_id": session, "user_id": "u", **({"id": id} if id else {})}
    return ask(server, "tasks/create", {**ids, "payload": {"client_id": "c", **said, **payload}})


def text_of(task: Any) -> str:
    return str(task["output"][-1]["content"])


def test_a_task_is_created_and_looked_at(server: Server) -> None:
    params = {"id": "task_1", "session_id": "s", "user_id": "u", "payload": {"user_message_content": TEXT}}
    for path in ("tasks/agent", "tasks/agent/"):
        for known_as in ("r1", 7, ""):
            status, answer = call(server, "tasks/create", params, id=known_as, path=path)
            assert (status, answer["id"]) == (200, known_as)
    task = answer["result"]
    assert (task["id"], task["session_id"], task["user_id"], task["status"]) == ("task_1", "s", "u", "input-required")
    assert ask(server, "tasks/get", {"id": "task_1"}) == task == server.task("task_1")


def results_in_every_form(texts: dict[str, str], previous: str) -> dict[str, dict[str, Any]]:
    """The payloads of the forms F1 to F6."""
    parts = {call_id: [{"type": "text", "text": text}] for call_id, text in texts.items()}
    messages = {"thought_messages": [tool_message(*pair) for pair in texts.items()]}
    lists = {"thought_messages": [tool_message(*pair) for pair in parts.items()]}
    items = [result(*pair) for pair in texts.items()]
    return {
        "items": {"user_message_content": [], "thought_messages": items},
        "messages": {"user_message_content": [], **messages},
        "messages with lists": {"user_message_content": [], **lists},
        "continue": {"previous_task_id": previous, "tool_results": items},
    }


@pytest.mark.parametrize("route", ["rpc", "rest"])
def test_results_are_taken_in_every_form(server: Server, route: str) -> None:
    for form in results_in_every_form({}, ""):
        asked = create(server, TEXT, id=f"asked {form}".replace(" ", "_"))
        first, second = asked["input_required_call_ids"]
        payload = results_in_every_form({second: "rain", first: "sun"}, asked["id"])[form]
        if route == "rpc":
            done = create(server, **payload)
        else:
            done = server.post("tasks", json={"session_id": "s", **payload}).json()["result"]
        assert (done["status"], done["previous_task_id"]) == ("completed", asked["id"]), form
        assert text_of(done) == "sun | rain"


def test_part_of_the_results_is_kept(server: Server) -> None:
    first, second = create(server, TEXT, id="task_1")["input_required_call_ids"]
    part = create(server, [], thought_messages=[tool_message(second, [{"type": "text", "text": "rain"}])])
    assert (part["status"], part["input_required_call_ids"]) == ("input-required", [first])
    rest = create(server, tool_results=[result(first, "sun")])
    assert text_of(rest) == "sun | rain"


def test_what_is_said_after_the_results_reaches_the_agent(serving: Serving) -> None:
    agent = Scripted(weather)
    server = serving(agent)
    (call_id,) = create(server, "Paris", id="task_1")["input_required_call_ids"]
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    create(server, [], thought_messages=[tool_message(call_id, "see"), {"role": "user", "content": [image]}])
    (note,) = agent.seen[-1].rounds[-1].note
    assert note.model_dump(exclude_none=True) == image


def test_tasks_are_listed(server: Server) -> None:
    for number in range(3):
        create(server, "Paris", id=f"task_{number}", session=f"s{number}")
    answer = call(server, "tasks/list", {"limit": 2, "user_id": "u"})[1]
    assert ([task["id"] for task in answer["result"]], answer["has_more"]) == (["task_2", "task_1"], True)
    answer = call(server, "tasks/list", {"starting_after": "task_1"})[1]
    assert ([task["id"] for task in answer["result"]], answer["has_more"]) == (["task_0"], False)
    assert ask(server, "tasks/list", {"status": ["completed", "failed"]}) == []
    assert len(ask(server, "tasks/list", {"status": "input-required", "offset": 1})) == 2
    assert call(server, "tasks/list", {"status": "bogus"})[0] == 400


def test_a_task_is_canceled_and_deleted(server: Server) -> None:
    create(server, "Paris", id="task_1")
    assert ask(server, "tasks/cancel", {"id": "task_1"})["status"] == "canceled"
    status, answer = call(server, "tasks/pause", {"id": "task_1"})
    assert (status, answer["error"]["code"]) == (409, -32009)
    status, answer = call(server, "tasks/resume", {"id": "task_1"})
    assert (status, answer["error"]["code"]) == (409, -32009)
    assert ask(server, "tasks/delete", {"id": "task_1"})["status"] == "canceled"
    assert call(server, "tasks/get", {"id": "task_1"})[0] == 404


def frames(server: Server, method: str, params: Any) -> list[dict[str, Any]]:
    body = {"jsonrpc": "2.0", "id": "r1", "method": method, "params": params}
    with server.stream("POST", "tasks/agent", json=body) as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        found = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: ")]
    assert all((frame["jsonrpc"], frame["id"]) == ("2.0", "r1") for frame in found)
    events = [frame["result"] for frame in found]
    if events and events[0]["type"] == "task.created":
        del events[0]["task"]  # it may show what became of it meanwhile
    return events


def test_a_stream_is_subscribed_to_and_subscribed_to_again(server: Server) -> None:
    params = {"id": "task_1", "session_id": "s", "payload": {"user_message_content": TEXT, "client_tools": [READ_FILE]}}
    events = frames(server, "tasks/createSubscribe", params)
    assert (events[0]["type"], events[-1]["type"]) == ("task.created", "task.input_required")
    assert frames(server, "tasks/resubscribe", {"id": "task_1"}) == events
    assert frames(server, "tasks/resubscribe", {"id": "task_1", "after": 2}) == events[2:]
    assert frames(server, "tasks/createSubscribe", params) == events
    results = [result(call_id, "fine") for call_id in events[-1]["input_required_call_ids"]]
    followed = {"id": "task_2", "session_id": "s", "payload": {"tool_results": results}}
    assert frames(server, "tasks/createSubscribe", followed)[-1]["type"] == "task.completed"


ERRORS: list[tuple[str, Any, int, int]] = [
    ("tasks/get", {"id": "task_probe"}, 404, -32001),
    ("tasks/get", {"id": "\x00"}, 404, -32001),
    ("tasks/get", {"id": ""}, 400, -32602),
    ("tasks/get", {}, 400, -32602),
    ("tasks/cancel", {"id": "task_none"}, 404, -32001),
    ("tasks/resubscribe", {"id": "task_none"}, 404, -32001),
    ("tasks/resubscribe", {"id": "task_none", "after": -1}, 400, -32602),
    ("tasks/create", {"payload": {"x": 1}}, 400, -32602),
    ("tasks/createSubscribe", {"payload": {"x": 1}}, 400, -32602),
    ("tasks/create", {"payload": {"tool_results": [result("c", "x")]}, "session_id": "s"}, 400, -32602),
    ("tasks/create", {"id": "a/b", "payload": {"user_message_content": "x"}}, 400, -32602),
    ("tasks/create", {}, 400, -32602),
    ("tasks/list", {"limit": 0}, 400, -32602),
    ("tasks/pushNotification/set", {"id": "task_none"}, 501, -32003),
    ("tasks/pushNotification/get", {"id": "task_none"}, 501, -32003),
    ("tasks/nothing", {}, 404, -32601),
    ("tasks/get", [], 400, -32600),
]


def test_errors_have_code_and_status(server: Server) -> None:
    for method, params, status, code in ERRORS:
        found, answer = call(server, method, params)
        assert (found, answer["error"]["code"], answer["id"]) == (status, code, "r1"), (method, params)
        assert answer["error"]["message"]
        assert "result" not in answer


NO_REQUESTS: list[tuple[bytes, int, Any]] = [
    (b"{", -32602, None),
    (b"[]", -32602, None),
    (b'{"jsonrpc": "2.0", "method": "tasks/get"}', -32600, None),
    (b'{"jsonrpc": "2.0", "id": true, "method": "tasks/get"}', -32600, None),
    (b'{"jsonrpc": "1.0", "id": "a", "method": "tasks/get"}', -32600, "a"),
    (b'{"jsonrpc": "2.0", "id": 3, "method": 7}', -32600, 3),
]


def test_what_is_no_request_is_refused(server: Server) -> None:
    for raw, code, known_as in NO_REQUESTS:
        response = server.post("tasks/agent", content=raw)
        assert response.status_code == 400
        assert (response.json()["error"]["code"], response.json()["id"]) == (code, known_as), raw


def test_the_other_methods_of_the_path_are_about_a_task_of_that_name(server: Server) -> None:
    assert server.get("tasks/agent").status_code == 404
    server.make("Paris", task_id="agent")
    assert server.task("agent")["id"] == "agent"
    assert server.delete("tasks/agent").status_code == 200
