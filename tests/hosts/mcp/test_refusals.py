"""Bad calls: one clear sentence with the next step, nothing done, and the task stays usable."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hosts.mcp.conftest import READ_FILE, Facing, Host
from tests.support.remote import Turn, call, message, results_of

pytestmark = pytest.mark.anyio

MISFITS: list[tuple[str, dict[str, Any], str]] = [
    ("create_task", {}, "instructions: Field required"),
    ("create_task", {"instructions": " \n"}, "The instructions are empty"),
    (
        "create_task",
        {"instructions": "x", "tools": []},
        "there is no argument 'tools', only instructions, client_tools",
    ),
    ("create_task", {"instructions": "x", "wait_seconds": -1}, "wait_seconds: Input should be greater than"),
    ("create_task", {"instructions": "x", "client_tools": [5]}, "client_tools.0: Input should be an object"),
    (
        "create_task",
        {"instructions": "x", "client_tools": ["read_file"]},
        "no configured client tool 'read_file' (none are configured)",
    ),
    ("create_task", {"instructions": "x", "client_tools": [{"name": "a b"}]}, "'a b' cannot be used"),
    ("create_task", {"instructions": "x", "client_tools": [READ_FILE, READ_FILE]}, "Two client tools are called"),
    (
        "create_task",
        {"instructions": "x", "client_tools": [{"name": "t", "parameters": "no JSON"}]},
        "client_tools.0.parameters: Input should be an object",
    ),
    ("create_task", {"instructions": "x", "agent": "nobody"}, "no agent profile 'nobody'"),
    ("create_task", {"instructions": "x", "output_schema": {"type": "wish"}}, "no valid JSON Schema"),
    ("create_task", {"instructions": "x", "attachments": [{"type": "smell"}]}, "'smell' is not understood"),
    ("create_task", {"instructions": "x", "continue_task": "task_0"}, "no task 'task_0'"),
    ("retrieve_task", {"task_id": "task_0"}, "no task 'task_0'"),
    ("retrieve_task", {"task_id": "task_0", "offset": -1}, "offset: Input should be greater than"),
    ("submit_tool_results", {"task_id": "task_0", "results": [{"call_id": "c", "content": "x"}]}, "no task 'task_0'"),
    ("submit_tool_results", {"task_id": "task_0"}, "results: Field required"),
    ("cancel_task", {"task_id": "task_0"}, "no task 'task_0'"),
    ("delete_task", {"task_id": "task_0"}, "no task 'task_0'"),
    ("list_tasks", {"status": "asleep"}, "status: Input should be 'created', 'queued'"),
    ("list_tasks", {"limit": 0}, "limit: Input should be greater than"),
]


def asks(body: dict[str, Any]) -> Turn:
    results = results_of(body)
    return Turn(
        [message(" and ".join(results.values()))] if results else [call("c1", "ask_host", {"request": "what?"})]
    )


@pytest.fixture
def asking(facing: Facing) -> Host:
    """A host whose remote agent asks one question and answers with what it was told."""
    return facing(asks)


async def test_every_bad_argument_is_named(asking: Host) -> None:
    for tool, arguments, cause in MISFITS:
        assert cause in await asking.refused(tool, **arguments)
    assert (await asking.ask("list_tasks"))["tasks"] == []


async def test_many_misfits_are_counted_not_listed(asking: Host) -> None:
    said = await asking.refused("submit_tool_results", task_id="t", results=list("abcdef"))

    assert said.count("Input should be an object") == 3
    assert "and 3 more" in said


async def test_a_bad_answer_leaves_the_call_pending(asking: Host) -> None:
    task = await asking.ask("create_task", instructions="Ask me.")
    task_id = task["task_id"]
    bad: list[tuple[Any, str]] = [
        ([{"call_id": "c2", "content": "x"}], "'c2'"),
        ([{"call_id": "c1", "content": "x" * 5_000_000}], "5,000,000 characters; the limit is 1,000,000"),
        ([{"call_id": "c1", "content": "x"}, {"call_id": "c2", "content": "x"}], "'c2'"),
        ([{"call_id": "c1", "content": "x"}, {"call_id": "c1", "content": "y"}], "more than once"),
        (["x"], "results.0: Input should be an object"),
        ("x", "results: Input should be a valid list"),
        ([{"content": "x"}], "results.0.call_id: Field required"),
        ([{"call_id": "c1"}], "results.0.content: Field required"),
        ([], "There are no results"),
    ]
    for results, cause in bad:
        assert cause in await asking.refused("submit_tool_results", task_id=task_id, results=results)
        assert (await asking.ask("retrieve_task", task_id=task_id))["tool_calls"] == task["tool_calls"]

    done = await asking.ask("submit_tool_results", task_id=task_id, results=[{"call_id": "c1", "content": "fine"}])
    assert done["answer"] == "fine"
    other = [{"call_id": "c1", "content": "something else"}]
    assert "c1" in await asking.refused("submit_tool_results", task_id=task_id, results=other)
    assert (await asking.ask("retrieve_task", task_id=task_id))["answer"] == "fine"
