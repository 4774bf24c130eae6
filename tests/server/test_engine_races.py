"""What happens at the same moment: ends beside each other, a pause beside a step, a stop beside a result."""

from __future__ import annotations

import json
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest

from agentlin_bridge.server.agent import answer, tool_call
from agentlin_bridge.server.model_agent import structured
from agentlin_bridge.server.model_agent.structured import AnswerSchema, Misfit
from agentlin_bridge.task import text_of

from .agents import Gated, Scripted, Tooled, eventually
from .conftest import Serving


def test_every_queue_goes_on_when_rounds_end_together(serving: Serving) -> None:
    agent = Gated()
    server = serving(agent)
    sessions = 12

    def make(session: int, number: int) -> str:
        body = {
            "user_message_content": "x",
            "task_id": f"s{session}-{number}",
            "session_id": f"s{session}",
            "stream": False,
        }
        status: str = httpx.post(f"{server.url}/tasks", json=body, timeout=30).json()["result"]["status"]
        return status

    with ThreadPoolExecutor(2 * sessions) as pool:
        first = [pool.submit(make, session, 1) for session in range(sessions)]
        eventually(lambda: len(agent.seen) == sessions)
        second = [pool.submit(make, session, 2) for session in range(sessions)]
        queued: dict[str, str | int] = {"status": "queued", "limit": 100}
        eventually(lambda: len(server.get("tasks", params=queued).json()["result"]) == sessions)
        agent.gate.set()
        assert [made.result() for made in first + second] == ["completed"] * (2 * sessions)


def test_a_session_keeps_the_order_in_which_tasks_came(serving: Serving) -> None:
    order: list[str] = []

    def step(conversation: Any) -> Any:
        order.append(text_of(conversation.user_content))
        return [answer("done")]

    server = serving(Scripted(step))
    with ThreadPoolExecutor(30) as pool:
        list(pool.map(lambda n: server.make(str(n), task_id=f"o-{n}", session_id="s"), range(30)))
    listed = server.get("tasks", params={"session_id": "s", "limit": 100}).json()["result"]
    assert [task["id"].removeprefix("o-") for task in reversed(listed)] == order


@pytest.mark.parametrize("what", ["tool", "model"])
def test_a_pause_that_is_over_before_the_step_has_not_repeated_it(serving: Serving, what: str) -> None:
    begun: list[str] = []
    running, go_on = threading.Event(), threading.Event()

    async def slow(name: str) -> str:
        begun.append(name)
        running.set()
        await anyio.to_thread.run_sync(go_on.wait, 20)
        return "done"

    async def tool() -> str:
        return await slow("tool")

    async def step(conversation: Any) -> Any:
        if what == "model":
            return [answer(await slow("model"))]
        return [answer("done")] if conversation.rounds else [tool_call("t", "{}")]

    server = serving(Tooled(step, {"t": tool}))
    with ThreadPoolExecutor() as pool:
        made = pool.submit(server.make, "x", task_id="p")
        assert running.wait(10)
        assert server.post("tasks/p/pause").status_code == 200
        assert server.post("tasks/p/resume").status_code == 200
        go_on.set()
        made.result()
    eventually(lambda: server.task("p")["status"] == "completed")
    assert begun == [what]


def test_the_agent_may_be_named_in_a_header(serving: Serving) -> None:
    seen: list[Any] = []

    def step(conversation: Any) -> Any:
        seen.append(conversation.request.get("client_id"))
        return [answer("done")]

    server = serving(Scripted(step))
    server.post("tasks", json={"user_message_content": "x", "stream": False}, headers={"X-Client-Id": "researcher"})
    assert seen == ["researcher"]


def test_secrets_of_the_published_servers_tools_are_not_kept(serving: Serving, tmp_path: Path) -> None:
    server = serving(Scripted(lambda conversation: [answer("done")]))
    secret = {"env": {"KEY": "verysecret"}, "code_interpreter_config": {"jupyter_token": "verysecret", "kind": "x"}}
    server.make("x", **secret, agent_config=secret)
    (database,) = tmp_path.glob("*.sqlite")
    assert b"verysecret" not in b"".join(path.read_bytes() for path in tmp_path.glob("*.sqlite*"))
    (stored,) = sqlite3.connect(database).execute("SELECT request FROM tasks").fetchone()
    assert json.loads(stored)["agent_config"] == {"code_interpreter_config": {"kind": "x"}}


@pytest.mark.anyio
async def test_a_pattern_that_takes_for_ever_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structured, "PATTERN_TIMEOUT", 3.0)
    schema = AnswerSchema({"type": "string", "pattern": "^(a+)+$"})
    with anyio.fail_after(20):
        assert await schema.canonical('"aaa"') == '"aaa"'
        with pytest.raises(Misfit, match="does not match"):
            await schema.canonical('"b"')
        with pytest.raises(Misfit, match="takes too long"):
            await schema.canonical('"' + "a" * 40 + '!"')
