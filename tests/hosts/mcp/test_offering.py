"""What a task carries: tools by configured name, tools the bridge runs, images and files; and the tools' own names."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.mcp.conftest import READ_FILE, Facing, Hosting, text_of
from tests.support.remote import Json, ScriptedRemote, Turn, call, message, results_of

pytestmark = pytest.mark.anyio

PNG = base64.b64encode(b"\x89PNG\r\n").decode()
MCP_IMAGE = {"type": "image", "data": PNG, "mimeType": "image/png"}
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}

CONFIG = """
[mcp]
prefix = "up_"
ask_user = false
ask_host = false

[client_tools.run_query]
description = "Run a query."
parameters = { type = "object", properties = { sql = { type = "string" } }, required = ["sql"] }
"""

TOOLS = '''
def double(number: int) -> int:
    """Twice the number."""
    return 2 * number
'''


async def test_configured_tools_go_by_their_names(hosting: Hosting, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(CONFIG, encoding="utf-8")
    async with ScriptedRemote(lambda _: Turn([call("q", "run_query", {"sql": "select 1"})])).serve() as remote:
        settings = {
            "AGENTLIN_BASE_URL": remote.base_url,
            "AGENTLIN_BRIDGE_LEDGER": str(tmp_path / "ledger"),
            "AGENTLIN_BRIDGE_CONFIG": str(config),
        }
        async with hosting(settings) as host:
            tools = (await host.client.list_tools()).tools
            assert [tool.name for tool in tools][:2] == ["up_create_task", "up_retrieve_task"]
            assert "Configured client_tools: run_query." in (tools[0].description or "")
            assert "agentlin_" not in "".join(str(tool) for tool in tools)
            assert "up_create_task" in (host.client.instructions or "")

            for given in (["run_query"], [{"name": "run_query"}]):
                arguments = {"instructions": "Ask.", "client_tools": given}
                result = await host.client.call_tool("up_create_task", arguments)
                assert result.structured_content is not None
                assert "call up_submit_tool_results with" in result.structured_content["next"]
                (offered,) = remote.posts[-1]["client_tools"]
                assert named(offered) == "run_query"
                assert "select" not in str(offered)
                assert "sql" in str(offered)

            said = await host.client.call_tool(
                "up_create_task", {"instructions": "Ask.", "client_tools": ["run_quary"]}
            )
            assert "no configured client tool 'run_quary' (run_query configured)" in text_of(said)


def named(tool: Json) -> str:
    return str(tool.get("name") or tool["function"]["name"])


async def test_tools_of_the_bridge_are_offered_with_every_task_and_run_by_it(hosting: Hosting, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TOOLS, encoding="utf-8")

    def agent(body: Json) -> Turn:
        results = results_of(body)
        return Turn([message(results["d"])] if results else [call("d", "double", {"number": 21})])

    command = ("mcp", "--tool", "mine:double", "--approval", "never")
    async with ScriptedRemote(agent).serve() as remote:
        settings = {"AGENTLIN_BASE_URL": remote.base_url, "AGENTLIN_BRIDGE_LEDGER": str(tmp_path / "ledger")}
        async with hosting(settings, command=command) as host:
            done = await host.ask("create_task", instructions="Double.", client_tools=[READ_FILE])

    assert done["answer"] == "42"
    assert [named(tool) for tool in remote.posts[0]["client_tools"]] == ["read_file", "double", "ask_host", "ask_user"]


@pytest.mark.parametrize(
    ("content", "arrives"),
    [
        (MCP_IMAGE, [IMAGE]),
        ([{"type": "text", "text": "a chart:"}, IMAGE], [{"type": "text", "text": "a chart:"}, IMAGE]),
        (
            [{"type": "audio", "data": PNG, "mimeType": "audio/mpeg"}],
            [{"type": "input_audio", "input_audio": {"data": PNG, "format": "mp3"}}],
        ),
        ({"rows": [1, 2]}, [{"type": "text", "text": '{"rows":[1,2]}'}]),
        ([], [{"type": "text", "text": "[]"}]),
    ],
)
async def test_results_may_hold_images(facing: Facing, content: Any, arrives: list[Json]) -> None:
    received: list[Json] = []

    def agent(body: Json) -> Turn:
        if not body.get("thought_messages"):
            return Turn([call("c", "ask_host", {"request": "show"})])
        received.extend(body["thought_messages"][0]["message_content"])
        return Turn([message("seen")])

    host = facing(agent)
    task = await host.ask("create_task", instructions="Look.")
    results = [{"call_id": "c", "content": content}]
    assert (await host.ask("submit_tool_results", task_id=task["task_id"], results=results))["answer"] == "seen"
    assert [{key: item[key] for key in wanted} for item, wanted in zip(received, arrives, strict=True)] == arrives


async def test_an_error_may_hold_an_image_and_half_an_image_is_refused(facing: Facing) -> None:
    def agent(body: Json) -> Turn:
        if not body.get("thought_messages"):
            return Turn([call("c", "ask_host", {"request": "show"})])
        parts = body["thought_messages"][0]["message_content"]
        return Turn([message(" ".join(part["type"] for part in parts))])

    host = facing(agent)
    task_id = (await host.ask("create_task", instructions="Look."))["task_id"]
    for broken in ({"type": "image", "data": PNG}, {"type": "image", "data": "", "mimeType": "image/png"}):
        results: list[Json] = [{"call_id": "c", "content": broken}]
        said = await host.refused("submit_tool_results", task_id=task_id, results=results)
        assert "A content item of type 'image' is not understood" in said
    results = [{"call_id": "c", "content": [MCP_IMAGE], "is_error": True}]
    done = await host.ask("submit_tool_results", task_id=task_id, results=results)
    assert done["answer"] == "text image_url"


async def test_attachments_by_content_and_by_url(facing: Facing) -> None:
    seen: list[Json] = []

    def agent(body: Json) -> Turn:
        seen.append(body)
        return Turn([message("seen")])

    files = [{"type": "file", "file": {"file_url": "https://example.org/a.pdf", "filename": "a.pdf"}}]
    await facing(agent).ask("create_task", instructions="Look.", attachments=["plain text", MCP_IMAGE, *files])

    sent = str(seen[0])
    assert "plain text" in sent
    assert IMAGE["image_url"]["url"] in sent  # type: ignore[index]
    assert "https://example.org/a.pdf" in sent
