"""The server process: it starts, stays silent but for the protocol, leaves quickly, and can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from tests.hosts.mcp.conftest import Hosting, text_of
from tests.hosts.mcp.wire import HELLO, wire
from tests.support.processes import subprocess_environment
from tests.support.remote import Json, ScriptedRemote, Turn, call, message, results_of

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("how", "used"), [("EOF", True), ("SIGINT", True), ("SIGTERM", True), ("EOF", False), ("SIGTERM", False)]
)
async def test_it_leaves_quickly_and_in_order(embedded: dict[str, str], tmp_path: Path, how: str, used: bool) -> None:
    async with wire(embedded, tmp_path) as server:
        await server.greet()
        if used:
            assert (await server.call("create_task", instructions="Summarise a.md."))["status"] == "input-required"
        if how == "EOF":
            await server.stdin.aclose()
        else:
            server.process.send_signal(signal.Signals[how])

        # After two seconds hosts begin to kill.
        assert await server.ended(within=2) == 0
        assert await server.rest() == (b"", "")
    # A closed ledger leaves neither a write-ahead log nor a sign of life.
    ledger = embedded["AGENTLIN_BRIDGE_LEDGER"]
    assert await anyio.Path(ledger).exists() is used
    assert not await anyio.Path(f"{ledger}-wal").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_during_the_start_ends_it_too(
    embedded: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    # A config file that is a named pipe holds the start where the settings are read.
    pipe = tmp_path / "config.toml"
    os.mkfifo(pipe)
    async with wire({**embedded, "AGENTLIN_BRIDGE_CONFIG": str(pipe)}, tmp_path) as server:
        writer = await anyio.to_thread.run_sync(lambda: os.open(pipe, os.O_WRONLY))
        server.process.send_signal(number)

        assert await server.ended() == 0
        os.close(writer)


@pytest.mark.parametrize("altogether", [True, False], ids=["stdin and stdout", "stdout"])
async def test_a_host_that_no_longer_reads_ends_it(embedded: dict[str, str], tmp_path: Path, altogether: bool) -> None:
    nobody, stdout = os.pipe()
    os.close(nobody)
    async with wire(embedded, tmp_path, stdout=stdout) as server:
        os.close(stdout)
        await server.send("initialize", HELLO)
        if altogether:
            await server.stdin.aclose()

        assert await server.ended() == 0


async def test_half_a_configuration_is_refused_at_the_start(tmp_path: Path) -> None:
    async with wire({"AGENTLIN_BRIDGE_BACKEND": "agentlin"}, tmp_path) as server:
        out, errors = await server.rest()

        assert await server.ended() == 2
    assert out == b""
    assert errors.startswith("agentlin-bridge: The backend agentlin is to be used, but neither")
    assert "Next: set AGENTLIN_API_KEY" in errors
    assert len(errors.splitlines()) == 1


async def test_garbage_on_stdin_is_survived(embedded: dict[str, str], tmp_path: Path) -> None:
    async with wire(embedded, tmp_path) as server:
        await server.greet()
        await server.stdin.send(b"\xff\xfe not JSON\n[]\n")
        await server.send("tools/list")

        assert len((await server.answer())["tools"]) == 8


def processes_that_know(path: Path) -> list[int]:
    """Processes with a path in their environment."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if str(path).encode() in environment.read_bytes():
                found.append(int(environment.parent.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_a_hundred_starts_and_kills_leave_nobody(tmp_path: Path) -> None:
    settings = {"AGENTLIN_BASE_URL": "http://127.0.0.1:9/v1", "AGENTLIN_BRIDGE_LEDGER": str(tmp_path / "ledger")}
    several = anyio.Semaphore(8)

    async def one(number: int) -> None:
        async with several, wire(settings, tmp_path) as server:
            if number % 20 == 0:
                await server.greet()
                await server.call("list_tasks")
            if number % 20 == 1:
                await server.stdin.aclose()
                assert await server.ended(within=25) == 0
            else:
                server.process.send_signal(signal.SIGTERM if number % 2 else signal.SIGKILL)
                await server.ended()

    async with anyio.create_task_group() as group:
        for number in range(100):
            group.start_soon(one, number)

    assert processes_that_know(tmp_path) == []


async def test_text_survives_any_locale_and_line_ending(gated_settings: dict[str, str], tmp_path: Path) -> None:
    settings = {**gated_settings, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "cp932:strict"}
    async with wire(settings, tmp_path, newline=b"\r\n") as server:
        await server.greet()
        await server.send("prompts/get", {"name": "delegate", "arguments": {"task": "Grüße — 潮 🌊"}})
        (said,) = (await server.answer())["messages"]
        assert said["content"]["text"].endswith("Grüße — 潮 🌊")


async def test_killed_between_question_and_answer(hosting: Hosting, embedded: dict[str, str], tmp_path: Path) -> None:
    async with wire(embedded, tmp_path) as server:
        await server.greet()
        asked = await server.call("create_task", instructions="Summarise a.md.")
        server.process.kill()
        assert await server.ended() == -signal.SIGKILL

    async with hosting(embedded) as host:
        assert (await host.ask("retrieve_task", task_id=asked["task_id"]))["tool_calls"] == asked["tool_calls"]
        done = await host.ask(
            "submit_tool_results",
            task_id=asked["task_id"],
            results=[{"call_id": asked["tool_calls"][0]["call_id"], "content": "# Ebb\n\nLow water.\n"}],
        )
        assert "Ebb" in done["answer"]


async def test_what_may_have_run_already_is_said(hosting: Hosting, tmp_path: Path) -> None:
    def acting(body: Json) -> Turn:
        results = results_of(body)
        return Turn([message(results["c"])] if results else [call("c", "act", {"what": "it"})])

    async with ScriptedRemote(acting).serve() as remote:
        ledger = tmp_path / "ledger"
        # A script whose handler kills it in the middle of its work.
        died = await anyio.run_process(
            [sys.executable, "-m", "tests.support.delegate", remote.base_url, str(ledger), "new", "die"],
            env=subprocess_environment(),
            cwd=Path(__file__).parents[3],
            stderr=subprocess.DEVNULL,
            check=False,
        )
        task_id = died.stdout.decode().strip()
        settings = {"AGENTLIN_BASE_URL": remote.base_url, "AGENTLIN_BRIDGE_LEDGER": str(ledger)}
        async with hosting(settings) as host:
            result = await host.call("retrieve_task", task_id=task_id, wait_seconds=20)
            assert result.structured_content is not None
            (pending,) = result.structured_content["tool_calls"]
            assert pending["outcome_unknown"] is True
            assert "it may have run already" in text_of(result)
            done = await host.ask(
                "submit_tool_results", task_id=task_id, results=[{"call_id": "c", "content": "it had run"}]
            )
    assert done["answer"] == "it had run"
