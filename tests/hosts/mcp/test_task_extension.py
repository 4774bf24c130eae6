"""MCP tasks: a call that takes long leaves one behind, which completes with what the call would have returned."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

import anyio
import pytest
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp_types import CallToolResult, Request, RequestParams, Result
from pydantic import Field

from agentlin_bridge.hosts.mcp.asking import A_PERSON_NEEDS
from tests.hosts.mcp.conftest import Hosting
from tests.hosts.mcp.web import ALICE, BOB, TASKS, TOKENS, ByHand, Json, Refused, Web, by_hand, web
from tests.support.remote import ScriptedRemote, Turn, call, message, results_of

pytestmark = pytest.mark.anyio

KNOWS_TASKS: Json = {"extensions": {TASKS: {}}}
HAS_A_PERSON: Json = {**KNOWS_TASKS, "elicitation": {"form": {}}}


class Slow(ScriptedRemote):
    """Asks what `ask` says once `asking` is set, and answers with the results once `answering` is."""

    def __init__(self) -> None:
        super().__init__(self.turn)
        self.ask: list[Json] = []
        self.asking = anyio.Event()
        self.answering = anyio.Event()

    def turn(self, body: Json) -> Turn:
        results = results_of(body)
        if self.ask and not results:
            return Turn(self.ask, gate=self.asking)
        return Turn([message("heard: " + " ".join(results.values()))], gate=self.answering)

    def let(self) -> None:
        self.asking.set()
        self.answering.set()

    @property
    def was_canceled(self) -> bool:
        return any("cancel" in request for request in self.requests)


@pytest.fixture
async def slow() -> AsyncIterator[Slow]:
    async with Slow().serve() as remote:
        yield remote
        remote.let()


@pytest.fixture
async def server(slow: Slow, tmp_path: Path) -> AsyncIterator[Web]:
    settings = {"AGENTLIN_BASE_URL": slow.base_url, "AGENTLIN_BRIDGE_LEDGER": str(tmp_path / "ledger")}
    async with web({**settings, "AGENTLIN_BRIDGE_MCP_TOKENS": TOKENS}, tmp_path) as listening:
        yield listening


@pytest.fixture
async def client(server: Web) -> AsyncIterator[ByHand]:
    async with by_hand(server, ALICE, **KNOWS_TASKS) as connected:
        yield connected


async def looked_at(client: ByHand, task_id: str, status: str) -> Json:
    """An MCP task, once it has a status; between two looks the task itself is waited for."""
    while True:
        found = await client.request("tasks/get", {"taskId": task_id})
        if found["status"] == status:
            return found
        assert found["status"] == "working", found
        await replace(client, capabilities={}).ask("retrieve_task", task_id=task_id.partition(".")[0], wait_seconds=1)


async def test_a_long_call_leaves_a_task_that_completes(client: ByHand, slow: Slow) -> None:
    created = await client.call("create_task", instructions="Take long.")

    assert created["resultType"] == "task"
    assert created["status"] == "working"
    assert created["ttlMs"] == 48 * 3600 * 1000
    assert created["pollIntervalMs"] == 1000
    assert datetime.fromisoformat(created["createdAt"]) <= datetime.fromisoformat(created["lastUpdatedAt"])
    looked = await client.request("tasks/get", {"taskId": created["taskId"]})
    assert looked["resultType"] == "complete"
    assert (looked["status"], looked["taskId"]) == ("working", created["taskId"])
    slow.let()
    done = await looked_at(client, created["taskId"], "completed")
    assert done["result"]["resultType"] == "complete"
    assert done["result"]["structuredContent"]["answer"] == "heard: "
    assert done["createdAt"] == created["createdAt"]
    # What is over is not cancelled any more, and can be looked at again.
    await client.request("tasks/cancel", {"taskId": created["taskId"]})
    assert await client.request("tasks/get", {"taskId": created["taskId"]}) == done


async def test_calls_for_the_model_complete_it_for_good(client: ByHand, slow: Slow) -> None:
    slow.ask = [call("c", "ask_host", {"request": "what?"})]
    first = (await client.call("create_task", instructions="Ask."))["taskId"]
    slow.asking.set()
    asked = (await looked_at(client, first, "completed"))["result"]["structuredContent"]
    assert asked["status"] == "input-required"
    assert [one["call_id"] for one in asked["tool_calls"]] == ["c"]

    results = [{"call_id": "c", "content": "this"}]
    second = await client.call("submit_tool_results", task_id=asked["task_id"], results=results)
    assert second["resultType"] == "task"
    assert second["taskId"] != first
    # The first call is over, however the task gets on; nor does its cancellation reach the task any more.
    assert (await client.request("tasks/get", {"taskId": first}))["status"] == "completed"
    await client.request("tasks/cancel", {"taskId": first})
    slow.let()
    done = await looked_at(client, second["taskId"], "completed")
    assert done["result"]["structuredContent"]["answer"] == "heard: this"
    assert not slow.was_canceled


async def test_a_quick_call_leaves_nothing(client: ByHand, slow: Slow) -> None:
    slow.let()
    assert (await client.ask("create_task", instructions="Be quick."))["status"] == "completed"


async def test_who_does_not_want_to_wait_does_not_get_a_task(client: ByHand) -> None:
    started = await client.ask("create_task", instructions="Take long.", wait_seconds=0)
    assert started["status"] in ("created", "working")
    assert (await client.ask("retrieve_task", task_id=started["task_id"]))["status"] in ("created", "working")


async def test_cancelling_cancels_the_task(client: ByHand, slow: Slow) -> None:
    created = await client.call("create_task", instructions="Take long.")

    acknowledged = await client.request("tasks/cancel", {"taskId": created["taskId"]})

    assert acknowledged.keys() <= {"resultType", "_meta"}
    looked = await client.request("tasks/get", {"taskId": created["taskId"]})
    assert looked["status"] == "cancelled"
    assert "result" not in looked
    assert slow.was_canceled


@pytest.mark.parametrize(
    ("response", "heard"),
    [
        ({"action": "accept", "content": {"answer": "blue"}}, "heard: blue"),
        ({"action": "decline"}, "heard: ERROR: The user declined to answer."),
    ],
)
async def test_a_person_is_asked_and_answers(server: Web, slow: Slow, response: Json, heard: str) -> None:
    slow.ask = [call("c", "ask_user", {"question": "Which colour?"})]
    async with by_hand(server, ALICE, **HAS_A_PERSON) as client:
        task_id = (await client.call("create_task", instructions="Ask."))["taskId"]
        slow.asking.set()
        asked = await looked_at(client, task_id, "input_required")
        ((key, request),) = asked["inputRequests"].items()
        assert request["method"] == "elicitation/create"
        assert "Which colour?" in request["params"]["message"]
        await anyio.sleep(A_PERSON_NEEDS)  # a person takes that long
        await client.request("tasks/update", {"taskId": task_id, "inputResponses": {key: response, "other": {}}})
        slow.let()
        done = await looked_at(client, task_id, "completed")
        assert done["result"]["structuredContent"]["answer"] == heard
        # Answered again, it has no further effect.
        await client.request("tasks/update", {"taskId": task_id, "inputResponses": {key: response}})


async def test_what_nobody_decided_is_left_to_the_model(server: Web, slow: Slow) -> None:
    slow.ask = [call(str(n), "ask_user", {"question": f"Number {n}?"}) for n in (1, 2, 3)]
    async with by_hand(server, ALICE, **HAS_A_PERSON) as client:
        task_id = (await client.call("create_task", instructions="Ask."))["taskId"]
        slow.asking.set()
        asked = await looked_at(client, task_id, "input_required")
        one, two, three = asked["inputRequests"]
        responses: Json = {one: {"action": "decline"}, two: {"action": "cancel"}}
        await client.request("tasks/update", {"taskId": task_id, "inputResponses": responses})
        rest = await client.request("tasks/get", {"taskId": task_id})
        assert list(rest["inputRequests"]) == [three]
        with pytest.raises(Refused) as refused:
            await client.request("tasks/update", {"taskId": task_id, "inputResponses": {three: {"action": "sing"}}})
        assert refused.value.code == -32602
        await client.request("tasks/update", {"taskId": task_id, "inputResponses": {three: {"action": "accept"}}})
        done = await looked_at(client, task_id, "completed")
    remarks = [one["remark"] for one in done["result"]["structuredContent"]["tool_calls"]]
    assert [remark.partition(";")[0] for remark in remarks] == [
        "the host declined at once and did not ask anyone",
        "the person closed the question without deciding",
        "nobody decided in time",
    ]


async def test_a_client_without_a_person_gets_the_question_for_its_model(client: ByHand, slow: Slow) -> None:
    slow.ask = [call("c", "ask_user", {"question": "Which colour?"})]
    task_id = (await client.call("create_task", instructions="Ask."))["taskId"]
    slow.asking.set()
    done = await looked_at(client, task_id, "completed")
    (asked,) = done["result"]["structuredContent"]["tool_calls"]
    assert asked["remark"].startswith("this host cannot put it to a person")


async def test_a_question_that_comes_soon_is_asked_by_the_call_itself(server: Web, slow: Slow) -> None:
    slow.ask = [call("u", "ask_user", {"question": "Which colour?"}), call("h", "ask_host", {"request": "what?"})]
    slow.asking.set()
    async with by_hand(server, ALICE, **HAS_A_PERSON) as client:
        arguments = {"instructions": "Ask."}
        asked = await client.call("create_task", **arguments)
        assert asked["resultType"] == "input_required"
        (key,) = asked["inputRequests"]
        again = await client.request(
            "tools/call",
            {
                "name": "agentlin_create_task",
                "arguments": arguments,
                "inputResponses": {key: {"action": "cancel"}},
                "requestState": asked["requestState"],
            },
        )
        assert [one["call_id"] for one in again["structuredContent"]["tool_calls"]] == ["u", "h"]


async def test_an_answer_to_what_is_completed_changes_nothing(client: ByHand, slow: Slow) -> None:
    slow.ask = [call("u", "ask_user", {"question": "Which tide?"})]
    params = {"taskId": (await client.call("create_task", instructions="Ask."))["taskId"]}
    slow.asking.set()
    person = replace(client, capabilities=HAS_A_PERSON)
    (key,) = (await looked_at(person, params["taskId"], "input_required"))["inputRequests"]
    # This client has no person: to it the call is over, and its model has the question.
    completed = (await client.request("tasks/get", params))["result"]["structuredContent"]
    response = {key: {"action": "accept", "content": {"answer": "neap"}}}
    await person.request("tasks/update", {**params, "inputResponses": response})

    found = await replace(client, capabilities={}).ask("retrieve_task", task_id=completed["task_id"])
    assert found["status"] == "input-required"
    assert [one["call_id"] for one in found["tool_calls"]] == ["u"]


async def test_nobody_else_finds_it(server: Web, client: ByHand) -> None:
    created = await client.call("create_task", instructions="Take long.")
    task_id = created["taskId"]
    ours, _, nonce = task_id.rpartition(".")
    async with by_hand(server, BOB, **KNOWS_TASKS) as stranger:
        for method in ("tasks/get", "tasks/cancel", "tasks/update"):
            params = {"taskId": task_id, **({"inputResponses": {}} if method == "tasks/update" else {})}
            with pytest.raises(Refused) as refused:
                await stranger.request(method, params)
            assert refused.value.code == -32602
    for guess in (ours, f"{ours}.", f"{ours}.{'0' * 16}", f"task_{'0' * 32}.{nonce}", nonce, "x"):
        with pytest.raises(Refused) as refused:
            await client.request("tasks/get", {"taskId": guess})
        assert refused.value.code == -32602
    assert (await client.request("tasks/get", {"taskId": task_id}))["status"] == "working"


async def test_requests_that_do_not_fit(server: Web, client: ByHand) -> None:
    created = await client.call("create_task", instructions="Take long.")
    params = {"taskId": created["taskId"]}
    for headers in ({"Mcp-Name": "another"}, {"Mcp-Name": ""}):
        with pytest.raises(Refused) as refused:
            await client.request("tasks/get", params, **headers)
        assert (refused.value.code, refused.value.status) == (-32020, 400)
    async with by_hand(server, ALICE) as older:
        with pytest.raises(Refused) as refused:
            await older.request("tasks/get", params)
        assert refused.value.code == -32021
        # It cannot wait for what it does not know.
        assert (await older.ask("create_task", instructions="Take long.", wait_seconds=3))["status"] == "working"


async def test_an_mcp_tasks_time_ends(client: ByHand, server: Web, slow: Slow, tmp_path: Path) -> None:
    created = await client.call("create_task", instructions="Take long.")
    params = {"taskId": created["taskId"]}
    ours, _, nonce = created["taskId"].rpartition(".")
    from agentlin_bridge import TaskBridge

    async with TaskBridge.from_env(
        base_url=slow.base_url, ledger=str(tmp_path / "ledger"), principal="alice"
    ) as bridge:
        entry = (await bridge.retrieve(ours)).metadata[f"mcp_task:{nonce}"]
        await bridge.annotate(ours, {f"mcp_task:{nonce}": {**entry, "created_at": entry["created_at"] - 48 * 3600}})
    with pytest.raises(Refused) as refused:
        await client.request("tasks/get", params)
    assert refused.value.code == -32602


class McpTask(Result):
    result_type: Literal["task"] = Field("task", alias="resultType")
    task_id: str = Field(alias="taskId")


class GetParams(RequestParams):
    task_id: str = Field(alias="taskId")


class GetTask(Request[GetParams, Literal["tasks/get"]]):
    method: Literal["tasks/get"] = "tasks/get"
    name_param: ClassVar[str] = "taskId"


class TaskState(Result):
    status: str
    result: dict[str, Any] | None = None


class KnowsTasks(ClientExtension):
    """MCP tasks in the SDK's client."""

    identifier = TASKS

    def __init__(self, slow: Slow) -> None:
        self._slow = slow

    def claims(self) -> list[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=McpTask, resolve=self._resolve)]

    async def _resolve(self, task: McpTask, context: ClaimContext) -> CallToolResult:
        self._slow.let()
        while True:
            request = GetTask(params=GetParams(taskId=task.task_id))
            state = await context.session.send_request(request, TaskState)
            if state.status == "completed":
                return CallToolResult.model_validate(state.result)
            await anyio.sleep(0.1)


async def test_they_work_on_stdio_too(hosting: Hosting, slow: Slow, tmp_path: Path) -> None:
    settings = {"AGENTLIN_BASE_URL": slow.base_url, "AGENTLIN_BRIDGE_LEDGER": str(tmp_path / "ledger")}
    async with hosting(settings, extensions=[KnowsTasks(slow)]) as host:
        assert (await host.ask("create_task", instructions="Take long."))["answer"] == "heard: "
