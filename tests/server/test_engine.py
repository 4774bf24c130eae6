"""The loop around an agent: the server's own tools, limits, failures, pause, expiry, retention."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import anyio
import httpx
import pytest
from anyio import to_thread

from agentlin_bridge.server.agent import AgentFailure, Conversation, Item, OneAgent, answer, tool_call
from agentlin_bridge.server.process import ServeOptions, serve
from agentlin_bridge.server.protocol.refusals import Refusal
from agentlin_bridge.task import ReasoningItem

from .agents import Gated, Scripted, Tooled, eventually, result, weather
from .conftest import Server, Serving


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


def results_of(conversation: Conversation) -> list[str]:
    return [result.text for step in conversation.rounds for result in step.results]


def sums(conversation: Conversation) -> Sequence[Item]:
    """Two tools of the server at once, then one of the client, then the answer."""
    done = results_of(conversation)
    if not done:
        return [answer("let me see"), *(tool_call("add", json.dumps({"a": a, "b": 1})) for a in (1, 2))]
    if len(done) == 2:
        return [tool_call("ask", json.dumps({"sums": done}))]
    return [answer(" ".join(done))]


def kinds(task: dict[str, Any]) -> list[str]:
    return [item["type"] for item in task["output"]]


def test_the_server_runs_its_own_tools_and_waits_only_for_the_clients(serving: Serving) -> None:
    agent = Tooled(sums, {"add": lambda a, b: a + b})
    server = serving(agent)
    asked = server.make("go", session_id="s")
    assert asked["status"] == "input-required"
    assert kinds(asked) == ["message", "tool_call", "tool_call", "tool_result", "tool_result", "tool_call"]
    (call_id,) = asked["input_required_call_ids"]
    assert asked["input_required"]["name"] == "ask"
    assert json.loads(asked["input_required"]["arguments"]) == {"sums": ["2", "3"]}
    assert asked["usage"] == {"input_tokens": 6, "output_tokens": 0, "total_tokens": 0, "tool_calls": 3}
    assert len({item["id"] for item in asked["output"]}) == 6
    done = server.make([], session_id="s", thought_messages=[result(call_id, "fine")])
    assert done["output"][0]["content"] == "2 3 fine"
    assert agent.steps == 3
    assert agent.called == ["add", "add"]
    later = server.make("again", session_id="s")
    assert later["status"] == "input-required"


def test_own_calls_are_run_before_the_client_is_asked(serving: Serving) -> None:
    def mixed(conversation: Conversation) -> Sequence[Item]:
        if conversation.rounds:
            return [answer(" ".join(results_of(conversation)))]
        return [tool_call("ask", "{}"), tool_call("add", '{"a": 1, "b": 2}')]

    agent = Tooled(mixed, {"add": lambda a, b: a + b})
    server = serving(agent)
    asked = server.make("go", session_id="s")
    assert kinds(asked) == ["tool_call", "tool_call", "tool_result"]
    (call_id,) = asked["input_required_call_ids"]
    assert call_id == asked["output"][0]["call_id"]
    assert agent.steps == 1
    done = server.make([], session_id="s", thought_messages=[result(call_id, "asked")])
    assert done["output"][0]["content"] == "asked 3", "in the order of the calls"


def test_a_stop_tool_is_left_to_the_client(serving: Serving) -> None:
    agent = Tooled(sums, {"add": lambda a, b: a + b})
    server = serving(agent)
    asked = server.make("go", session_id="s", stop_tools=["add"])
    assert asked["status"] == "input-required"
    assert len(asked["input_required_call_ids"]) == 2
    assert agent.called == []


def test_parallel_tools_run_at_the_same_time(serving: Serving) -> None:
    both = anyio.Event()
    inside = 0

    async def meet(a: int, b: int) -> int:
        nonlocal inside
        inside += 1
        if inside == 2:
            both.set()
        await both.wait()
        return a + b

    server = serving(Tooled(sums, {"add": meet}))
    assert server.make("go")["status"] == "input-required"


def test_a_tool_that_breaks_is_a_result_the_model_reads(serving: Serving, caplog: pytest.LogCaptureFixture) -> None:
    def broken(a: int, b: int) -> int:
        raise OSError("secret path")

    def once(conversation: Conversation) -> Sequence[Item]:
        return [answer(results_of(conversation)[0])] if conversation.rounds else [tool_call("add", '{"a": 1, "b": 2}')]

    task = serving(Tooled(once, {"add": broken})).make("go")
    assert task["output"][-1]["content"] == "ERROR: OSError"
    assert "secret path" in caplog.text


def test_too_many_steps_fail_with_a_way_out(serving: Serving) -> None:
    agent = Tooled(lambda _: [tool_call("add", '{"a": 1, "b": 2}')], {"add": lambda a, b: a + b}, max_steps=3)
    task = serving(agent).make("go")
    assert task["status"] == "failed"
    assert "3 times" in task["error"]["message"]
    assert "max_steps" in task["error"]["message"]
    assert agent.steps == 3


def test_steps_of_all_links_of_a_turn_count(serving: Serving) -> None:
    agent = Tooled(lambda _: [tool_call("ask", "{}")], max_steps=2)
    server = serving(agent)
    task = server.make("go", session_id="s")
    for _ in range(2):
        assert task["status"] == "input-required"
        task = server.make([], session_id="s", thought_messages=[result(task["input_required_call_ids"][0], "x")])
    assert task["status"] == "failed"


def test_an_agent_explains_why_it_fails(serving: Serving) -> None:
    def fail(_: Conversation) -> Sequence[Item]:
        raise AgentFailure("The model has no credit. Next: top it up.", code=-32050)

    task = serving(Tooled(fail)).make("go")
    assert task["status"] == "failed"
    assert task["error"] == {"code": -32050, "message": "The model has no credit. Next: top it up."}


def test_an_agent_that_breaks_tells_only_how(serving: Serving, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Conversation) -> Sequence[Item]:
        raise OSError("secret path")

    task = serving(Tooled(fail)).make("go")
    assert "OSError" in task["error"]["message"]
    assert "secret" not in task["error"]["message"]
    assert "secret path" in caplog.text


def test_a_request_for_an_agent_that_is_not_there_any_more_fails(serving: Serving) -> None:
    asked: list[Any] = []

    class Gone(OneAgent):
        def pick(self, request: Any) -> Any:
            asked.append(request)
            if len(asked) == 1:
                return self.agent
            raise Refusal("No agent 'x'", status=422)

    task = serving(agents=lambda: Gone(Scripted(weather))).make("go")
    assert task["error"]["message"] == "No agent 'x'"


def test_what_an_agent_puts_out_is_bounded(serving: Serving) -> None:
    long = serving(Tooled(lambda _: [answer("x" * 3000)]), output_limit=2000).make("go")
    assert long["status"] == "failed"
    assert "2000 bytes" in long["error"]["message"]
    assert long.get("output", []) == []


def test_what_a_tool_returns_is_bounded(serving: Serving) -> None:
    agent = Tooled(sums, {"add": lambda a, b: "x" * 3000})
    task = serving(agent, output_limit=2000).make("go")
    assert task["status"] == "failed"
    assert agent.steps == 1


def test_a_failed_turn_goes_on_when_it_is_nudged(serving: Serving) -> None:
    failures = [AgentFailure("busy")]

    def step(conversation: Conversation) -> Sequence[Item]:
        if not conversation.rounds:
            return [tool_call("ask", "{}")]
        if failures:
            raise failures.pop()
        return [answer(f"{results_of(conversation)} {len(conversation.rounds[0].note)}")]

    server = serving(Tooled(step))
    asked = server.make("go", session_id="s")
    failed = server.make([], session_id="s", thought_messages=[result(asked["input_required_call_ids"][0], "yes")])
    assert failed["status"] == "failed"
    done = server.make([], session_id="s", thought_messages=[{"role": "user", "content": "continue"}])
    assert (done["status"], done["previous_task_id"]) == ("completed", failed["id"])
    assert done["output"][0]["content"].startswith("['yes']")


# Pause and resume ---------------------------------------------------------------------------------------


def test_pause_keeps_what_a_running_step_brings_and_resume_goes_on(serving: Serving, pool: ThreadPoolExecutor) -> None:
    gate, entered = Event(), Event()

    async def gated(conversation: Conversation) -> Sequence[Item]:
        entered.set()
        while not gate.is_set():
            await to_thread.run_sync(gate.wait, 0.02)
        return sums(conversation)

    agent = Tooled(gated, {"add": lambda a, b: a + b})
    server = serving(agent)
    made = pool.submit(server.make, "go", task_id="task_1", session_id="s")
    assert entered.wait(10)
    paused = server.post("tasks/task_1/pause").json()
    assert paused["status"] == "paused"
    assert made.result(10)["status"] == "paused", "who waits is not kept waiting"
    assert server.post("tasks/task_1/pause").json()["status"] == "paused"
    gate.set()
    eventually(lambda: len(server.task("task_1").get("output", [])) == 3)
    assert server.task("task_1")["status"] == "paused"
    assert agent.called == []
    queued = pool.submit(server.make, "next", task_id="task_2", session_id="s")
    eventually(lambda: server.get("tasks/task_2").status_code == 200)
    assert server.task("task_2")["status"] == "queued", "a paused task keeps its session"
    assert server.post("tasks/task_1/resume").status_code == 200
    eventually(lambda: server.task("task_1")["status"] == "canceled", 15)
    assert agent.called[:2] == ["add", "add"]
    assert queued.result(15)["status"] == "input-required"


def test_pause_before_the_answer_holds_it_back(serving: Serving, pool: ThreadPoolExecutor) -> None:
    agent = Gated()
    server = serving(agent)
    pool.submit(server.make, "a", task_id="task_1")
    assert agent.entered.wait(10)
    server.post("tasks/task_1/pause")
    agent.gate.set()
    eventually(lambda: agent.inside == 0)
    eventually(lambda: bool(server.task("task_1").get("output")))
    assert server.task("task_1")["status"] == "paused"
    server.post("tasks/task_1/resume")
    eventually(lambda: server.task("task_1")["status"] == "completed")
    assert agent.seen == ["a"], "the model is not asked again"


def test_a_queued_task_is_paused_and_resumed(serving: Serving, pool: ThreadPoolExecutor) -> None:
    agent = Gated()
    server = serving(agent)
    first = pool.submit(server.make, "first", session_id="s")
    assert agent.entered.wait(10)
    pool.submit(server.make, "second", session_id="s", task_id="task_2")
    eventually(lambda: server.get("tasks/task_2").status_code == 200)
    server.post("tasks/task_2/pause")
    assert server.post("tasks/task_2/resume").json()["status"] == "queued"
    server.post("tasks/task_2/pause")
    agent.gate.set()
    assert first.result(10)["status"] == "completed"
    assert server.task("task_2")["status"] == "paused"
    server.post("tasks/task_2/resume")
    eventually(lambda: server.task("task_2")["status"] == "completed")
    assert server.post("tasks/task_2/resume").status_code == 409


def test_what_does_not_run_is_not_paused(server: Server) -> None:
    task = server.make("Paris")
    refused = server.post(f"tasks/{task['id']}/pause")
    assert (refused.status_code, refused.json()["code"]) == (409, -32009)
    assert "input-required" in refused.json()["message"]
    assert server.post(f"tasks/{task['id']}/resume").status_code == 409
    assert server.post("tasks/task_none/pause").status_code == 404


# Cancel and expiry --------------------------------------------------------------------------------------


def test_cancel_stops_a_tool_in_the_middle(serving: Serving, pool: ThreadPoolExecutor) -> None:
    entered, left = Event(), Event()

    async def slow(a: int, b: int) -> int:
        entered.set()
        try:
            await anyio.sleep_forever()
        finally:
            left.set()
        return 0

    agent = Tooled(sums, {"add": slow})
    server = serving(agent)
    made = pool.submit(server.make, "go", task_id="task_1", session_id="s")
    assert entered.wait(10)
    assert server.post("tasks/task_1/cancel").json()["status"] == "canceled"
    assert left.wait(10)
    assert made.result(10)["status"] == "canceled"
    assert agent.steps == 1


def test_a_running_task_expires(serving: Serving, pool: ThreadPoolExecutor) -> None:
    agent = Gated()
    server = serving(agent)
    made: Future[dict[str, Any]] = pool.submit(server.make, "a", expires_in=0.3)
    task = made.result(10)
    assert task["status"] == "expired"
    assert "expires_in" in task["error"]["message"]
    eventually(lambda: agent.inside == 0)
    agent.gate.set()


def test_a_waiting_task_expires_by_the_servers_default(serving: Serving) -> None:
    server = serving(Scripted(weather), expires_in=0.2)
    asked = server.make("Paris", session_id="s")
    kept = server.make("Rome", session_id="t", expires_in=1000)
    eventually(lambda: server.task(asked["id"])["status"] == "expired")
    status, error = server.refuse(
        [], session_id="s", thought_messages=[result(asked["input_required_call_ids"][0], "x")]
    )
    assert (status, "waits for no tool result" in error["message"]) == (400, True)
    assert server.task(kept["id"])["status"] == "input-required"


def test_a_continued_task_does_not_expire(serving: Serving) -> None:
    server = serving(Scripted(weather))
    asked = server.make("Paris", session_id="s", expires_in=0.4)
    done = server.make([], session_id="s", thought_messages=[result(asked["input_required_call_ids"][0], "sun")])
    soon = server.make("Rome", expires_in=0.5)
    eventually(lambda: server.task(soon["id"])["status"] == "expired")
    assert server.task(asked["id"])["status"] == "input-required"
    assert done["status"] == "completed"


# Restarts and retention ---------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_stopped_server_goes_on_with_the_next_step(tmp_path: Path) -> None:
    gate, entered = Event(), Event()

    async def slow(a: int, b: int) -> int:
        entered.set()
        while not gate.is_set():
            await to_thread.run_sync(gate.wait, 0.02)
        return a + b

    agent = Tooled(sums, {"add": slow})
    options = ServeOptions(database=tmp_path / "db", agent=agent)
    body = {"user_message_content": "go", "task_id": "task_1", "session_id": "s"}
    async with httpx.AsyncClient(timeout=20) as client:
        async with anyio.create_task_group() as group:
            url = await group.start(serve, options)
            group.start_soon(lambda: client.post(f"{url}/tasks", json=body))
            await to_thread.run_sync(entered.wait, 10)
            waiting = {**body, "task_id": "task_2"}
            group.start_soon(lambda: client.post(f"{url}/tasks", json=waiting))
            await to_thread.run_sync(eventually, lambda: httpx.get(f"{url}/tasks/task_2").status_code == 200)
            group.cancel_scope.cancel()
        gate.set()
        async with anyio.create_task_group() as group:
            url = await group.start(serve, options)
            task = (await client.post(f"{url}/tasks", json=waiting)).json()["result"]
            first = (await client.get(f"{url}/tasks/task_1")).json()["result"]
            group.cancel_scope.cancel()
    assert (first["status"], task["status"]) == ("canceled", "input-required")
    assert agent.steps == 4, "two for each task: the finished one was not repeated"


def test_old_tasks_are_deleted_with_all_that_belongs_to_them(serving: Serving, tmp_path: Path) -> None:
    server = serving(Scripted(weather), retention=0.5)
    asked = server.make("Paris", session_id="s")
    done = server.make([], session_id="s", thought_messages=[result(asked["input_required_call_ids"][0], "sun")])
    waiting = server.make("Rome", session_id="t")
    server.delete(f"tasks/{server.make('Oslo')['id']}")
    eventually(lambda: server.get(f"tasks/{done['id']}").status_code == 404, 15)
    assert server.get(f"tasks/{asked['id']}").status_code == 404
    assert [task["id"] for task in server.get("tasks").json()["result"]] == [waiting["id"]]


def test_reasoning_is_put_out_with_an_id(serving: Serving) -> None:
    task = serving(Tooled(lambda _: [ReasoningItem(summary=["hm"]), answer("so")])).make("go")
    assert [item["id"].partition("_")[0] for item in task["output"]] == ["rs", "msg"]
