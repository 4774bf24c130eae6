"""A real MCP host: the SDK's client on the stdio server's pipes."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters, stdio_client
from mcp_types import CallToolResult, TextContent

from tests.support.processes import subprocess_environment
from tests.support.remote import Agent, ScriptedRemote, Turn, message

READ_FILE = {
    "name": "read_file",
    "description": "Read a text file.",
    "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
}

Fields = dict[str, Any]


def text_of(result: CallToolResult) -> str:
    """The one text a result consists of."""
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


class Host:
    """An MCP host at work."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def call(self, tool: str, **arguments: Any) -> CallToolResult:
        result = await self.client.call_tool(f"agentlin_{tool}", arguments)
        assert isinstance(result, CallToolResult)
        return result

    async def ask(self, tool: str, **arguments: Any) -> Fields:
        """Call a tool that has to succeed; its structured content."""
        result = await self.call(tool, **arguments)
        assert not result.is_error, text_of(result)
        assert result.structured_content is not None
        return dict(result.structured_content)

    async def refused(self, tool: str, **arguments: Any) -> str:
        """Call a tool that has to fail; what it says, which always includes a next step."""
        result = await self.call(tool, **arguments)
        assert result.is_error, text_of(result)
        assert "Next: " in text_of(result)
        return text_of(result)


Hosting = Callable[..., AbstractAsyncContextManager[Host]]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """For the whole session: some hosts serve all tests of a module."""
    return "asyncio"


@asynccontextmanager
async def connected(
    settings: Mapping[str, str],
    directory: Path,
    *,
    mode: str = "auto",
    command: Sequence[str] = ("mcp",),
    **client: Any,
) -> AsyncIterator[Host]:
    """A host and its server, which must not print a traceback."""
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "agentlin_bridge", *command],
        env=subprocess_environment(**settings),
        cwd=directory,
    )
    errors = directory / "stderr"
    with errors.open("a", encoding="utf-8") as log:
        transport = stdio_client(parameters, errlog=log)
        async with Client(transport, mode=mode, read_timeout_seconds=30, **client) as connection:
            yield Host(connection)
    assert "Traceback" not in errors.read_text(encoding="utf-8")


@pytest.fixture
def hosting(tmp_path: Path) -> Hosting:
    """Starts servers with the given settings in the test's own directory, and connects to them."""

    @asynccontextmanager
    async def start(settings: Mapping[str, str], **options: Any) -> AsyncIterator[Host]:
        with anyio.fail_after(30):
            async with connected(settings, tmp_path, **options) as host:
                yield host

    return start


@pytest.fixture(scope="module")
async def host(embedded_database: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Host]:
    """A host for all tests of a module; its server uses the shared embedded server."""
    directory = tmp_path_factory.mktemp("host")
    settings = {
        "AGENTLIN_BRIDGE_LEDGER": str(directory / "ledger"),
        "AGENTLIN_BRIDGE_DATABASE": str(embedded_database),
    }
    async with connected(settings, directory) as connection:
        yield connection


@pytest.fixture(scope="module")
async def _scripted(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[ScriptedRemote, Host]]:
    directory = tmp_path_factory.mktemp("scripted")
    async with ScriptedRemote(lambda _: Turn([])).serve() as remote:
        settings = {"AGENTLIN_BASE_URL": remote.base_url, "AGENTLIN_BRIDGE_LEDGER": str(directory / "ledger")}
        async with connected(settings, directory) as connection:
            yield remote, connection


Facing = Callable[[Agent], Host]


@pytest.fixture
def facing(_scripted: tuple[ScriptedRemote, Host]) -> Facing:
    """The module's host, facing a remote agent that does what the test says."""
    remote, connection = _scripted

    def face(agent: Agent) -> Host:
        remote.agent = agent
        return connection

    return face


class Gated(ScriptedRemote):
    """Answers once it is let."""

    def __init__(self) -> None:
        super().__init__(lambda _: Turn([message("done")], gate=self.gate))
        self.gate = anyio.Event()

    @property
    def was_canceled(self) -> bool:
        return any("cancel" in request for request in self.requests)


@pytest.fixture
async def gated() -> AsyncIterator[Gated]:
    with anyio.fail_after(60):
        async with Gated().serve() as listening:
            yield listening
            listening.gate.set()


@pytest.fixture
def gated_settings(gated: Gated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a server, or of this process, that faces the gated remote."""
    given = {"AGENTLIN_BASE_URL": gated.base_url, "AGENTLIN_BRIDGE_LEDGER": str(tmp_path / "ledger")}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return given
