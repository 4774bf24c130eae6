"""What a host learns before it calls anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.hosts.mcp.conftest import Host, Hosting

pytestmark = pytest.mark.anyio

NAMES = [
    "agentlin_create_task",
    "agentlin_retrieve_task",
    "agentlin_submit_tool_results",
    "agentlin_cancel_task",
    "agentlin_delete_task",
    "agentlin_pause_task",
    "agentlin_resume_task",
    "agentlin_list_tasks",
]


def every_schema(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A schema and those inside it."""
    yield schema
    for inner in schema.get("properties", {}).values():
        yield from every_schema(inner)
    if "items" in schema:
        yield from every_schema(schema["items"])


async def listed(host: Host) -> list[dict[str, Any]]:
    tools = (await host.client.list_tools()).tools
    return [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools]


async def test_the_tools_are_listed_in_order_and_cost_little(host: Host) -> None:
    tools = await listed(host)

    assert [tool["name"] for tool in tools] == NAMES
    assert all(len(name) <= 30 for name in NAMES)
    assert all("outputSchema" not in tool for tool in tools)
    size = len(json.dumps(tools, separators=(",", ":")))
    print(f"tools/list: {size} bytes")  # noqa: T201
    assert size <= 4_500
    assert len(host.client.instructions or "") <= 600


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_strict_hosts_can_read_every_schema(hosting: Hosting, embedded: dict[str, str], mode: str) -> None:
    async with hosting(embedded, mode=mode) as host:
        tools = await listed(host)

    for tool in tools:
        Draft202012Validator.check_schema(tool["inputSchema"])
        assert tool["inputSchema"]["type"] == "object"
        for schema in every_schema(tool["inputSchema"]):
            assert isinstance(schema["type"], str)
            assert schema["type"] != "array" or "type" in schema["items"]
            assert not schema.keys() & {"$schema", "$ref", "$defs", "additionalProperties", "anyOf", "oneOf", "title"}


async def test_annotations_tell_what_is_safe(host: Host) -> None:
    annotations = {tool["name"].removeprefix("agentlin_"): tool["annotations"] for tool in await listed(host)}

    assert {name for name, hints in annotations.items() if hints.get("readOnlyHint")} == {"retrieve_task", "list_tasks"}
    assert {name for name, hints in annotations.items() if hints.get("destructiveHint")} == {
        "cancel_task",
        "delete_task",
    }
    assert annotations["create_task"] == {"destructiveHint": False}


async def test_the_demo_agent_is_announced_where_models_look(host: Host) -> None:
    notice = "demo agent: only digests text, Markdown and CSV"

    assert notice in (host.client.instructions or "")
    assert notice in (await listed(host))[0]["description"]


async def test_a_deployment_is_announced_as_nothing_but_itself(hosting: Hosting, tmp_path: Path) -> None:
    settings = {"AGENTLIN_BASE_URL": "http://127.0.0.1:9/v1", "AGENTLIN_BRIDGE_LEDGER": str(tmp_path / "ledger")}
    async with hosting(settings) as host:
        tools = await listed(host)

        assert "demo" not in json.dumps(tools)
        assert "demo" not in (host.client.instructions or "")
    # Nothing was opened just to list tools.
    assert not (tmp_path / "ledger").exists()
