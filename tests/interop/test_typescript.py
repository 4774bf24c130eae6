"""A host on the TypeScript SDK, in both eras of the protocol."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from starlette.requests import Request
from starlette.responses import Response

from tests.support.remote import Json, ScriptedRemote, Turn, call, message, results_of

from .conftest import READ_FILE, SECONDS, TOOLS, NodeHosting, called

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("era", ["legacy", "modern"])]


async def test_the_host_runs_its_own_tool(hosting: NodeHosting, embedded: dict[str, str], era: str) -> None:
    async with hosting(embedded, era=era) as host:
        tools = (await host.do("request", method="listTools"))["tools"]
        assert {tool["name"] for tool in tools} >= TOOLS

        asked = await host.ask("create_task", instructions="Summarise notes.md.", client_tools=[READ_FILE])
        assert asked["status"] == "input-required"
        (wanted,) = asked["tool_calls"]
        assert (wanted["name"], wanted["arguments"]) == ("read_file", {"path": "notes.md"})

        results = [{"call_id": wanted["call_id"], "content": "# Tides\n\nThe moon pulls the sea.\n"}]
        done = await host.ask("submit_tool_results", task_id=asked["task_id"], results=results)
        assert (done["task_id"], done["status"]) == (asked["task_id"], "completed")
        assert "Tides" in done["answer"]

        uri = f"agentlin://tasks/{asked['task_id']}"
        (whole,) = (await host.do("request", method="readResource", params={"uri": uri}))["contents"]
        assert json.loads(whole["text"])["status"] == "completed"
        (page,) = (await host.do("request", method="readResource", params={"uri": f"{uri}/answer"}))["contents"]
        assert done["answer"] in page["text"]


async def test_a_person_can_start_from_a_prompt(hosting: NodeHosting, embedded: dict[str, str], era: str) -> None:
    async with hosting(embedded, era=era) as host:
        assert (await host.do("request", method="listPrompts"))["prompts"]
        delegate = {"name": "delegate", "arguments": {"task": "Summarise notes.md."}}
        (said,) = (await host.do("request", method="getPrompt", params=delegate))["messages"]
        assert "Summarise notes.md." in said["content"]["text"]
        assert "agentlin_create_task" in said["content"]["text"]


def asking(body: Json) -> Turn:
    """An agent that asks the user once and says what it heard."""
    heard = results_of(body)
    if heard:
        return Turn([message(f"They said: {' '.join(heard.values())}")])
    return Turn([call("call_1", "ask_user", {"question": "Which harbour?"})])


async def test_a_person_is_asked(hosting: NodeHosting, tmp_path: Path, era: str) -> None:
    with anyio.fail_after(2 * SECONDS):
        async with ScriptedRemote(asking).serve() as remote:
            settings = facing(remote, tmp_path)
            async with hosting(settings, era=era, answer="Bristol, please.") as host:
                done = await host.ask("create_task", instructions="Book a berth.")

                assert done["status"] == "completed"
                assert "Bristol, please." in done["answer"]
                (asked,) = host.elicited
                assert "Which harbour?" in asked["message"]
                assert asked["mode"] == "form"
            assert len(remote.tasks) == 2  # the question's round and the answer's, none a second time


def facing(remote: ScriptedRemote, directory: Path) -> dict[str, str]:
    return {"AGENTLIN_BASE_URL": remote.base_url, "AGENTLIN_BRIDGE_LEDGER": str(directory / "ledger")}


class Gated(ScriptedRemote):
    """Answers once it is let."""

    def __init__(self) -> None:
        super().__init__(lambda _: Turn([message("done")], gate=self.gate))
        self.gate = anyio.Event()
        self.told_to_cancel = anyio.Event()

    async def _cancel(self, request: Request) -> Response:
        response = await super()._cancel(request)
        self.told_to_cancel.set()
        return response


@pytest.fixture
async def gated() -> AsyncIterator[Gated]:
    with anyio.fail_after(2 * SECONDS):
        async with Gated().serve() as remote:
            yield remote
            remote.gate.set()


async def test_a_user_who_stops_the_call_stops_the_task(
    hosting: NodeHosting, gated: Gated, tmp_path: Path, era: str
) -> None:
    async with hosting(facing(gated, tmp_path), era=era) as host:
        number = await host.start("call", call=called("create_task", instructions="Take your time."))
        await gated.posted.wait()
        await host.do("abort", aborted=number, reason="the user pressed Escape")
        assert "the user pressed Escape" in (await host.outcome(number))["error"]

        (task,) = (await host.ask("list_tasks"))["tasks"]
        stopped = await host.ask("retrieve_task", task_id=task["task_id"], wait_seconds=5)

        assert stopped["status"] == "canceled"
        await gated.told_to_cancel.wait()
        (remote_task,) = gated.tasks.values()
        assert remote_task["status"] == "canceled"


async def test_a_call_that_times_out_leaves_the_task_running(
    hosting: NodeHosting, gated: Gated, tmp_path: Path, era: str
) -> None:
    async with hosting(facing(gated, tmp_path), era=era) as host:
        await host.ask("list_tasks")  # so that opening the bridge takes none of the time
        create = called("create_task", instructions="Take your time.")
        calls = [
            await host.start("call", call=create, options={"timeout": 2000}),
            await host.start("call_until", call=create, milliseconds=2000),
        ]
        errors = [(await host.outcome(number))["error"] for number in calls]
        assert "Request timed out" in errors[0]  # as the SDK says it
        assert "TimeoutError" in errors[1]  # as the platform says it

        tasks = (await host.ask("list_tasks"))["tasks"]
        assert len(tasks) == 2
        assert {task["status"] for task in tasks} <= {"created", "working"}
        gated.gate.set()
        for task in tasks:
            done = await host.ask("retrieve_task", task_id=task["task_id"], wait_seconds=20)
            assert done["answer"] == "done"
        assert not gated.told_to_cancel.is_set()
