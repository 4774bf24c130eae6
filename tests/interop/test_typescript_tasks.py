"""The TypeScript SDK's tasks extension over HTTP: it completes, answers a question, and cancels."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from tests.hosts.mcp.web import ALICE, TOKENS, Web, web
from tests.interop.conftest import NodeHosting, called
from tests.support.remote import Json, ScriptedRemote, Turn, call, message, results_of

pytestmark = pytest.mark.anyio


class Slow(ScriptedRemote):
    """Asks the person, if it is told to, and answers, each once it is let."""

    def __init__(self) -> None:
        super().__init__(self.turn)
        self.gate = anyio.Event()

    def turn(self, body: Json) -> Turn:
        results = results_of(body)
        if not results and body["user_message_content"][0]["text"] == "Ask.":
            return Turn([call("c", "ask_user", {"question": "Which colour?"})], gate=self.gate)
        return Turn([message(f"heard: {' '.join(results.values())}")], gate=self.gate)


@pytest.fixture
async def slow() -> AsyncIterator[Slow]:
    async with Slow().serve() as remote:
        yield remote
        remote.gate.set()


@pytest.fixture
async def server(slow: Slow, tmp_path: Path) -> AsyncIterator[Web]:
    settings = {"AGENTLIN_BASE_URL": slow.base_url, "AGENTLIN_BRIDGE_LEDGER": str(tmp_path / "ledger")}
    async with web({**settings, "AGENTLIN_BRIDGE_MCP_TOKENS": TOKENS}, tmp_path) as listening:
        yield listening


async def test_a_long_call_completes(tasks_hosting: NodeHosting, server: Web, slow: Slow) -> None:
    async with tasks_hosting(server.url, token=ALICE) as host:
        number = await host.start("call", call=called("create_task", instructions="Take long."))
        assert await host.begun() == "task"
        slow.gate.set()
        done = (await host.outcome(number))["result"]
    assert done["status"] == "completed"
    assert done["result"]["structuredContent"]["answer"] == "heard: "


async def test_a_quick_call_is_answered_at_once(tasks_hosting: NodeHosting, server: Web) -> None:
    async with tasks_hosting(server.url, token=ALICE) as host:
        number = await host.start("call", call=called("list_tasks"))
        assert await host.begun() == "immediate"
        assert (await host.outcome(number))["result"]["result"]["structuredContent"] == {"tasks": []}


async def test_a_person_answers(tasks_hosting: NodeHosting, server: Web, slow: Slow) -> None:
    async with tasks_hosting(server.url, token=ALICE, answer="blue") as host:
        number = await host.start("call", call=called("create_task", instructions="Ask."))
        assert await host.begun() == "task"
        slow.gate.set()
        done = (await host.outcome(number))["result"]
    assert done["result"]["structuredContent"]["answer"] == "heard: blue"
    (question,) = host.elicited
    assert "Which colour?" in question["message"]


async def test_a_person_answers_before_there_is_a_task(tasks_hosting: NodeHosting, server: Web, slow: Slow) -> None:
    slow.gate.set()
    async with tasks_hosting(server.url, token=ALICE, answer="red") as host:
        done = await host.do("call", call=called("create_task", instructions="Ask."))
    assert done["result"]["structuredContent"]["answer"] == "heard: red"
    assert len(host.elicited) == 1


async def test_a_cancelled_call_cancels_the_task(tasks_hosting: NodeHosting, server: Web, slow: Slow) -> None:
    async with tasks_hosting(server.url, token=ALICE) as host:
        number = await host.start("call", call=called("create_task", instructions="Take long."))
        assert await host.begun() == "task"
        await host.do("cancel", called=number)
        assert (await host.outcome(number))["result"]["status"] == "cancelled"
    assert any("cancel" in request for request in slow.requests)
