"""A session belongs to one round at a time: also while one that was ended is being left, and over a pause."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from pathlib import Path
from threading import Event
from typing import Any

import anyio
import httpx
import pytest
from anyio import to_thread

from agentlin_bridge.server.agent import AgentFailure, Conversation, Item, answer, tool_call
from agentlin_bridge.server.process import ServeOptions, serve
from agentlin_bridge.task import text_of

from .agents import Gated, Tooled, eventually
from .conftest import Server, Serving
from .crashing import CrashServer, read_journal


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


class Tidy(Tooled):
    """Its tool never returns, and when it is stopped tidies up until the gate is open."""

    def __init__(self) -> None:
        super().__init__(self._next, {"work": self._work})
        self.entered, self.stopped, self.gate = Event(), Event(), Event()
        self.happened: list[str] = []

    def _next(self, conversation: Conversation) -> Sequence[Item]:
        said = text_of(conversation.user_content)
        self.happened.append(said)
        return [tool_call("work", "{}") if said == "first" else answer(said)]

    async def _work(self) -> None:
        self.entered.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.stopped.set()
            with anyio.move_on_after(20, shield=True):
                while not self.gate.is_set():
                    await to_thread.run_sync(self.gate.wait, 0.02)
            self.happened.append("left")


def end(server: Server, how: str) -> None:
    if how == "cancel":
        assert server.post("tasks/task_1/cancel").status_code == 200
    elif how == "delete":
        assert server.delete("tasks/task_1").status_code == 200


@pytest.mark.parametrize("how", ["cancel", "delete", "expire"])
def test_the_next_task_waits_until_an_ended_one_is_left(serving: Serving, pool: ThreadPoolExecutor, how: str) -> None:
    agent = Tidy()
    server = serving(agent)
    pool.submit(
        server.post,
        "tasks",
        json={
            "user_message_content": "first",
            "task_id": "task_1",
            "session_id": "s",
            **({"expires_in": 0.5} if how == "expire" else {}),
        },
    )
    assert agent.entered.wait(10)
    end(server, how)
    assert agent.stopped.wait(10)
    made = pool.submit(server.make, "second", task_id="task_2", session_id="s")
    eventually(lambda: server.get("tasks/task_2").status_code == 200)
    assert server.task("task_2")["status"] == "queued"
    agent.gate.set()
    assert made.result(10)["status"] == "completed"
    assert agent.happened == ["first", "left", "second"]


def test_a_round_that_fails_while_it_is_being_canceled_is_left(
    serving: Serving, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    """The cancellation is on its way to the disk when the agent fails: the round meets nothing that stops it."""
    entered, gate = Event(), Event()

    async def fail(conversation: Conversation) -> Sequence[Item]:
        if text_of(conversation.user_content) == "second":
            return [answer("second")]
        entered.set()
        with anyio.CancelScope(shield=True):
            while not gate.is_set():
                await to_thread.run_sync(gate.wait, 0.02)
        raise AgentFailure("The provider is busy.")

    server = serving(Tooled(fail))
    pool.submit(server.make, "first", task_id="task_1", session_id="s")
    assert entered.wait(10)
    with closing(sqlite3.connect(tmp_path / "server.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        canceled = pool.submit(server.post, "tasks/task_1/cancel")
        made = pool.submit(server.make, "second", task_id="task_2", session_id="s")
        gate.set()
        eventually(lambda: server.get("tasks/task_1").status_code == 200)
        other.execute("ROLLBACK")
    assert canceled.result(10).json()["status"] in {"canceled", "failed"} or canceled.result().status_code == 409
    assert made.result(10)["status"] == "completed"


def test_a_task_of_another_session_does_not_wait_for_it(serving: Serving, pool: ThreadPoolExecutor) -> None:
    agent = Tidy()
    server = serving(agent)
    pool.submit(server.make, "first", task_id="task_1", session_id="s")
    assert agent.entered.wait(10)
    end(server, "cancel")
    assert agent.stopped.wait(10)
    assert server.make("second", session_id="t")["status"] == "completed"
    agent.gate.set()


def test_who_waits_in_the_queue_is_not_resumed_past_a_round_that_is_paused(
    serving: Serving, pool: ThreadPoolExecutor
) -> None:
    agent = Gated()
    server = serving(agent)
    pool.submit(server.make, "first", task_id="task_1", session_id="s")
    assert agent.entered.wait(10)
    pool.submit(server.make, "second", task_id="task_2", session_id="s")
    eventually(lambda: server.get("tasks/task_2").status_code == 200)
    for task_id in ("task_1", "task_2"):
        assert server.post(f"tasks/{task_id}/pause").json()["status"] == "paused"
    assert server.post("tasks/task_2/resume").json()["status"] == "queued"
    assert server.post("tasks/task_1/resume").json()["status"] == "working"
    agent.gate.set()
    eventually(lambda: server.task("task_2")["status"] == "completed")
    assert server.task("task_1")["status"] == "completed"
    assert (agent.seen, agent.most_inside) == (["first", "second"], 1)


def test_a_paused_task_in_the_queue_is_not_resumed_past_an_ended_one_that_is_not_left(
    serving: Serving, pool: ThreadPoolExecutor
) -> None:
    agent = Tidy()
    server = serving(agent)
    pool.submit(server.make, "first", task_id="task_1", session_id="s")
    assert agent.entered.wait(10)
    pool.submit(server.make, "second", task_id="task_2", session_id="s")
    eventually(lambda: server.get("tasks/task_2").status_code == 200)
    assert server.post("tasks/task_2/pause").json()["status"] == "paused"
    end(server, "cancel")
    assert agent.stopped.wait(10)
    assert server.post("tasks/task_2/resume").json()["status"] == "queued"
    agent.gate.set()
    eventually(lambda: server.task("task_2")["status"] == "completed")
    assert agent.happened == ["first", "left", "second"]


@asynccontextmanager
async def running(options: ServeOptions) -> AsyncIterator[httpx.AsyncClient]:
    async with anyio.create_task_group() as group:
        url = await group.start(serve, options)
        async with httpx.AsyncClient(base_url=url, timeout=20) as client:
            yield client
        group.cancel_scope.cancel()


async def status_of(client: httpx.AsyncClient, task_id: str) -> str:
    """How a task is; but not before its round is over."""
    body = {"user_message_content": "a", "task_id": task_id, "session_id": "s", "stream": False}
    status: str = (await client.post("tasks", json=body)).json()["result"]["status"]
    return status


@pytest.mark.anyio
@pytest.mark.parametrize("after", ["resume", "cancel"])
async def test_what_was_paused_in_a_step_when_the_server_stopped(tmp_path: Path, after: str) -> None:
    agent = Gated()
    options = ServeOptions(database=tmp_path / "db", agent=agent)
    async with running(options) as client, anyio.create_task_group() as group:
        group.start_soon(status_of, client, "task_1")
        assert await to_thread.run_sync(agent.entered.wait, 10)
        assert (await client.post("tasks/task_1/pause")).json()["status"] == "paused"
    agent.gate.set()
    async with running(options) as client:
        assert (await client.post(f"tasks/task_1/{after}")).status_code == 200
        assert await status_of(client, "task_1") == {"resume": "completed", "cancel": "canceled"}[after]
        assert await status_of(client, "task_2") == "completed", "the session is free again"


def test_a_round_that_was_being_left_when_the_server_died_holds_nobody_up(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    journal = tmp_path / "journal"

    def make(key: str) -> dict[str, Any]:
        body = {"user_message_content": key, "task_id": key, "session_id": "s"}
        task: dict[str, Any] = httpx.post(server.url, json=body, timeout=20).json()["result"]
        return task

    def noted(what: str) -> bool:
        return any(line["what"] == what for line in read_journal(journal))

    with CrashServer(str(tmp_path / "db"), journal) as server:
        server.start()
        ended = pool.submit(make, "hold-slow")
        eventually(lambda: noted("begin"))
        assert httpx.post(f"{server.url}/hold-slow/cancel").status_code == 200
        assert ended.result(20)["status"] == "canceled"
        eventually(lambda: noted("stopped"))
        pool.submit(make, "q-2")
        eventually(lambda: httpx.get(f"{server.url}/q-2").status_code == 200)
        assert httpx.get(f"{server.url}/q-2").json()["result"]["status"] == "queued"
        server.kill()
        server.start()
        assert make("q-2")["status"] == "completed"
        assert not noted("left")
        server.stop()
