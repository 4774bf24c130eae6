"""The HTTP server: both eras, tokens, checks of Host and Origin, bounds, health, and leaving."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from pydantic import SecretStr

from agentlin_bridge.errors import BridgeError, ConfigurationError
from agentlin_bridge.hosts.mcp import http as http_server
from agentlin_bridge.hosts.mcp.principals import Principals
from agentlin_bridge.hosts.mcp.web import OpenRequests
from tests.hosts.mcp.conftest import READ_FILE, Gated
from tests.hosts.mcp.web import ALICE, BOB, TOKENS, by_hand, command, hosted, listening, web
from tests.support.processes import subprocess_environment

pytestmark = pytest.mark.anyio

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "bare", "version": "1"},
    },
}
ACCEPT = {"Accept": "application/json, text/event-stream"}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_host_runs_its_tool_over_http(embedded: dict[str, str], tmp_path: Path, mode: str) -> None:
    async with web(embedded, tmp_path) as server, hosted(server, mode=mode) as host:
        asked = await host.ask("create_task", instructions="Summarise notes.md.", client_tools=[READ_FILE])
        (call,) = asked["tool_calls"]
        done = await host.ask(
            "submit_tool_results",
            task_id=asked["task_id"],
            results=[{"call_id": call["call_id"], "content": "# Tides\n\nThe moon pulls the sea.\n"}],
        )
        assert done["status"] == "completed"
        assert "Tides" in done["answer"]
        # Without tokens everybody is the principal of all other local bridges.
        assert len((await host.ask("list_tasks"))["tasks"]) == 1


async def test_who_may_come_in(gated_settings: dict[str, str], gated: Gated, tmp_path: Path) -> None:
    async with (
        web({**gated_settings, "AGENTLIN_BRIDGE_MCP_TOKENS": TOKENS}, tmp_path) as server,
        httpx.AsyncClient(headers=ACCEPT) as http,
    ):
        assert (await http.get(f"{server.origin}/healthz")).json() == {"status": "ok"}
        for token in ("", "Bearer", f"Basic {ALICE}", "Bearer nobody-knows-this-one", f"Bearer {ALICE}x"):
            refused = await http.post(server.url, json=INITIALIZE, headers={"Authorization": token})
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"].startswith("Bearer ")
        entitled = {"Authorization": f"Bearer {ALICE}"}
        assert (await http.post(server.url, json=INITIALIZE, headers=entitled)).status_code == 200
        for wrong, status in [
            ({"Host": "evil.example"}, 421),
            ({"Origin": "https://evil.example"}, 403),
            ({"Content-Type": "text/plain"}, 400),
        ]:
            assert (await http.post(server.url, json=INITIALIZE, headers={**entitled, **wrong})).status_code == status
        large = {**INITIALIZE, "padding": "x" * (4 * 1024 * 1024)}
        assert (await http.post(server.url, json=large, headers=entitled)).status_code == 413
        assert (await http.post(f"{server.origin}/elsewhere", json=INITIALIZE)).status_code == 404
        assert not gated.headers
    assert ALICE not in server.stderr


async def test_names_given_by_setting_are_accepted(gated_settings: dict[str, str], tmp_path: Path) -> None:
    settings = {
        **gated_settings,
        "AGENTLIN_BRIDGE_MCP_TOKENS": TOKENS,
        "AGENTLIN_BRIDGE_MCP_HOSTS": '["bridge.example", "other.example:8443"]',
        "AGENTLIN_BRIDGE_MCP_ORIGINS": '["https://page.example"]',
    }
    async with web(settings, tmp_path, "--host", "0.0.0.0", "--path", "/here") as server:
        port = server.url.rpartition(":")[2].partition("/")[0]
        async with httpx.AsyncClient(headers={**ACCEPT, "Authorization": f"Bearer {ALICE}"}) as http:
            for host, origin, status in [
                ("bridge.example", "https://page.example", 200),
                ("bridge.example:443", None, 200),
                ("other.example:8443", None, 200),
                ("other.example", None, 421),
                ("127.0.0.1", None, 421),
                ("bridge.example", "http://localhost:1", 403),
            ]:
                headers = {"Host": host, **({"Origin": origin} if origin else {})}
                answer = await http.post(f"http://127.0.0.1:{port}/here", json=INITIALIZE, headers=headers)
                assert answer.status_code == status, (host, origin)


@pytest.mark.parametrize(
    ("arguments", "settings", "says"),
    [
        (["--host", "0.0.0.0"], {}, "Without tokens the server listens on loopback addresses only"),
        (["--host", "0.0.0.0"], {"AGENTLIN_BRIDGE_MCP_TOKENS": TOKENS}, "has to know what its clients call it"),
        (["--host", "203.0.113.7"], {"AGENTLIN_BRIDGE_MCP_TOKENS": TOKENS}, "cannot listen on 203.0.113.7"),
        (["--path", "/healthz"], {}, "--path is '/healthz'"),
        (["--path", "mcp"], {}, "--path is 'mcp'"),
        (["--transport", "carrier-pigeon"], {}, "use stdio or http"),
        ([], {"AGENTLIN_BRIDGE_MCP_TOKENS": '{"a": "short"}'}, "The token of 'a' in AGENTLIN_BRIDGE_MCP_TOKENS"),
        ([], {"AGENTLIN_BRIDGE_MCP_TOKENS": '{"a b": "0123456789abcdef"}'}, "'a b' in AGENTLIN_BRIDGE_MCP_TOKENS"),
        ([], {"AGENTLIN_BRIDGE_MCP_TOKENS": f'{{"a": "{BOB}", "b": "{BOB}"}}'}, "have the same token"),
        ([], {"AGENTLIN_BRIDGE_MCP_TOKENS": TOKENS.replace('alice"', 'local"')}, "is called 'local' and has others"),
        ([], {"AGENTLIN_BRIDGE_MCP_TOKENS": BOB}, "mcp_tokens"),
        ([], {"AGENTLIN_BRIDGE_MCP_KEYS": '["tooshort"]'}, "is shorter than 32 bytes"),
    ],
)
def test_what_is_refused_at_the_start(
    tmp_path: Path, arguments: list[str], settings: dict[str, str], says: str
) -> None:
    done = subprocess.run(
        command("--port", "0", *arguments),
        env=subprocess_environment(AGENTLIN_BRIDGE_LEDGER=str(tmp_path / "ledger"), **settings),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert "Next: " in done.stderr
    assert BOB not in done.stderr
    assert len(done.stderr.splitlines()) == 1


async def test_a_port_that_is_taken_is_named(embedded: dict[str, str], tmp_path: Path) -> None:
    async with web(embedded, tmp_path) as server:
        port = server.url.rpartition(":")[2].partition("/")[0]
        second = await anyio.run_process(
            command("--port", port), env=subprocess_environment(**embedded), cwd=tmp_path, check=False
        )
        assert second.returncode == 2
        assert f"cannot listen on 127.0.0.1:{port}" in second.stderr.decode()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_signal_ends_the_waits_with_their_task_ids(
    gated_settings: dict[str, str], gated: Gated, tmp_path: Path, mode: str
) -> None:
    answers = []
    async with web(gated_settings, tmp_path) as server, hosted(server, mode=mode) as host:

        async def wait() -> None:
            answers.append(await host.ask("create_task", instructions="Take long.", wait_seconds=300))

        # The client wants to know the tools when the answer comes, and then there is no server any more.
        await host.client.list_tools()
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await gated.posted.wait()
            assert await server.ended() == 0
    (answer,) = answers
    assert answer["status"] in ("created", "working")
    assert not gated.was_canceled
    gated.gate.set()
    async with web(gated_settings, tmp_path) as server, hosted(server, mode=mode) as host:
        done = await host.ask("retrieve_task", task_id=answer["task_id"], wait_seconds=20)
        assert done["answer"] == "done"


async def test_a_listening_client_does_not_hold_it_up(gated_settings: dict[str, str], tmp_path: Path) -> None:
    async with web(gated_settings, tmp_path) as server, hosted(server, mode="legacy") as host:
        # The session's standing stream is open by then.
        await host.ask("list_tasks")
        assert await server.ended(signal.SIGINT) == 0


async def test_a_cancelled_call_cancels_only_its_own_task(
    gated_settings: dict[str, str], gated: Gated, tmp_path: Path
) -> None:
    """Two clients give their calls the same ids; one of them cancels."""
    async with (
        web({**gated_settings, "AGENTLIN_BRIDGE_MCP_TOKENS": TOKENS}, tmp_path) as server,
        hosted(server, ALICE, mode="legacy") as alice,
        hosted(server, BOB, mode="legacy") as bob,
    ):
        async with anyio.create_task_group() as both:
            both.start_soon(lambda: bob.call("create_task", instructions="Bob's."))
            await gated.posted.wait()
            gated.posted = anyio.Event()
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: alice.call("create_task", instructions="Alice's."))
                await gated.posted.wait()
                group.cancel_scope.cancel()
            (hers,) = (await alice.ask("list_tasks"))["tasks"]
            hers = await alice.ask("retrieve_task", task_id=hers["task_id"], wait_seconds=20)
            assert hers["status"] == "canceled"
            (his,) = (await bob.ask("list_tasks"))["tasks"]
            assert his["status"] in ("created", "working")
            gated.gate.set()
        assert (await bob.ask("retrieve_task", task_id=his["task_id"]))["status"] == "completed"


async def test_a_closed_response_ends_only_the_wait(
    gated_settings: dict[str, str], gated: Gated, tmp_path: Path
) -> None:
    async with web(gated_settings, tmp_path) as server, by_hand(server) as client:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: client.call("create_task", instructions="Take long."))
                await gated.posted.wait()
                scope.cancel()
        (task,) = (await client.ask("list_tasks"))["tasks"]
        gated.gate.set()
        done = await client.ask("retrieve_task", task_id=task["task_id"], wait_seconds=20)
        assert done["answer"] == "done"


async def test_a_second_signal_ends_it_at_once(embedded: dict[str, str], tmp_path: Path) -> None:
    # What is cut off may show in the log.
    async with listening(command("--port", "0"), embedded, tmp_path) as server:
        port = int(server.url.rpartition(":")[2].partition("/")[0])
        async with await anyio.connect_tcp("127.0.0.1", port) as slow:
            # A request that never becomes whole; the server is reading it once it asks for the rest.
            lines = ["POST /mcp HTTP/1.1", f"Host: 127.0.0.1:{port}", "Accept: application/json, text/event-stream"]
            lines += ["Content-Type: application/json", "Content-Length: 100", "Expect: 100-continue", "", ""]
            await slow.send("\r\n".join(lines).encode())
            assert b" 100 " in await slow.receive()
            server.process.send_signal(signal.SIGINT)
            assert await server.ended(within=30) == 0
    assert "leaving at once" in server.stderr


def test_a_server_that_cannot_start_says_so(
    embedded: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no"})

    for name, value in embedded.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(http_server, "build_app", lambda *_, **__: (fails, OpenRequests(fails)))
    with caplog.at_level("INFO"), pytest.raises(ConfigurationError, match="could not start"):
        http_server.serve_http(http_server.Address("127.0.0.1", 0, "/mcp"))
    assert "serving MCP" not in caplog.text


def test_a_request_without_a_principal_is_nobodys() -> None:
    with pytest.raises(BridgeError, match="names no principal"):
        Principals({"alice": SecretStr(ALICE)}).current()
