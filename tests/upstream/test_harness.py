"""What the published server really does, as far as the bridge relies on it, and that the harness shows it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from .conftest import StartUpstream, Upstream

Json = dict[str, Any]

GET_WEATHER: Json = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
PNG = "data:image/png;base64,AA=="


def new(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex[:8]}"


def text(what: str) -> Json:
    return {"type": "text", "text": what}


def image(url: str) -> Json:
    return {"type": "image_url", "image_url": {"url": url}}


def tool(call_id: str, *parts: Json | str) -> Json:
    content = [text(part) if isinstance(part, str) else part for part in parts]
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def said(task: Json) -> str:
    return "".join(item["content"] for item in task["output"] if item["type"] == "message")


def calls(task: Json) -> list[str]:
    return [item["call_id"] for item in task["output"] if item["type"] == "tool_call"]


class Talk:
    """One session with a server."""

    def __init__(self, upstream: Upstream, http: httpx.Client) -> None:
        self.upstream = upstream
        self.http = http
        self.session = new("sess")

    def body(self, what: str, *, stream: bool) -> Json:
        return {
            "user_message_content": [text(what)],
            "client_tools": [GET_WEATHER],
            "task_id": new("task"),
            "session_id": self.session,
            "user_id": "u",
            "stream": stream,
        }

    def create(self, what: str) -> Json:
        body = self.body(what, stream=False)
        answer = self.http.post(f"{self.upstream.base_url}/tasks/", json=body)
        assert answer.status_code == 200, answer.text
        return self.checked(answer, body["task_id"])

    def stream(self, what: str) -> list[Json]:
        body = self.body(what, stream=True)
        with self.http.stream("POST", f"{self.upstream.base_url}/tasks/", json=body) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            frames = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
        return [frame["result"] for frame in frames if frame["result"]["task_id"] == body["task_id"]]

    def rpc(self, method: str, task_id: str, previous: str, thoughts: list[Json], **payload: Any) -> httpx.Response:
        params = {
            "id": task_id,
            "session_id": self.session,
            "user_id": "u",
            "payload": {
                "client_id": "c",
                "user_message_content": [],
                "previous_task_id": previous,
                "client_tools": [GET_WEATHER],
                "thought_messages": thoughts,
                **payload,
            },
        }
        body = {"jsonrpc": "2.0", "id": new("req"), "method": method, "params": params}
        return self.http.post(f"{self.upstream.base_url}/tasks/agent", json=body)

    def follow(self, previous: str, thoughts: list[Json], **payload: Any) -> Json:
        answer = self.rpc("tasks/create", task_id := new("task"), previous, thoughts, **payload)
        assert answer.status_code == 200, answer.text
        return self.checked(answer, task_id)

    def checked(self, answer: httpx.Response, task_id: str) -> Json:
        task: Json = answer.json()["result"]
        assert task["id"] == task_id
        return task

    def get(self, task_id: str) -> Json:
        answer = self.http.get(f"{self.upstream.base_url}/tasks/{task_id}")
        assert answer.status_code == 200
        found: Json = answer.json()
        return found

    def shape(self, task_id: str) -> list[str]:
        """The prompt of the task's last model request."""
        return self.upstream.model.of(task_id)[-1].shape


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture
def talk(upstream: Upstream, http: httpx.Client) -> Talk:
    return Talk(upstream, http)


def test_the_backend_is_the_one_asked_for(talk: Talk) -> None:
    task = talk.create("hello")
    (asked,) = talk.upstream.model.requests
    assert asked.path == ("/v1/responses" if talk.upstream.backend == "responses" else "/v1/chat/completions")
    assert bool(asked.body.get("stream")) == (talk.upstream.backend == "chat-stream")
    assert (asked.task_id, asked.session_id) == (task["id"], talk.session)
    assert {"get_weather", "echo", "sleep", "Task", "Bash"} <= set(asked.tools)


def test_a_text_answer(talk: Talk) -> None:
    task = talk.create("hello")
    assert (task["status"], said(task)) == ("completed", "Answer to: hello")
    assert talk.shape(task["id"]) == ["system", "user"]


