"""The official Inspector: finds no fault with the tools, and every one of them can be called with it."""

from __future__ import annotations

import json

import pytest

from .conftest import READ_FILE, TOOLS, Inspecting

pytestmark = pytest.mark.parametrize("era", ["legacy", "modern"])


def test_the_tools_are_listed_strictly(inspecting: Inspecting, era: str) -> None:
    listed = inspecting(era).run("--method=tools/list", "--strict")

    assert (listed.returncode, listed.stderr) == (0, "")
    assert {tool["name"] for tool in json.loads(listed.stdout)["tools"]} >= TOOLS


def test_every_tool_can_be_called(inspecting: Inspecting, era: str) -> None:
    inspector = inspecting(era)

    asked = inspector.ask("create_task", instructions="Summarise notes.md.", client_tools=[READ_FILE])
    assert asked["status"] == "input-required"
    (call,) = asked["tool_calls"]
    assert (call["name"], call["arguments"]) == ("read_file", {"path": "notes.md"})

    assert inspector.ask("retrieve_task", task_id=asked["task_id"]) == asked

    results = [{"call_id": call["call_id"], "content": "# Tides\n\nThe moon pulls the sea.\n"}]
    done = inspector.ask("submit_tool_results", task_id=asked["task_id"], results=results)
    assert (done["task_id"], done["status"]) == (asked["task_id"], "completed")
    assert "Tides" in done["answer"]

    other = inspector.ask("create_task", instructions="Summarise notes.md.")
    assert [call["name"] for call in other["tool_calls"]] == ["ask_host"]
    canceled = inspector.ask("cancel_task", task_id=other["task_id"])
    assert canceled == {"task_id": other["task_id"], "status": "canceled", "remote": "stopped"}

    tasks = inspector.ask("list_tasks")["tasks"]
    assert [(task["task_id"], task["status"]) for task in tasks] == [
        (other["task_id"], "canceled"),
        (asked["task_id"], "completed"),
    ]

    deleted = inspector.ask("delete_task", task_id=other["task_id"])
    assert (deleted["task_id"], deleted["deleted"]) == (other["task_id"], True)
