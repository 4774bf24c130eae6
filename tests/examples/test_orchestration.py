"""The LangGraph examples: a supervisor that fans out, a reviewer that delegates again, a person who approves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from anyio.from_thread import start_blocking_portal

from agentlin_bridge import Task, TaskBridge, TaskStatus
from tests.support.remote import Json, ScriptedRemote, Turn, message

from .running import run, run_in_vain


class Busy:
    """A remote whose tasks wait for each other in pairs; it refuses those about `bad.md`.

    Attributes:
        most: how many tasks it had at the same time.
    """

    def __init__(self) -> None:
        self.remote = ScriptedRemote(self._turn)
        self.most = 0
        self._running = 0
        self._arrived = 0
        self._pair = anyio.Event()
        self._crowd = anyio.Event()

    async def _turn(self, body: Json) -> Turn:
        self._running += 1
        self.most = max(self.most, self._running)
        if self._running > 2:
            self._crowd.set()
        self._arrived += 1
        pair = self._pair
        if self._arrived % 2 == 0:
            pair.set()
            self._pair = anyio.Event()
        await pair.wait()
        # A third must not come; if it is about to, this is when it would.
        with anyio.move_on_after(0.5):
            await self._crowd.wait()
        self._running -= 1
        said = str(body["user_message_content"])
        if "bad.md" in said:
            return Turn(status="failed", error={"code": -32000, "message": "out of tokens"})
        return Turn([message(f"I was told {said}")])


@pytest.fixture
def busy() -> Iterator[Busy]:
    busy = Busy()
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(busy.remote.serve()):
        yield busy


def tasks() -> list[Task]:
    """All tasks on record."""

    async def found() -> list[Task]:
        async with TaskBridge.from_env() as bridge:
            return [task async for task in bridge.list()]

    return anyio.run(found)


@pytest.mark.parametrize("flags", [(), ("--batch",)])
def test_a_supervisor_fans_out_and_gathers(
    embedded: dict[str, str], harbour: Path, prices: Path, flags: tuple[str, ...]
) -> None:
    printed = run("supervisor.py", embedded, *flags, prices, harbour)
    assert sorted(re.findall(r"the agent reads (\S+)", printed)) == [str(harbour), str(prices)]
    head, of_prices, of_harbour = printed.split("\n=== ")
    assert "2 of 2 files have an answer." in head
    assert of_prices.startswith(f"{prices}\ndemo agent: ")
    assert "| price | 2 | 2 | 4 | 8 | 6 |" in of_prices
    assert of_harbour.startswith(f"{harbour}\ndemo agent: ")
    assert "2 sections" in of_harbour
    assert [task.status for task in tasks()] == [TaskStatus.COMPLETED] * 2


def test_a_supervisor_over_the_repositorys_own_files(embedded: dict[str, str]) -> None:
    assert "README.md\ndemo agent: " in run("supervisor.py", embedded)


@pytest.mark.parametrize("flags", [(), ("--batch",)])
def test_a_supervisor_keeps_its_bound_and_what_did_not_fail(
    embedded: dict[str, str], busy: Busy, flags: tuple[str, ...]
) -> None:
    names = ["a.md", "bad.md", "c.md", "d.md", "e.md", "f.md"]
    settings = {**embedded, "AGENTLIN_BASE_URL": busy.remote.base_url}
    printed = run("supervisor.py", settings, *flags, "--at-once", "2", *names)
    assert printed.startswith("5 of 6 files have an answer.\n")
    assert re.findall(r"^=== (.*)$", printed, re.MULTILINE) == names
    assert printed.count("out of tokens") == 1
    assert len(busy.remote.posts) == 6
    assert busy.most == 2


def test_a_reviewer_delegates_again_until_the_answer_passes(
    embedded: dict[str, str], harbour: Path, prices: Path
) -> None:
    printed = run("review.py", embedded, harbour, prices)
    assert re.findall(r"attempt .*", printed) == [
        "attempt 1: 4 things are not mentioned",
        "attempt 2: 0 things are not mentioned",
    ]
    for part in ("Harbour", "Tides", "fish", "price"):
        assert part in printed.partition("demo agent: ")[2]
    assert len(tasks()) == 2


def test_a_reviewer_gives_up(embedded: dict[str, str], tmp_path: Path) -> None:
    long = tmp_path / "long.md"
    # The demo agent's outline has no room for so many.
    long.write_text("".join(f"# Pier number {number} end\n\nx\n" for number in range(40)), encoding="utf-8")
    printed, said = run_in_vain("review.py", embedded, "--attempts", "2", long)
    assert re.findall(r"attempt .*", printed) == [
        "attempt 1: 40 things are not mentioned",
        "attempt 2: 15 things are not mentioned",
    ]
    assert "did not pass review after 2 attempts" in said
    assert "'Pier number 25 end'" in said
    assert "'Pier number 24 end'" not in said
    assert len(tasks()) == 2


def test_a_reviewer_of_the_examples_own_data(embedded: dict[str, str]) -> None:
    assert "attempt 2: 0 things are not mentioned" in run("review.py", embedded)


def test_a_person_approves_in_a_later_process(embedded: dict[str, str], harbour: Path, tmp_path: Path) -> None:
    thread = ("--thread", "7", "--checkpoints", tmp_path / "checkpoints.sqlite3")
    asked = run("approval.py", embedded, f"Digest `{harbour}`.", *thread)
    (waiting,) = tasks()
    assert asked == f"{waiting.id} wants read_file({{'path': '{harbour}'}}). Next: --approve or --reject REASON\n"
    # Run again, it is the same question, whatever else it is told.
    assert run("approval.py", embedded, "Digest `other.md`.", *thread) == asked
    answered = run("approval.py", embedded, "--approve", *thread)
    assert answered.startswith(f"reading {harbour}\ndemo agent: ")
    assert "2 sections" in answered
    (task,) = tasks()
    assert (task.id, task.status) == (waiting.id, TaskStatus.COMPLETED)
    _, said = run_in_vain("approval.py", embedded, "--approve", *thread)
    assert "Nothing waits for a decision in thread '7'." in said
    # The next task of the same thread is another one.
    assert "task_" in run("approval.py", embedded, f"Digest `{harbour}`.", *thread)
    assert len(tasks()) == 2


def test_a_person_refuses(embedded: dict[str, str], harbour: Path, tmp_path: Path) -> None:
    checkpoints = ("--checkpoints", tmp_path / "checkpoints.sqlite3")
    run("approval.py", embedded, f"Digest `{harbour}`.", *checkpoints)
    _, said = run_in_vain("approval.py", embedded, "--reject", "it is private", "--thread", "other", *checkpoints)
    assert "Nothing waits" in said
    answered = run("approval.py", embedded, "--reject", "it is private", *checkpoints)
    assert "reading" not in answered
    assert "The reason: it is private" in answered
    assert len(tasks()) == 1
