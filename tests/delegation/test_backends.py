"""Several backends behind one bridge: agent profiles say who runs a task, and a task stays where it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from agentlin_bridge import ClientTool, ConfigurationError, InvalidRequestError, Limits, TaskBridge, TaskStatus
from agentlin_bridge.remote.agentlin.backend import AgentlinBackend
from agentlin_bridge.remote.agentlin.dialect import Dialect
from agentlin_bridge.remote.agentlin.endpoint import Address, FixedEndpoint
from agentlin_bridge.remote.backend import Capabilities
from tests.support.remote import Json, ScriptedRemote, Turn, call, message, results_of

pytestmark = pytest.mark.anyio

HELLO = ClientTool("hello", handler=lambda: "hello")


def says(word: str) -> ScriptedRemote:
    return ScriptedRemote(lambda body: Turn([message(word)]))


def backend(remote: ScriptedRemote, name: str, can: Capabilities | None = None) -> AgentlinBackend:
    made = AgentlinBackend(FixedEndpoint(Address(remote.base_url, None)), name=name, dialect=Dialect.DOCUMENTED)
    made.capabilities = can or made.capabilities
    return made


ONE_PASS = Capabilities(client_tools=False, sessions=False, files=False)
"""Of a backend that runs tasks and little else."""
AGENTS = {"second": {"backend": "other", "client_id": "AIME"}, "first": {}}


@asynccontextmanager
async def bridge_of(
    ledger: Path, one: ScriptedRemote, other: ScriptedRemote, can: Capabilities | None = None
) -> AsyncIterator[TaskBridge]:
    with anyio.fail_after(20):
        async with (
            one.serve(),
            other.serve(),
            TaskBridge(
                backend(one, "one"),
                more_backends=[backend(other, "other", can)],
                agents=AGENTS,
                ledger=ledger,
                limits=Limits(settle=0.2),
            ) as bridge,
        ):
            yield bridge


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


async def test_the_agent_says_who_runs_a_task(ledger: Path) -> None:
    one, other = says("one"), says("other")
    async with bridge_of(ledger, one, other) as bridge:
        tasks = await bridge.run_many(
            [{"instructions": "x", "agent": agent} for agent in (None, "first", "second")], max_concurrency=3
        )
        assert [task.answer for task in tasks] == ["one", "one", "other"]
    assert len(one.posts) == 2
    (post,) = other.posts
    assert post["client_id"] == "AIME"
    assert "backend" not in post


async def test_a_task_is_carried_on_where_it_is(ledger: Path) -> None:
    """By another bridge with the same two remotes: answered, delivered, canceled, deleted there and nowhere else."""

    def asks(body: Json) -> Turn:
        results = results_of(body)
        return Turn([message(f"other {results['c']}")] if results else [call("c", "ask", {})])

    one, other = says("one"), ScriptedRemote(asks)
    async with one.serve(), other.serve():
        async with bridge_of(ledger, one, other) as bridge:
            asked = await bridge.run("x", agent="second", client_tools=[{"name": "ask"}])
            assert asked.status is TaskStatus.INPUT_REQUIRED
            left = await bridge.run("x", agent="second", client_tools=[{"name": "ask"}])
        async with bridge_of(ledger, one, other) as bridge:
            await bridge.submit(asked.id, {"c": "yes"})
            assert (await bridge.wait(asked.id)).answer == "other yes"
            assert (await bridge.cancel(left.id)).remote == "stopped"
            assert (await bridge.delete(asked.id)).remote == "stopped"
    assert one.requests == []


async def test_a_task_goes_on_only_at_its_own_backend(ledger: Path) -> None:
    one, other = says("one"), says("other")
    async with bridge_of(ledger, one, other) as bridge:
        task = await bridge.run("x", agent="second")
        with pytest.raises(InvalidRequestError, match=r"was given to other .* name an agent of the same backend"):
            await bridge.create("and then?", continue_task=task.id)
        again = await bridge.run("and then?", agent="second", continue_task=task.id)
    assert again.session_id == task.session_id
    assert [post.get("previous_task_id") for post in other.posts] == [None, task.id]
    assert one.posts == []


async def test_a_task_that_was_made_elsewhere_is_found_at_whichever_backend_has_it(ledger: Path) -> None:
    one, other = says("one"), says("other")
    async with one.serve(), other.serve():
        async with TaskBridge(backend(other, "other"), ledger=ledger.with_name("elsewhere")) as elsewhere:
            made = await elsewhere.run("x")
        async with bridge_of(ledger, one, other) as bridge:
            assert (await bridge.wait(made.id)).answer == "other"


async def test_what_the_chosen_backend_cannot_is_refused_before_anything_is_sent(ledger: Path) -> None:
    one, other = says("one"), says("other")
    image = {"type": "image", "image_url": {"url": "data:image/png;base64,aGk="}}
    async with bridge_of(ledger, one, other, ONE_PASS) as bridge:
        assert bridge.capabilities.client_tools
        assert bridge.capabilities_of(None).client_tools
        assert not bridge.capabilities_of("second").client_tools
        with pytest.raises(InvalidRequestError, match="'other' cannot call client tools"):
            await bridge.create("x", agent="second", client_tools=[HELLO])
        with pytest.raises(InvalidRequestError, match="'other' takes no attachments but text"):
            await bridge.create("x", agent="second", attachments=[image])
        task = await bridge.run("x", agent="second", attachments=["more text"])
        with pytest.raises(InvalidRequestError, match="'other' knows nothing of earlier tasks"):
            await bridge.create("x", agent="second", continue_task=task.id)
        with pytest.raises(InvalidRequestError, match="no agent profile 'third'"):
            bridge.capabilities_of("third")
    assert len(other.posts) == 1


async def test_profiles_and_backends_have_to_fit(ledger: Path) -> None:
    one, other = says("one"), says("other")
    async with one.serve(), other.serve():
        with pytest.raises(ConfigurationError, match="'second' names the backend 'other'; there are: one"):
            TaskBridge(backend(one, "one"), ledger=ledger, agents=AGENTS)
        with pytest.raises(ConfigurationError, match="same name: one, one"):
            TaskBridge(backend(one, "one"), more_backends=[backend(other, "one")], ledger=ledger)