def test_a_text_answer_as_a_stream(talk: Talk) -> None:
    events = talk.stream("hello")
    assert [event["type"] for event in events] == [
        "task.created",
        "task.working",
        "task.tools_updated",
        "task.output_item.added",
        "task.output_item.done",
        "task.completed",
    ]
    assert said(events[-1]["task"]) == "Answer to: hello"


def test_one_call_is_answered_over_json_rpc(talk: Talk) -> None:
    waiting = talk.create("weather Paris")
    (call,) = calls(waiting)
    assert (waiting["status"], waiting["input_required_call_ids"]) == ("input-required", [call])
    assert json.loads(waiting["output"][-1]["arguments"]) == {"city": "Paris"}

    task = talk.follow(waiting["id"], [tool(call, "sunny, ", "21 C")])
    assert (task["status"], said(task)) == ("completed", "Results: sunny, 21 C")
    assert task["previous_task_id"] == waiting["id"]
    assert talk.shape(task["id"]) == ["system", "user", f"assistant {call}", f"tool {call}"]
    assert talk.get(waiting["id"])["result"]["status"] == "input-required"


def test_results_over_json_rpc_as_a_stream(talk: Talk) -> None:
    waiting = talk.create("weather Paris")
    answer = talk.rpc("tasks/createSubscribe", new("task"), waiting["id"], [tool(calls(waiting)[0], "sunny")])
    events = [json.loads(line[6:])["result"] for line in answer.text.splitlines() if line.startswith("data: ")]
    assert events[-1]["type"] == "task.completed"
    assert said(events[-1]["task"]) == "Results: sunny"


def test_two_calls_in_either_order(talk: Talk) -> None:
    waiting = talk.create("weather Paris and Rome")
    paris, rome = calls(waiting)
    assert waiting["input_required_call_ids"] == [paris, rome]
    task = talk.follow(waiting["id"], [tool(rome, "rain"), tool(paris, "sun")])
    assert (task["status"], said(task)) == ("completed", "Results: rain | sun")


def test_one_of_two_results_is_kept(talk: Talk) -> None:
    waiting = talk.create("weather Paris and Rome")
    paris, rome = calls(waiting)
    failed = talk.follow(waiting["id"], [tool(paris, "sun")])
    wording = "No tool output found" if talk.upstream.backend == "responses" else "must be followed by tool messages"
    assert failed["status"] == "failed"
    assert wording in failed["error"]["message"]
    assert rome in failed["error"]["message"]
    task = talk.follow(waiting["id"], [tool(rome, "rain")])
    assert (task["status"], said(task)) == ("completed", "Results: sun | rain")


def test_a_chain(talk: Talk) -> None:
    task = talk.create("chain 3")
    for result in ["one", "two", "three"]:
        assert task["status"] == "input-required"
        (call,) = calls(task)
        task = talk.follow(task["id"], [tool(call, result)])
    assert (task["status"], said(task)) == ("completed", "Results: one | two | three")


def test_a_mixed_turn_wants_all_its_answers(talk: Talk) -> None:
    waiting = talk.create("weather Paris and echo hi")
    weather, echo = calls(waiting)
    assert waiting["status"] == "input-required"
    assert waiting["input_required_call_ids"] == [weather]
    assert [item["type"] for item in waiting["output"]] == ["tool_call", "tool_call"]
    task = talk.follow(waiting["id"], [tool(weather, "sun"), tool(echo, "not executed")])
    assert (task["status"], said(task)) == ("completed", "Results: sun | not executed")


def test_the_servers_own_tools_and_its_subagent(talk: Talk) -> None:
    assert said(talk.create("echo hi")) == "Results: echo: hi"
    assert said(talk.create("sleep 0.1")) == "Results: slept 0.1 s"
    assert said(talk.create("delegate echo deeper")) == "Results: Results: echo: deeper"


