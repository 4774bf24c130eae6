"""Listing: filters that narrow, and pages that end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import given, settings
from hypothesis import strategies as st

from agentlin_bridge.server.process import ServeOptions, serve

from .agents import Scripted, result, weather
from .conftest import Server

ROUNDS = 12


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with 24 tasks: 12 that wait or were continued, 12 that are completed."""
    options = ServeOptions(database=Path(tmp_path_factory.mktemp("list")) / "db", agent=Scripted(weather))
    with start_blocking_portal() as portal:
        future, url = portal.start_task(serve, options)
        with Server(base_url=url, timeout=10) as server:
            for number in range(ROUNDS):
                names = {"session_id": f"s{number % 3}", "user_id": f"u{number % 2}"}
                asked = server.make("Paris", task_id=f"asked_{number}", **names)
                answer = result(asked["input_required_call_ids"][0], "sun")
                server.make([], task_id=f"done_{number}", thought_messages=[answer], **names)
            yield server
        future.cancel()


NEWEST_FIRST = [f"{kind}_{number}" for number in reversed(range(ROUNDS)) for kind in ("done", "asked")]


def page(server: Server, **params: Any) -> tuple[list[str], bool]:
    response = server.get("tasks", params=params)
    assert response.status_code == 200, response.text
    return [task["id"] for task in response.json()["result"]], response.json()["has_more"]


def test_the_newest_come_first_and_twenty_at_a_time(full: Server) -> None:
    assert page(full) == (NEWEST_FIRST[:20], True)
    assert page(full, limit=100) == (NEWEST_FIRST, False)


@settings(max_examples=25, deadline=None)
@given(limit=st.integers(1, 30))
def test_paging_forward_visits_every_task_exactly_once(full: Server, limit: int) -> None:
    seen: list[str] = []
    more = True
    while more:
        cursor = {"starting_after": seen[-1]} if seen else {}
        ids, more = page(full, limit=limit, **cursor)
        assert len(ids) == limit or not more
        seen += ids
    assert seen == NEWEST_FIRST
    assert page(full, starting_after=seen[-1]) == ([], False)


@settings(max_examples=25, deadline=None)
@given(limit=st.integers(1, 30), start=st.integers(0, len(NEWEST_FIRST) - 1))
def test_paging_backward_returns_the_page_just_before(full: Server, limit: int, start: int) -> None:
    ids, more = page(full, limit=limit, ending_before=NEWEST_FIRST[start])
    assert ids == NEWEST_FIRST[max(0, start - limit) : start]
    assert more == (start > limit)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"session_id": "s1"}, lambda kind, n: n % 3 == 1),
        ({"user_id": "u0"}, lambda kind, n: n % 2 == 0),
        ({"session_id": "s1", "user_id": "u0"}, lambda kind, n: n % 3 == 1 and n % 2 == 0),
        ({"status": "completed"}, lambda kind, n: kind == "done"),
        ({"status[]": ["completed", "failed"]}, lambda kind, n: kind == "done"),
        ({"status": ["completed", "input-required"], "user_id": "u1"}, lambda kind, n: n % 2 == 1),
        ({"status": "canceled"}, lambda kind, n: False),
        ({"session_id": "nowhere"}, lambda kind, n: False),
    ],
)
def test_filters_narrow_together(full: Server, params: dict[str, Any], expected: Any) -> None:
    wanted = [name for name in NEWEST_FIRST if expected(*[name.split("_")[0], int(name.split("_")[1])])]
    assert page(full, limit=100, **params) == (wanted, False)


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"limit": "ten"}, "limit"),
        ({"limit": "²"}, "limit"),
        ({"starting_after": "task_none"}, "no task 'task_none'"),
        ({"ending_before": "task_none"}, "no task 'task_none'"),
        ({"starting_after": "done_1", "ending_before": "done_2"}, "exclude each other"),
        ({"status": "done"}, "status"),
    ],
)
def test_bad_queries_are_refused_with_a_reason(full: Server, params: dict[str, str], problem: str) -> None:
    response = full.get("tasks", params=params)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == -32602
    assert problem in response.json()["error"]["message"]
