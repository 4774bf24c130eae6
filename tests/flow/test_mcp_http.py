"""MCP over HTTP: a task completes, principals do not see each other, processes stand in for each other."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import httpx
import pytest

from tests.hosts.mcp.conftest import READ_FILE
from tests.hosts.mcp.web import ALICE, BOB, MODERN, TASKS, TOKENS, ByHand, Json, Refused, Web, by_hand, hosted, web
from tests.support.postgres import Postgres
from tests.support.postgres import postgres as postgres  # noqa: PLC0414 - a fixture
from tests.support.remote import ScriptedRemote, Turn, call, message, results_of

pytestmark = pytest.mark.anyio

KEYS = [f"{number}-" + "key-material-for-tests" * 2 for number in range(3)]
KNOWS_TASKS: Json = {"extensions": {TASKS: {}}}
HAS_A_PERSON: Json = {"elicitation": {"form": {}}}


class Remote(ScriptedRemote):
    """Asks for a tool, as the instructions say, and answers with what it returned once it is let."""

    def __init__(self) -> None:
        super().__init__(self.turn, key="the-remotes-own-key")
        self.gate = anyio.Event()
        self.gate.set()

    def turn(self, body: Json) -> Turn:
        if results := results_of(body):
            return Turn([message("got " + " ".join(results.values()))], gate=self.gate)
        instructions = body["user_message_content"][0]["text"]
        if instructions == "Ask the user.":
            return Turn([call("c", "ask_user", {"question": "Which?"})])
        return Turn([call("c", "read_file", {"path": "a.md"})])


@pytest.fixture
async def remote() -> AsyncIterator[Remote]:
    async with Remote().serve() as listening:
        yield listening
        listening.gate.set()


@pytest.fixture
def settings(remote: Remote, tmp_path: Path) -> dict[str, str]:
    return {
        "AGENTLIN_BASE_URL": remote.base_url,
        "AGENTLIN_API_KEY": "the-remotes-own-key",
        "AGENTLIN_BRIDGE_LEDGER": str(tmp_path / "ledger"),
        "AGENTLIN_BRIDGE_MCP_TOKENS": TOKENS,
    }


@pytest.fixture
async def server(settings: dict[str, str], tmp_path: Path) -> AsyncIterator[Web]:
    async with web(settings, tmp_path) as listening:
        yield listening


def with_keys(settings: dict[str, str], *keys: str) -> dict[str, str]:
    return {**settings, "AGENTLIN_BRIDGE_MCP_KEYS": json.dumps(keys)}


async def created(client: ByHand, **arguments: str) -> str:
    asked = await client.ask("create_task", instructions="Read.", client_tools=[READ_FILE], **arguments)
    assert asked["status"] == "input-required"
    return str(asked["task_id"])


async def answer(client: ByHand, task_id: str, content: str = "text") -> Json:
    return await client.ask("submit_tool_results", task_id=task_id, results=[{"call_id": "c", "content": content}])


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_task_that_needs_a_client_tool_completes(server: Web, remote: Remote, mode: str) -> None:
    async with hosted(server, ALICE, mode=mode) as host:
        asked = await host.ask("create_task", instructions="Read.", client_tools=[READ_FILE])
        (wanted,) = asked["tool_calls"]
        assert (wanted["name"], wanted["arguments"]) == ("read_file", {"path": "a.md"})
        results = [{"call_id": wanted["call_id"], "content": "text"}]
        done = await host.ask("submit_tool_results", task_id=asked["task_id"], results=results)
    assert done["answer"] == "got text"
    assert len(remote.posts) == 2
    # The host's token stays with the server.
    assert {headers["authorization"] for headers in remote.headers} == {"Bearer the-remotes-own-key"}
    assert ALICE not in json.dumps([remote.posts, [dict(headers) for headers in remote.headers]])


@pytest.mark.parametrize("era", ["2026", "2025"])
async def test_another_principals_task_does_not_exist(server: Web, remote: Remote, era: str) -> None:
    mode = "auto" if era == "2026" else "legacy"
    async with hosted(server, ALICE, mode=mode) as alice, hosted(server, BOB, mode=mode) as bob:
        hers = (await alice.ask("create_task", instructions="Read.", client_tools=[READ_FILE], request_id="one"))[
            "task_id"
        ]
        requests = len(remote.requests)
        results = [{"call_id": "c", "content": "forged"}]
        for tool, arguments in [
            ("retrieve_task", {}),
            ("submit_tool_results", {"results": results}),
            ("cancel_task", {}),
            ("delete_task", {}),
        ]:
            said = await bob.refused(tool, task_id=hers, **arguments)
            assert said.startswith(f"There is no task '{hers}'.")
        assert "There is no task" in await bob.refused("create_task", instructions="Go on.", continue_task=hers)
        for uri in (f"agentlin://tasks/{hers}", f"agentlin://tasks/{hers}/answer"):
            with pytest.raises(Exception, match="There is no task"):
                await bob.client.read_resource(uri)
            assert hers in str(await alice.client.read_resource(uri))
        assert (await bob.ask("list_tasks"))["tasks"] == []
        assert len(remote.requests) == requests
        # The same request_id is another request.
        his = await bob.ask("create_task", instructions="Else.", client_tools=[READ_FILE], request_id="one")
        assert his["task_id"] != hers
        done = await alice.ask("submit_tool_results", task_id=hers, results=[{"call_id": "c", "content": "real"}])
        assert done["answer"] == "got real"


async def test_another_principals_session_does_not_exist(server: Web) -> None:
    headers = {"Accept": "application/json, text/event-stream"}
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}},
    }
    ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
    async with httpx.AsyncClient(headers=headers) as http:
        opened = await http.post(server.url, json=hello, headers={"Authorization": f"Bearer {ALICE}"})
        session = {"Mcp-Session-Id": opened.headers["mcp-session-id"]}
        for token, status in ((BOB, 404), (ALICE, 200)):
            with_token = {**session, "Authorization": f"Bearer {token}"}
            assert (await http.post(server.url, json=ping, headers=with_token)).status_code == status
        assert (await http.post(server.url, json=ping, headers=session)).status_code == 401


def again(asked: Json) -> Json:
    """The call that brings a person's answer."""
    (key,) = asked["inputRequests"]
    return {
        "name": "agentlin_create_task",
        "arguments": {"instructions": "Ask the user."},
        "inputResponses": {key: {"action": "accept", "content": {"answer": "this one"}}},
        "requestState": asked["requestState"],
    }