def test_a_failed_subagent_comes_back_instead_of_the_task(talk: Talk) -> None:
    body = talk.body("delegate fail 401", stream=False)
    answer = talk.http.post(f"{talk.upstream.base_url}/tasks/", json=body).json()["result"]
    assert (answer["status"], answer["id"][:5]) == ("failed", "call_")
    assert talk.get(body["task_id"])["result"]["status"] == "created"


def test_an_image_inside_a_result(talk: Talk) -> None:
    """Only the responses backend moves it to a user message; chat sends it as it is, and OpenAI refuses that."""
    waiting = talk.create("weather Paris")
    (call,) = calls(waiting)
    task = talk.follow(waiting["id"], [tool(call, "a map", image(PNG))])
    if talk.upstream.backend == "responses":
        assert (task["status"], said(task)) == (
            "completed",
            "Results: the output will be in the next message | a map | [image/png]",
        )
        assert talk.shape(task["id"])[-2:] == [f"tool {call}", "user"]
        assert talk.upstream.model.of(task["id"])[-1].messages[-1].images == [PNG]
    else:
        assert task["status"] == "failed"
        assert "Image URLs are only allowed for messages with role 'user'" in task["error"]["message"]


def test_an_image_after_all_results(talk: Talk) -> None:
    """The form that works with every backend."""
    waiting = talk.create("weather Paris and Rome")
    paris, rome = calls(waiting)
    shown = {"role": "user", "content": [text("the map of Paris"), image(PNG)]}
    task = talk.follow(waiting["id"], [tool(paris, "see the image"), tool(rome, "rain"), shown])
    assert (task["status"], said(task)) == (
        "completed",
        "Results: see the image | rain | the map of Paris | [image/png]",
    )
    assert talk.upstream.model.of(task["id"])[-1].messages[-1].images == [PNG]


def test_arguments_that_are_not_json(talk: Talk) -> None:
    waiting = talk.create("bad args")
    assert (waiting["status"], waiting["output"][-1]["arguments"]) == ("input-required", "{not json")
    task = talk.follow(waiting["id"], [tool(calls(waiting)[0], "ERROR: not JSON")])
    assert (task["status"], said(task)) == ("completed", "Results: ERROR: not JSON")


@pytest.mark.parametrize("status", [401, 500])
def test_a_model_that_fails_at_once(talk: Talk, status: int) -> None:
    task = talk.create(f"fail {status}")
    assert task["status"] == "failed"
    assert "scripted failure" in task["error"]["message"]
    assert len(talk.upstream.model.of(task["id"])) == 1


def test_a_model_that_fails_once_with_the_results_is_nudged(talk: Talk) -> None:
    waiting = talk.create("weather Paris, then fail 500 once")
    (call,) = calls(waiting)
    assert talk.follow(waiting["id"], [tool(call, "sun")])["status"] == "failed"
    task = talk.follow(waiting["id"], [{"role": "user", "content": [text("continue")]}])
    assert (task["status"], said(task)) == ("completed", "Results: sun")
    assert talk.shape(task["id"]) == ["system", "user", f"assistant {call}", f"tool {call}", "user"]


def test_results_resent_after_a_failure_do_harm(talk: Talk) -> None:
    waiting = talk.create("weather Paris, then fail 500 once")
    result = tool(calls(waiting)[0], "sun")
    assert talk.follow(waiting["id"], [result])["status"] == "failed"
    failed = talk.follow(waiting["id"], [result])
    wording = "No tool call found" if talk.upstream.backend == "responses" else "must be a response to a prece"
    assert failed["status"] == "failed"
    assert wording in failed["error"]["message"]


def test_a_model_that_always_fails_with_the_results(talk: Talk) -> None:
    task = talk.create("weather Paris, then fail 401")
    thoughts = [tool(calls(task)[0], "sun")]
    for _ in range(2):
        task = talk.follow(task["id"], thoughts)
        assert task["status"] == "failed"
        assert "scripted failure" in task["error"]["message"]
        thoughts = [{"role": "user", "content": [text("continue")]}]


