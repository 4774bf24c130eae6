"""A host that knows nothing but what the results say: it reads the text and follows the line `Next:`."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.hosts.mcp.conftest import READ_FILE, Host, text_of

pytestmark = pytest.mark.anyio

FILES = {"north.md": "# North\n\nA cold wind.\n", "south.md": "# South\n\nA warm wind.\n"}
CALL = re.compile(r'^- call_id "(?P<id>[^"]+)", tool "(?P<name>[^"]+)", arguments (?P<arguments>\{.*\})$', re.MULTILINE)
NEXT = re.compile(r"^Next: .*call (?P<tool>agentlin_\w+) with (?P<arguments>.*)\.$", re.MULTILINE)


def perform(name: str, arguments: dict[str, Any]) -> str:
    """What the host's model and tools would do."""
    if name == "read_file":
        return FILES[arguments["path"]]
    return next(content for path, content in FILES.items() if path in arguments["request"])


def next_call(text: str) -> tuple[str, dict[str, Any]] | None:
    """The call the result asks for, put together from its text alone."""
    found = NEXT.search(text)
    if found is None:
        return None
    arguments: dict[str, Any] = {}
    for name, value in re.findall(r'(\w+) ("[^"]*"|\[.*\]|\d+)', found["arguments"]):
        arguments[name] = json.loads(value)
    done = {call["id"]: perform(call["name"], json.loads(call["arguments"])) for call in CALL.finditer(text)}
    for result in arguments.get("results", []):
        result["content"] = done[result["call_id"]]
    return found["tool"], arguments


@pytest.mark.parametrize("tools", [[READ_FILE], []], ids=["read_file", "ask_host"])
@pytest.mark.parametrize("patience", [20, 0])
async def test_following_the_next_line_reaches_the_answer(
    host: Host, tools: list[dict[str, Any]], patience: int
) -> None:
    call: tuple[str, dict[str, Any]] | None = (
        "agentlin_create_task",
        {"instructions": "Compare north.md and south.md.", "client_tools": tools, "wait_seconds": patience},
    )
    used = []
    text = ""
    while call is not None:
        used.append(call[0])
        text = text_of(await host.call(call[0].removeprefix("agentlin_"), **call[1]))
        call = next_call(text)

    assert used[-1] == "agentlin_submit_tool_results"
    assert ("agentlin_retrieve_task" in used) is (patience == 0)
    assert "North" in text
    assert "South" in text