async def test_sealed_state_is_good_for_its_principal_on_every_server_with_the_key(
    settings: dict[str, str], remote: Remote, tmp_path: Path
) -> None:
    old, new, other = KEYS
    async with (
        web(with_keys(settings, old), tmp_path) as first,
        web(with_keys(settings, new, old), tmp_path) as second,
        web(with_keys(settings, other), tmp_path) as third,
        by_hand(first, ALICE, **HAS_A_PERSON) as alice,
    ):
        asked = await alice.call("create_task", instructions="Ask the user.")
        assert asked["resultType"] == "input_required"
        assert "task_" not in asked["requestState"]
        for server, token in ((first, BOB), (second, BOB), (third, ALICE)):
            async with by_hand(server, token, **HAS_A_PERSON) as client:
                with pytest.raises(Refused) as refused:
                    await client.request("tools/call", again(asked))
                assert refused.value.code == -32602
        async with by_hand(second, ALICE, **HAS_A_PERSON) as client:
            done = await client.request("tools/call", again(asked))
            assert done["structuredContent"]["answer"] == "got this one"
    assert len(remote.posts) == 2


async def test_an_mcp_task_survives_kill_9(settings: dict[str, str], remote: Remote, tmp_path: Path) -> None:
    remote.gate = anyio.Event()
    async with web(settings, tmp_path) as first, by_hand(first, ALICE, **KNOWS_TASKS) as client:
        task_id = await created(client)
        results = [{"call_id": "c", "content": "text"}]
        left = await client.call("submit_tool_results", task_id=task_id, results=results)
        assert left["resultType"] == "task"
        assert await first.ended(signal.SIGKILL) == -signal.SIGKILL
    remote.gate.set()
    params = {"taskId": left["taskId"]}
    async with web(settings, tmp_path) as second:
        async with by_hand(second, BOB, **KNOWS_TASKS) as stranger:
            with pytest.raises(Refused) as refused:
                await stranger.request("tasks/get", params)
            assert refused.value.code == -32602
        async with by_hand(second, ALICE, **KNOWS_TASKS) as client:
            await client.ask("retrieve_task", task_id=task_id, wait_seconds=20)
            done = await client.request("tasks/get", params)
    assert done["status"] == "completed"
    assert done["createdAt"] == left["createdAt"]
    assert done["result"]["structuredContent"]["answer"] == "got text"
    assert len(remote.posts) == 2


@pytest.mark.parametrize("kind", ["SQLite", "PostgreSQL"])
async def test_processes_on_one_ledger_stand_in_for_each_other(
    settings: dict[str, str], remote: Remote, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    """A task created on one and answered on the other; then one is killed while the task is underway there."""
    if kind == "PostgreSQL":
        server: Postgres = request.getfixturevalue("postgres")
        settings = {**settings, "AGENTLIN_BRIDGE_LEDGER": server.new_database()}
    async with (
        web(settings, tmp_path) as first,
        web(settings, tmp_path) as second,
        by_hand(first, ALICE, **KNOWS_TASKS) as one,
        by_hand(second, ALICE, **KNOWS_TASKS) as two,
    ):
        task_id = await created(one)
        assert (await answer(two, task_id))["answer"] == "got text"
        assert (await one.ask("retrieve_task", task_id=task_id))["answer"] == "got text"

        remote.gate = anyio.Event()
        task_id = await created(two)
        results = [{"call_id": "c", "content": "more"}]
        left = await one.call("submit_tool_results", task_id=task_id, results=results)
        looked = await two.request("tasks/get", {"taskId": left["taskId"]})
        assert looked["status"] == "working"
        await first.ended(signal.SIGKILL)
        remote.gate.set()
        done = await two.ask("retrieve_task", task_id=task_id, wait_seconds=20)
        assert done["answer"] == "got more"
        looked = await two.request("tasks/get", {"taskId": left["taskId"]})
        assert looked["result"]["structuredContent"]["answer"] == "got more"
    assert len(remote.posts) == 4


async def test_a_new_eras_client_needs_no_session(server: Web) -> None:
    async with httpx.AsyncClient() as http:
        client = ByHand(http, server.url, ALICE)
        assert (await client.request("server/discover"))["supportedVersions"] == [MODERN]
        assert not http.cookies
