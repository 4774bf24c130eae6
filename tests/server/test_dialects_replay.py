"""What the dialogue in a create body means: earlier turns, replays, nudges, and what is only repeated."""

from __future__ import annotations

from typing import Any

import pytest

from agentlin_bridge.server.protocol.dialogue import Told, is_replay, told_in
from agentlin_bridge.server.protocol.refusals import Refusal
from agentlin_bridge.server.protocol.request import read_create
from agentlin_bridge.task import text_of

from .agents import Scripted, result, tool_message, weather
from .conftest import Server, Serving

Json = dict[str, Any]


def user(text: str) -> Json:
    return {"role": "user", "content": [{"type": "text", "text": text}]}


def said(text: str) -> Json:
    return {"role": "assistant", "content": text}


def called(*call_ids: str, text: str | None = None) -> Json:
    calls = [{"id": one, "type": "function", "function": {"name": f"f_{one}", "arguments": "{}"}} for one in call_ids]
    return {"role": "assistant", "content": [] if text is None else text, "tool_calls": calls}


def item(call_id: str) -> Json:
    return {"type": "tool_call", "call_id": call_id, "name": f"f_{call_id}", "arguments": "{}"}


def body(history: list[Json], thought: list[Json], content: Any = ()) -> Json:
    return {"user_message_content": list(content), "history_messages": history, "thought_messages": thought}


def shape(told: Told) -> Any:
    """Texts, call ids and results, short enough to compare."""

    def kind(one: Any) -> str:
        return str(one.text if one.type == "message" else getattr(one, "call_id", one.type))

    def of_rounds(rounds: Any) -> Any:
        return [
            (
                [kind(one) for one in step.items],
                [one.text for one in step.results],
                *([text_of(step.note)] if step.note else []),
            )
            for step in rounds
        ]

    turns = [
        (text_of(turn.user_content), of_rounds(turn.rounds), [kind(one) for one in turn.output])
        for turn in told.earlier
    ]
    return turns, text_of(told.user_content), of_rounds(told.rounds)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (body([], [], ["hello"]), ([], "hello", [])),
        (body([user("hi"), said("hello")], [], ["go"]), ([("hi", [], ["hello"])], "go", [])),
        (body([user("hi")], [], ["go"]), ([], "higo", [])),
        (body([user("hi"), said("a"), user("ho"), said("b")], []), ([("hi", [], ["a"]), ("ho", [], ["b"])], "", [])),
        (body([said("welcome"), user("hi")], []), ([("", [], ["welcome"])], "hi", [])),
        (body([{"role": "system", "content": "obey"}, user("hi")], []), ([], "hi", [])),
        (
            body([user("hi"), called("a"), tool_message("a", "1"), said("done")], [], ["go"]),
            ([("hi", [(["a"], ["1"])], ["done"])], "go", []),
        ),
        (
            body([user("hi")], [called("a", "b", text="look"), tool_message("b", "2"), tool_message("a", "1")]),
            ([], "hi", [(["look", "a", "b"], ["1", "2"])]),
        ),
        (
            body([user("hi")], [called("a"), tool_message("a", "1"), called("a"), tool_message("a", "2")]),
            ([], "hi", [(["a"], ["1"]), (["a"], ["2"])]),
        ),
        (
            body([user("hi")], [said("x"), called("a"), tool_message("a", "1"), user("see"), user("this")]),
            ([], "hi", [(["x", "a"], ["1"], "seethis")]),
        ),
        (body([], [user("hi"), called("a"), tool_message("a", "1")]), ([], "hi", [(["a"], ["1"])])),
        (
            body([user("hi")], [item("a"), item("b"), result("a", "1"), result("b", "2"), said("so")]),
            ([], "hi", [(["a", "b"], ["1", "2"]), (["so"], [])]),
        ),
        (
            body(
                [{"type": "message", "role": "user", "message_content": "hi"}],
                [{"type": "reasoning", "id": "r", "summary": []}, item("a"), result("a", "1")],
            ),
            ([], "hi", [(["reasoning", "a"], ["1"])]),
        ),
    ],
)
def test_what_is_told(given: Json, expected: Any) -> None:
    read_create(given, {}, "req")

    assert shape(told_in(given)) == expected


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (body([user("hi"), tool_message("a", "1")], []), "history_messages: the tool result 'a' follows no call"),
        (body([user("hi"), called("a")], [], ["go"]), "'a' has no result"),
        (body([user("hi")], [called("a", "b"), tool_message("a", "1")]), "'b' has no result"),
        (body([user("hi")], [called("a"), tool_message("a", "1"), called("b")]), "'b' has no result"),
    ],
)
def test_a_dialogue_with_holes_is_refused(given: Json, problem: str) -> None:
    with pytest.raises(Refusal, match=problem):
        read_create(given, {}, "req")


