"""Large requests: read beside the others, and bounded in number as well as in bytes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest

from agentlin_bridge.server.protocol import request as protocol
from agentlin_bridge.server.protocol.request import MAX_MESSAGES
from agentlin_bridge.server.web import rpc, tasks_api

from .agents import Scripted, result, weather
from .conftest import Server, Serving


def history(messages: int, size: int = 1) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[n % 2], "content": "x" * size} for n in range(messages)]


def body_of(route: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
    payload = {"user_message_content": "Paris", "history_messages": messages}
    if route == "tasks":
        return {**payload, "stream": False}
    return {"jsonrpc": "2.0", "id": "r", "method": "tasks/create", "params": {"payload": payload}}


@pytest.mark.parametrize("route", ["tasks", "tasks/agent"])
@pytest.mark.parametrize("reading", ["read_json", "read_create"])
def test_others_are_served_while_a_large_body_is_read(
    server: Server, monkeypatch: pytest.MonkeyPatch, route: str, reading: str
) -> None:
    module = {"tasks": tasks_api, "tasks/agent": rpc}[route]
    real: Callable[..., Any] = getattr(protocol, reading)
    begun, go = Event(), Event()

    def held(*args: Any, **kwargs: Any) -> Any:
        begun.set()
        assert go.wait(10)
        return real(*args, **kwargs)

    monkeypatch.setattr(module, reading, held)
    with ThreadPoolExecutor() as pool:
        try:
            made = pool.submit(server.post, route, json=body_of(route, history(100, 10_000)))
            assert begun.wait(10)
            healthz = server.url.removesuffix("/v1") + "/healthz"
            assert server.get(healthz).status_code == 200
            assert not made.done()
        finally:
            go.set()
        assert made.result(20).json()["result"]["status"] == "input-required"


@pytest.mark.parametrize("route", ["tasks", "tasks/agent"])
def test_a_body_holds_so_many_messages(server: Server, route: str) -> None:
    refused = server.post(route, json=body_of(route, history(MAX_MESSAGES + 1)))
    assert refused.status_code == 413
    assert f"more than the {MAX_MESSAGES}" in refused.json()["error"]["message"]
    assert server.get("tasks").json()["result"] == []


def test_all_lists_of_messages_count_together(server: Server) -> None:
    half = MAX_MESSAGES // 2
    lists: dict[str, Any] = {
        "history_messages": history(half),
        "thought_messages": history(half),
        "tool_results": [result("c", "1")],
    }
    status, error = server.refuse("Paris", **lists)
    assert status == 413
    assert "leave out the oldest" in error["message"]


def test_as_many_as_allowed_are_served(serving: Serving) -> None:
    agent = Scripted(weather)
    asked = serving(agent).make("Paris", history_messages=history(MAX_MESSAGES))
    assert asked["status"] == "input-required"
    assert len(agent.seen[0].earlier) == MAX_MESSAGES // 2
