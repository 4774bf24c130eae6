"""What becomes of a task when the remote, or the way to it, fails."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from agentlin_bridge import Limits, TaskBridge, TaskNotFound, TaskStatus
from agentlin_bridge.delegation import following
from agentlin_bridge.remote.agentlin.backend import AgentlinBackend
from agentlin_bridge.remote.agentlin.endpoint import Address, FixedEndpoint
from tests.delegation.conftest import Open
from tests.support.remote import Json, ScriptedRemote, Turn, call, message, results_of

pytestmark = pytest.mark.anyio


def faulty_round(fault: str | int | None, *, times: int = 1, in_round: int = 1) -> tuple[Counter[str], ScriptedRemote]:
    """A remote of two rounds, one of which fails at first. Counts how often each round really ran."""
    ran: Counter[str] = Counter()
    failures = 0

    def agent(body: Json) -> Turn:
        nonlocal failures
        results = results_of(body)
        number = 2 if results else 1
        happens = number == in_round and failures < times
        failures += happens
        if not (happens and (fault == "unsent" or isinstance(fault, int))):
            ran[f"round {number}"] += 1
        output = [message(results["c"])] if results else [call("c", "hello", {})]
        return Turn(output, fault=fault if happens else None)

    return ran, ScriptedRemote(agent)


def hello() -> str:
    """Say hello."""
    return "hello"


@pytest.mark.parametrize("in_round", [1, 2])
@pytest.mark.parametrize("fault", ["lost", "unsent", "garbage", 502, 503, 504, 408])
async def test_a_lost_reply_is_looked_up_and_nothing_runs_twice(
    open_bridge: Open, fault: str | int, in_round: int
) -> None:
    ran, remote = faulty_round(fault, in_round=in_round)
    async with open_bridge(remote.agent, remote=remote) as (bridge, _):
        task = await bridge.run("x", client_tools=[hello])
    assert task.status is TaskStatus.COMPLETED
    assert task.answer == "hello"
    assert ran == {"round 1": 1, "round 2": 1}
    ids = [post["task_id"] for post in remote.posts]
    assert len(set(ids)) == 2
    assert len(ids) == (2 if fault in ("lost", "garbage") else 3)


@pytest.mark.parametrize("in_round", [1, 2])
async def test_a_request_that_never_arrives_ends_the_task(open_bridge: Open, in_round: int) -> None:
    _, remote = faulty_round("unsent", times=99, in_round=in_round)
    async with open_bridge(remote.agent, remote=remote, limits=Limits(settle=0.05)) as (bridge, _):
        task = await bridge.run("x", client_tools=[hello])
    assert task.status is TaskStatus.FAILED
    assert task.error is not None
    assert "sent 3 times" in task.error.message
    assert "Next: " in task.error.message
    assert len(remote.posts) == following.SENDS + in_round - 1


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (500, "HTTP 500: scripted failure"),
        (422, "rejected the request (HTTP 422: scripted failure)"),
        (404, "nothing there (HTTP 404"),
        (403, "refused the key (HTTP 403"),
    ],
)
async def test_a_refusal_ends_the_task(open_bridge: Open, status: int, said: str) -> None:
    _, remote = faulty_round(status, times=99)
    async with open_bridge(remote.agent, remote=remote, limits=Limits(settle=0.05)) as (bridge, _):
        task = await bridge.run("x")
    assert task.status is TaskStatus.FAILED
    assert task.error is not None
    assert said in task.error.message
    assert len(remote.posts) == 1


async def test_a_wrong_key_is_named(open_bridge: Open) -> None:
    remote = ScriptedRemote(lambda body: Turn([message("x")]), key="right")
    async with open_bridge(remote.agent, remote=remote) as (bridge, _):
        assert (await bridge.run("x")).status is TaskStatus.COMPLETED
        remote.key = "changed"
        task = await bridge.run("x")
    assert task.status is TaskStatus.FAILED
    assert task.error is not None
    assert "refused the key (HTTP 401: invalid key)" in task.error.message
    assert "AGENTLIN_API_KEY" in task.error.message
    assert "right" not in task.model_dump_json()


async def test_a_remote_that_is_down_fails_a_new_task(tmp_path: Path) -> None:
    backend = AgentlinBackend(FixedEndpoint(Address("http://127.0.0.1:1/v1")))
    with anyio.fail_after(20):
        async with TaskBridge(backend, ledger=tmp_path / "ledger.sqlite3") as bridge:
            task = await bridge.run("x")
            with pytest.raises(TaskNotFound, match=r"remote could not be asked: .* cannot be reached"):
                await bridge.retrieve("task_elsewhere")
    assert task.status is TaskStatus.FAILED
    assert task.error is not None
    assert "http://127.0.0.1:1/v1 cannot be reached" in task.error.message
    assert "AGENTLIN_BASE_URL" in task.error.message


async def test_a_remote_that_is_down_for_a_while_keeps_the_results(open_bridge: Open) -> None:
    """Results on record are delivered when the remote is back; the task waits as long as its deadline."""
    remote = ScriptedRemote(faulty_round(None)[1].agent)
    tool = {"name": "hello"}
    async with open_bridge(remote.agent, remote=remote) as (bridge, _):
        task = await bridge.run("x", client_tools=[tool])
        remote.refuse = 3
        await bridge.submit(task.id, {"c": "hello again"})
        task = await bridge.wait(task.id)
    assert task.answer == "hello again"
    assert remote.refuse == 0


async def test_a_remote_that_forgets_ends_the_task(open_bridge: Open) -> None:
    gate = anyio.Event()

    def agent(body: Json) -> Turn:
        return Turn([message("x")], gate=gate, fault="lost", status="working")

    remote = ScriptedRemote(agent)
    async with open_bridge(agent, remote=remote) as (bridge, _):
        task = await bridge.create("x")
        await remote.posted.wait()
        gate.set()
        while f"GET /tasks/{task.id}" not in remote.requests:
            await anyio.lowlevel.checkpoint()
        remote.tasks.clear()
        task = await bridge.wait(task.id)
    assert task.status is TaskStatus.FAILED
    assert task.error is not None
    assert "no longer knows the remote task" in task.error.message


async def test_a_reply_before_the_end_is_followed_by_polling(open_bridge: Open) -> None:
    remote = ScriptedRemote(lambda body: Turn(status="working"))
    async with open_bridge(remote.agent, remote=remote) as (bridge, _):
        task = await bridge.create("x")
        while remote.requests.count(f"GET /tasks/{task.id}") < 2:
            await anyio.lowlevel.checkpoint()
        remote.tasks[task.id].update(status="completed", output=[message("at last")])
        assert (await bridge.wait(task.id)).answer == "at last"


async def test_ids_the_remote_chooses_are_adopted(open_bridge: Open) -> None:
    def agent(body: Json) -> Turn:
        results = results_of(body)
        if results:
            return Turn([message(results["c"])], fields={"id": "theirs_2", "session_id": "their_session"})
        return Turn([call("c", "hello", {})], fields={"id": "theirs_1", "session_id": "their_session"})

    remote = ScriptedRemote(agent)
    async with open_bridge(agent, remote=remote) as (bridge, _):
        task = await bridge.run("x", client_tools=[hello])
        assert task.answer == "hello"
        assert task.session_id == "their_session"
        assert (await bridge.retrieve("theirs_2")).id == task.id
    assert remote.posts[1]["session_id"] == "their_session"
    assert remote.posts[1]["previous_task_id"] == "theirs_1"


@pytest.mark.parametrize(
    ("turn", "status", "said"),
    [
        (Turn(status="failed", error={"code": 1, "message": "model: boom\nTraceback (most recent call last):\n  x"}),
         "failed", "model: boom"),
        (Turn(status="failed"), "failed", "failed and gives no reason"),
        (Turn(status="expired"), "expired", "expired and gives no reason"),
        (Turn(status="canceled"), "canceled", None),
        (Turn(status="input-required"), "failed", "names no tool call"),
    ],
)  # fmt: skip
async def test_how_a_remote_task_ends(open_bridge: Open, turn: Turn, status: str, said: str | None) -> None:
    async with open_bridge(lambda body: turn) as (bridge, _):
        task = await bridge.run("x")
    assert task.status == status
    if said is None:
        assert task.error is None
    else:
        assert task.error is not None
        assert said in task.error.message
        assert "Traceback" not in task.error.message


async def test_usage_is_summed_over_rounds(open_bridge: Open) -> None:
    def agent(body: Json) -> Turn:
        usage = {"total_tokens": 5, "details": {"cached": 1, "model": "m"}, "note": None}
        output = [message("x")] if results_of(body) else [call("c", "hello", {})]
        return Turn(output, fields={"usage": usage})

    async with open_bridge(agent) as (bridge, _):
        task = await bridge.run("x", client_tools=[hello])
    assert task.usage == {"total_tokens": 10, "details": {"cached": 2, "model": "m"}, "note": None}