@pytest.mark.parametrize(
    ("given", "replay"),
    [
        (body([], [called("a"), tool_message("a", "1")]), False),
        (body([user("hi")], [called("a"), tool_message("a", "1")]), True),
        (body([user("hi")], [called("a"), tool_message("a", "1"), tool_message("b", "2")]), False),
        (body([user("hi")], [tool_message("a", "1")]), False),
        (body([user("hi")], []), False),
        ({**body([user("hi")], [called("a"), tool_message("a", "1")]), "tool_results": [result("c", "3")]}, False),
    ],
)
def test_a_replay_is_told_from_a_delivery(given: Json, replay: bool) -> None:
    assert is_replay(given) is replay
    delivered = read_create(given, {}, "req").results
    assert bool(delivered) is (not replay and bool(given["thought_messages"]))


@pytest.mark.parametrize(
    ("given", "nudge"),
    [
        (body([], [user("continue")]), True),
        (body([user("continue")], []), True),
        (body([], [user("continue")], ["new"]), False),
        (body([], [], ["new"]), False),
        (body([], [tool_message("a", "1"), user("look")]), False),
        (body([user("hi")], [called("a"), tool_message("a", "1")]), False),
    ],
)
def test_a_nudge_is_told_from_a_message(given: Json, nudge: bool) -> None:
    assert read_create(given, {}, "req").is_nudge is nudge


def test_a_session_begins_with_the_dialogue_it_is_told(serving: Serving) -> None:
    agent = Scripted(weather)
    server = serving(agent)
    history = [user("Rome"), called("a"), tool_message("a", "sun"), said("sun")]
    asked = server.make("Paris", session_id="s", history_messages=history)
    (turn,) = agent.seen[-1].earlier
    assert (text_of(turn.user_content), turn.rounds[0].results[0].text) == ("Rome", "sun")
    server.make([], session_id="s", thought_messages=[result(asked["input_required_call_ids"][0], "rain")])
    assert len(agent.seen[-1].earlier) == 1
    server.make("Oslo", session_id="s")
    assert [text_of(turn.user_content) for turn in agent.seen[-1].earlier] == ["Rome", "Paris"]


@pytest.mark.parametrize("route", ["rpc", "rest"])
def test_a_turn_is_replayed_into_a_new_session(serving: Serving, route: str) -> None:
    agent = Scripted(weather)
    server = serving(agent)
    told = body([user("Paris")], [called("a"), tool_message("a", [{"type": "text", "text": "sun"}])])
    if route == "rpc":
        params = {"id": "task_1", "session_id": "s", "payload": {**told, "previous_task_id": "task_lost"}}
        request = {"jsonrpc": "2.0", "id": "r", "method": "tasks/create", "params": params}
        task = server.post("tasks/agent", json=request).json()["result"]
    else:
        task = server.make(told.pop("user_message_content"), task_id="task_1", session_id="s", **told)
    assert (task["status"], task["output"][0]["content"]) == ("completed", "sun")
    assert server.make("Oslo", session_id="s")["status"] == "input-required"
    (turn,) = agent.seen[-1].earlier
    assert (text_of(turn.user_content), len(turn.rounds), turn.output[0].text) == ("Paris", 1, "sun")  # type: ignore[attr-defined]


def test_repeated_calls_do_not_hinder_a_delivery(server: Server) -> None:
    asked = server.make("Paris", session_id="s")
    (call_id,) = asked["input_required_call_ids"]
    done = server.make([], session_id="s", thought_messages=[called(call_id), tool_message(call_id, "sun")])
    assert (done["status"], done["output"][0]["content"]) == ("completed", "sun")
    assert done["previous_task_id"] == asked["id"]