def test_a_forgotten_session_is_silently_a_new_one(talk: Talk) -> None:
    waiting = talk.create("weather Paris")
    (call,) = calls(waiting)
    talk.upstream.forget()
    assert talk.get(waiting["id"])["error"]["code"] == -32001
    failed = talk.follow(waiting["id"], [tool(call, "sun")])
    wording = "No tool call found" if talk.upstream.backend == "responses" else "must be a response to a prece"
    assert failed["status"] == "failed"
    assert wording in failed["error"]["message"]
    assert talk.shape(failed["id"]) == ["system", f"tool {call}"]


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_replay_completes_in_a_fresh_session(talk: Talk, rounds: int) -> None:
    task = talk.create(f"chain {rounds}")
    thoughts: list[Json] = []
    for number in range(rounds):
        (item,) = [item for item in task["output"] if item["type"] == "tool_call"]
        function = {"name": item["name"], "arguments": item["arguments"]}
        call = {"id": item["call_id"], "type": "function", "function": function}
        result = tool(item["call_id"], f"result {number}")
        thoughts += [{"role": "assistant", "content": [], "tool_calls": [call]}, result]
        if number < rounds - 1:
            task = talk.follow(task["id"], [result])
    talk.upstream.forget()

    talk.session = new("sess")
    asked = {"role": "user", "content": [text(f"chain {rounds}")]}
    task = talk.follow(task["id"], thoughts, history_messages=[asked])
    assert (task["status"], said(task)) == ("completed", "Results: " + " | ".join(f"result {n}" for n in range(rounds)))
    assert [name.split()[0] for name in talk.shape(task["id"])] == ["system", "user", *["assistant", "tool"] * rounds]


def test_a_running_task_reads_created_and_cannot_be_canceled(talk: Talk) -> None:
    body = talk.body("hold", stream=False)
    url = f"{talk.upstream.base_url}/tasks"
    with ThreadPoolExecutor(1) as elsewhere:
        answer = elsewhere.submit(httpx.post, f"{url}/", json=body, timeout=30, trust_env=False)
        talk.upstream.model.wait_for(body["task_id"])
        assert talk.get(body["task_id"])["result"]["status"] == "created"
        refused = talk.http.post(f"{url}/{body['task_id']}/cancel")
        assert (refused.status_code, refused.json()["code"]) == (404, -32002)
        talk.upstream.model.release()
        assert said(answer.result().json()["result"]) == "Answer to: hold"
    assert talk.get(body["task_id"])["result"]["status"] == "completed"


def test_what_cannot_be_found_or_canceled(talk: Talk) -> None:
    assert talk.get("task_nobody_made")["error"]["code"] == -32001
    for task_id, code in [(talk.create("hello")["id"], -32002), ("task_nobody_made", -32001)]:
        refused = talk.http.post(f"{talk.upstream.base_url}/tasks/{task_id}/cancel")
        assert (refused.status_code, refused.json()["code"]) == (404, code)


def test_the_model_is_not_offered_tools_that_are_not_sent_again(talk: Talk) -> None:
    waiting = talk.create("chain 2")
    task = talk.follow(waiting["id"], [tool(calls(waiting)[0], "one")], client_tools=[])
    assert said(task) == "I was not given the tool get_weather."


def test_reasoning_is_an_item_where_the_backend_keeps_it(talk: Talk) -> None:
    task = talk.create("reason about it")
    kinds = [item["type"] for item in task["output"]]
    assert kinds == (["message"] if talk.upstream.backend == "chat" else ["reasoning", "message"])


def test_errors_with_and_without_the_servers_exception_handlers(
    start_upstream: StartUpstream, http: httpx.Client
) -> None:
    def errors(upstream: Upstream) -> list[tuple[int, set[str]]]:
        url = f"{upstream.base_url}/tasks"
        answers = [http.post(f"{url}/", json={}), http.get(f"{url}/")]
        return [(answer.status_code, set(answer.json())) for answer in answers]

    assert errors(start_upstream()) == [
        (422, {"success", "message", "data", "errors"}),
        (400, {"success", "message", "data"}),
    ]
    assert errors(start_upstream(handlers=False)) == [(422, {"detail"}), (400, {"detail"})]
