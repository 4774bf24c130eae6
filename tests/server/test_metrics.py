"""Health and metrics."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.exc import OperationalError

from agentlin_bridge.server.records.store import Store

from .agents import eventually
from .conftest import Server, Serving


def metrics(server: Server) -> dict[tuple[str, ...], float]:
    """Every sample by its name and its labels' values."""
    response = httpx.get(server.url.removesuffix("/v1") + "/metrics", headers=server.headers)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(response.text)
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def test_requests_are_counted_and_timed(server: Server) -> None:
    server.make("Paris", task_id="task_1", session_id="secret-session", user_id="secret-user")
    server.get("tasks/task_none")
    server.get("nothing")
    server.post("tasks", json={"user_message_content": "Rome", "stream": True})
    found = metrics(server)
    assert found["agentlin_requests_total", "create_task", "200"] == 2
    assert found["agentlin_requests_total", "retrieve_task", "404"] == 1
    assert found["agentlin_requests_total", "none", "404"] == 1
    assert found["agentlin_request_seconds_count", "create_task"] == 2
    assert found["agentlin_request_seconds_sum", "create_task"] > 0
    assert found["agentlin_open_requests",] == 1
    assert found["agentlin_event_streams",] == 0
    assert found["agentlin_events_total",] == 4
    assert found["agentlin_tasks", "input-required"] == 2
    labels = {label for sample in found for label in sample[1:]}
    assert not labels & {"task_1", "secret-session", "secret-user"}
    assert server.delete("tasks/task_1").status_code == 200
    assert metrics(server)["agentlin_tasks", "input-required"] == 1


def test_a_status_that_no_task_has_any_more_reads_zero(server: Server) -> None:
    server.make("Paris", task_id="task_1")
    assert metrics(server)["agentlin_tasks", "input-required"] == 1
    server.post("tasks/task_1/cancel")
    found = metrics(server)
    assert (found["agentlin_tasks", "input-required"], found["agentlin_tasks", "canceled"]) == (0, 1)


def test_metrics_are_for_those_with_a_key(serving: Serving) -> None:
    server = serving(api_key="secret")
    url = server.url.removesuffix("/v1") + "/metrics"
    assert httpx.get(url).status_code == 401
    assert "agentlin_open_requests" in server.get(url).text
    assert "secret" not in server.get(url).text


def test_metrics_are_no_business_of_web_pages(server: Server) -> None:
    url = server.url.removesuffix("/v1") + "/metrics"
    assert server.get(url, headers={"Origin": "https://evil.example"}).status_code == 403


def test_a_request_that_meets_a_bug_is_counted(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def explode(*_: object) -> None:
        raise RuntimeError("inside information")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "page", explode)
        assert server.get("tasks").status_code == 500
    eventually(lambda: metrics(server).get(("agentlin_requests_total", "list_tasks", "500")) == 1)


def test_health_tells_of_the_database(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.url.removesuffix("/v1") + "/healthz"
    healthy = server.get(url)
    assert (healthy.status_code, healthy.json()["status"], healthy.json()["database"]) == (200, "ok", "ok")

    async def lost(_: Store) -> None:
        raise OperationalError("SELECT 1", {}, Exception("disk gone, with a secret path"))

    monkeypatch.setattr(Store, "ping", lost)
    sick = server.get(url)
    assert (sick.status_code, sick.json()["status"], sick.json()["database"]) == (503, "unavailable", "unavailable")
    assert "secret" not in sick.text


def test_health_does_not_wait_for_ever(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    import anyio

    from agentlin_bridge.server.web import app

    async def stuck(_: Store) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr(app, "HEALTH_TIMEOUT", 0.05)
    monkeypatch.setattr(Store, "ping", stuck)
    assert server.get(server.url.removesuffix("/v1") + "/healthz").status_code == 503
