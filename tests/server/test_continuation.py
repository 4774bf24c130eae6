"""Tool results: every form, in parts, twice, too late, and where they do not belong."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentlin_bridge.server.agent import Conversation, Item, answer, tool_call

from .agents import READ_FILE, Scripted, result, tool_message, weather
from .conftest import Server, Serving


def as_items(results: dict[str, str]) -> dict[str, Any]:
    return {"thought_messages": [result(*pair) for pair in results.items()]}


def as_messages(results: dict[str, str]) -> dict[str, Any]:
    return {"thought_messages": [tool_message(*pair) for pair in results.items()]}


def as_message_parts(results: dict[str, str]) -> dict[str, Any]:
    return {
        "thought_messages": [
            {"role": "assistant", "content": [], "tool_calls": []},
            *(tool_message(call_id, [{"type": "text", "text": text}]) for call_id, text in results.items()),
            {"role": "user", "content": "go on"},
        ]
    }


def as_tool_results(results: dict[str, str]) -> dict[str, Any]:
    return {"tool_results": [result(*pair) for pair in results.items()]}


@pytest.mark.parametrize("form", [as_items, as_messages, as_message_parts, as_tool_results])
def test_results_continue_the_turn_in_a_new_task(server: Server, form: Any) -> None:
    asked = server.make("Paris Rome", session_id="s", user_id="u")
    first, second = asked["input_required_call_ids"]
    task = server.make([], session_id="s", **form({second: "rain", first: "sun"}))
    assert task["status"] == "completed"
    assert [item["content"] for item in task["output"]] == ["sun | rain"]
    assert (task["previous_task_id"], task["session_id"], task["user_id"]) == (asked["id"], "s", "u")
    assert task["usage"]["tool_calls"] == 0
    before = server.task(asked["id"])
    assert before["metadata"] == {"continued_by": task["id"]}
    assert {**before, "metadata": None} == {**asked, "metadata": None}


def test_the_previous_task_alone_names_the_session(server: Server) -> None:
    asked = server.make("Paris")
    task = server.post(
        "tasks/",
        json={"previous_task_id": asked["id"], **as_tool_results({asked["input_required_call_ids"][0]: "sun"})},
    ).json()["result"]
    assert (task["status"], task["session_id"]) == ("completed", asked["session_id"])


def test_partial_results_are_kept(serving: Serving) -> None:
    agent = Scripted(weather)
    server = serving(agent)
    asked = server.make("Paris Rome Oslo", session_id="s")
    first, second, third = asked["input_required_call_ids"]
    part = server.make([], session_id="s", **as_items({second: "rain"}))
    assert part["status"] == "input-required"
    assert part["input_required_call_ids"] == [first, third]
    assert part["output"] == [asked["output"][0], asked["output"][2]]
    assert part["usage"]["tool_calls"] == 0
    assert len(agent.seen) == 1, "the agent is not asked before all results are there"
    rest = server.make([], session_id="s", **as_items({third: "snow", second: "again", first: "sun"}))
    assert rest["previous_task_id"] == part["id"]
    assert rest["output"][0]["content"] == "sun | rain | snow"
    assert len(agent.seen[-1].rounds) == 1


def test_a_repeated_delivery_starts_nothing(serving: Serving) -> None:
    agent = Scripted(weather)
    server = serving(agent)
    asked = server.make("Paris", session_id="s")
    results = as_items({asked["input_required_call_ids"][0]: "sun"})
    task = server.make([], session_id="s", task_id="task_2", **results)
    assert server.make([], session_id="s", task_id="task_2", **results) == task
    assert server.make([], session_id="s", task_id="task_3", **results) == task
    assert server.get("tasks/task_3").status_code == 404
    assert len(agent.seen) == 2


def test_concurrent_deliveries_run_the_agent_once(serving: Serving) -> None:
    agent = Scripted(weather)
    server = serving(agent)
    asked = server.make("Paris", session_id="s")
    results = as_items({asked["input_required_call_ids"][0]: "sun"})
    with ThreadPoolExecutor(8) as pool:
        tasks = list(pool.map(lambda _: server.make([], session_id="s", **results), range(8)))
    assert len({task["id"] for task in tasks}) == 1
    assert tasks[0]["status"] == "completed"
    assert len(agent.seen) == 2


def test_unknown_calls_are_refused_and_nothing_is_kept(server: Server) -> None:
    asked = server.make("Paris Rome", session_id="s")
    first, second = asked["input_required_call_ids"]
    status, error = server.refuse([], session_id="s", **as_items({first: "sun", "call_x": "?"}))
    assert (status, error["code"]) == (400, -32602)
    assert "'call_x'" in error["message"]
    assert first in error["message"]
    assert second in error["message"]
    assert [task["id"] for task in server.get("tasks").json()["result"]] == [asked["id"]]
    part = server.make([], session_id="s", **as_items({second: "rain"}))
    assert part["input_required_call_ids"] == [first]


@pytest.mark.parametrize(
    ("body", "status", "problem"),
    [
        ({"session_id": "s"}, 400, "answered twice"),
        ({"session_id": "nowhere"}, 400, "no open tool call"),
        ({}, 400, "need the session_id"),
        ({"session_id": "s", "previous_task_id": "task_none"}, 404, "no task 'task_none'"),
        ({"session_id": "nowhere", "previous_task_id": "task_1"}, 400, "another session"),
        ({"session_id": "s", "previous_task_id": "task_0"}, 400, "no open tool call"),
    ],
)
def test_results_in_the_wrong_place_are_refused(
    server: Server, body: dict[str, Any], status: int, problem: str
) -> None:
    earlier = server.make("Rome", session_id="s", task_id="task_0")
    server.make([], session_id="s", **as_items({earlier["input_required_call_ids"][0]: "sun"}))
    asked = server.make("Paris", session_id="s", task_id="task_1")
    (call_id,) = asked["input_required_call_ids"]
    results = [result(call_id, "sun")] * (2 if problem == "answered twice" else 1)
    refused, error = server.refuse([], thought_messages=results, **body)
    assert refused == status
    assert problem in error["message"]
    assert server.task("task_1") == asked


def test_a_plain_message_drops_what_was_pending(server: Server) -> None:
    asked = server.make("Paris", session_id="s")
    other = server.make("Rome", session_id="s")
    assert other["status"] == "input-required"
    dropped = server.task(asked["id"])
    assert dropped["status"] == "canceled"
    assert "replaced" in dropped["error"]["message"]
    status, error = server.refuse([], session_id="s", **as_items({asked["input_required_call_ids"][0]: "sun"}))
    assert status == 400
    assert other["input_required_call_ids"][0] in error["message"]
    done = server.make([], session_id="s", **as_items({other["input_required_call_ids"][0]: "sun"}))
    assert done["status"] == "completed"


def test_a_plain_message_may_name_the_task_before_it(server: Server) -> None:
    asked = server.make("Paris")
    done = server.make([], previous_task_id=asked["id"], **as_items({asked["input_required_call_ids"][0]: "sun"}))
    later = server.make("Rome", previous_task_id=done["id"])
    assert (later["session_id"], later["previous_task_id"]) == (asked["session_id"], done["id"])
    assert "metadata" not in server.task(done["id"])


def test_a_continued_task_is_canceled_through_the_one_that_continued_it(server: Server) -> None:
    asked = server.make("Paris Rome", session_id="s")
    part = server.make([], session_id="s", **as_items({asked["input_required_call_ids"][0]: "sun"}))
    refused = server.post(f"tasks/{asked['id']}/cancel")
    assert refused.status_code == 409
    assert part["id"] in refused.json()["message"]
    assert server.post(f"tasks/{part['id']}/cancel").json()["status"] == "canceled"


def test_deleting_a_link_ends_its_turn(server: Server) -> None:
    asked = server.make("Paris Rome", session_id="s")
    first, second = asked["input_required_call_ids"]
    part = server.make([], session_id="s", **as_items({first: "sun"}))
    assert server.delete(f"tasks/{asked['id']}").status_code == 200
    assert server.task(part["id"])["status"] == "canceled"
    assert server.refuse([], session_id="s", **as_items({second: "rain"}))[0] == 400
    assert server.make("Oslo", session_id="s")["status"] == "input-required"


def rounds(conversation: Conversation) -> Sequence[Item]:
    """Three rounds of one call; then what every round brought, and with which tools."""
    if len(conversation.rounds) < 3:
        return [answer("thinking"), tool_call("read_file", "{}")]
    texts = [result.text for step in conversation.rounds for result in step.results]
    notes = [item.text for step in conversation.rounds for item in step.note]  # type: ignore[attr-defined]
    return [answer(f"{texts} {notes} {[tool.name for tool in conversation.client_tools]}")]


def test_many_rounds_and_what_came_with_them(serving: Serving) -> None:
    agent = Scripted(rounds)
    server = serving(agent)
    task = server.make("go", session_id="s", client_tools=[READ_FILE])
    for number in range(3):
        assert [item["type"] for item in task["output"]] == ["message", "tool_call"]
        note = "by the way" if number == 1 else []
        task = server.make(note, session_id="s", **as_items({task["input_required_call_ids"][0]: f"r{number}"}))
    assert task["output"][0]["content"] == "['r0', 'r1', 'r2'] ['by the way'] ['read_file']"
    step = agent.seen[-1].rounds[0]
    assert step.result_of(step.results[0].call_id) is step.results[0]
    assert step.result_of("call_none") is None
    followed = server.make("and now", session_id="s")
    assert followed["status"] == "input-required"
    assert len(agent.seen[-1].earlier[0].rounds) == 3
    assert agent.seen[-1].client_tools == ()


def test_call_ids_an_agent_chooses_are_kept_and_made_distinct(serving: Serving) -> None:
    def step(conversation: Conversation) -> Sequence[Item]:
        if conversation.rounds:
            return [answer(conversation.rounds[0].results[0].text)]
        call = tool_call("f", "{}").model_copy(update={"call_id": "mine"})
        return [call, call]

    server = serving(Scripted(step))
    asked = server.make("go", session_id="s")
    first, second = asked["input_required_call_ids"]
    assert first == "mine"
    assert second.startswith("call_")
    results = as_items({"mine": "one", second: "x"})
    done = server.make([], session_id="s", **results)
    assert done["output"][0]["content"] == "one"
    again = server.make("go", session_id="s")
    third, fourth = again["input_required_call_ids"]
    assert len({"mine", second, third, fourth}) == 4, "in a session an id is used once"
    assert server.make([], session_id="s", **results) == done, "a result that comes again answers no other call"
    assert server.task(again["id"])["status"] == "input-required"
    last = server.make([], session_id="s", **as_items({third: "two", fourth: "x"}))
    assert last["output"][0]["content"] == "two"


def test_deleting_the_consumer_of_results_leaves_nothing_open(server: Server) -> None:
    asked = server.make("Paris", session_id="s")
    results = as_items({asked["input_required_call_ids"][0]: "sun"})
    done = server.make([], session_id="s", **results)
    server.delete(f"tasks/{done['id']}")
    assert server.refuse([], session_id="s", **results)[0] == 400
    before = server.task(asked["id"])
    assert (before["status"], "metadata" in before) == ("canceled", False)
    assert done["id"] in before["error"]["message"]
    assert server.make("Rome", session_id="s")["status"] == "input-required"
