"""Tasks as resources, a 10 MB answer, and the prompts."""

from __future__ import annotations

import json
import re

import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import TextContent, TextResourceContents

from tests.hosts.mcp.conftest import Facing, Host, Hosting, text_of
from tests.support.remote import Turn, message

pytestmark = pytest.mark.anyio


async def read(host: Host, uri: str) -> str:
    (content,) = (await host.client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    return content.text


async def test_a_ten_megabyte_answer_stays_out_of_the_context_and_can_be_had_whole(facing: Facing) -> None:
    answer = "".join(f"line {number:07}\n" for number in range(770_000))
    assert len(answer) > 10_000_000
    host = facing(lambda _: Turn([message(answer)]))
    result = await host.call("create_task", instructions="Say a lot.")
    assert len(text_of(result)) < 21_000
    assert result.structured_content is not None
    assert len(json.dumps(result.structured_content)) < 6_000

    uri = result.structured_content["answer_resource"]
    got = ""
    for _ in range(3):
        head, label, page = (await read(host, uri)).split("\n", 2)
        assert "untrusted" in label
        assert len(page) == 100_000
        got += page
        found = re.search(r"next page: (\S+)\]", head)
        assert found is not None
        uri = found[1]
    assert answer.startswith(got)
    head, _, page = (await read(host, f"{uri.partition('?')[0]}?offset={len(answer) - 50_000}")).split("\n", 2)
    assert answer.endswith(page)
    assert "next page" not in head


async def test_a_task_is_a_resource(facing: Facing) -> None:
    host = facing(lambda _: Turn([message("a\x1b[31m")]))
    task_id = (await host.ask("create_task", instructions="Say it."))["task_id"]

    task = json.loads(await read(host, f"agentlin://tasks/{task_id}"))
    assert (task["task_id"], task["status"], task["answer"]) == (task_id, "completed", "a\N{SYMBOL FOR ESCAPE}[31m")
    assert task["answer_resource"] == f"agentlin://tasks/{task_id}/answer"
    assert task["created_at"].endswith("+00:00")
    said = await read(host, f"{task['answer_resource']}?offset=1")
    assert said.splitlines()[0] == f"[task {task_id} is completed; characters 1-6 of 6]"
    assert "untrusted" in said.splitlines()[1]
    assert (await read(host, f"{task['answer_resource']}?offset=99")).startswith(f"[task {task_id} is completed; ")


async def test_unknown_resources_are_named(facing: Facing) -> None:
    host = facing(lambda _: Turn([]))
    for uri in ("agentlin://tasks/task_0", "agentlin://tasks/task_0/answer"):
        with pytest.raises(MCPError, match="no task 'task_0'"):
            await host.client.read_resource(uri)
    templates = (await host.client.list_resource_templates()).resource_templates
    assert [template.uri_template for template in templates] == [
        "agentlin://tasks/{task_id}",
        "agentlin://tasks/{task_id}/answer{?offset}",
    ]


async def test_a_ledger_that_cannot_be_opened_is_named_to_readers(hosting: Hosting, embedded: dict[str, str]) -> None:
    from anyio import Path

    await Path(embedded["AGENTLIN_BRIDGE_LEDGER"]).mkdir()
    async with hosting(embedded) as host:
        with pytest.raises(MCPError, match="ledger"):
            await host.client.read_resource("agentlin://tasks/task_0")


async def test_prompts_start_a_delegation_and_a_review(facing: Facing) -> None:
    host = facing(lambda _: Turn([]))
    assert [prompt.name for prompt in (await host.client.list_prompts()).prompts] == ["delegate", "review-pending"]
    for name, arguments, expected in (
        ("delegate", {"task": "Compare the logs."}, ["agentlin_create_task", "Compare the logs."]),
        ("review-pending", {}, ["agentlin_list_tasks", "input-required"]),
    ):
        (said,) = (await host.client.get_prompt(name, arguments)).messages
        assert isinstance(said.content, TextContent)
        assert all(part in said.content.text for part in expected)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_prompt_that_does_not_exist_is_the_callers_fault(
    hosting: Hosting, gated_settings: dict[str, str], mode: str
) -> None:
    async with hosting(gated_settings, mode=mode) as host:
        for name in ("nonsense", "delegate"):
            with pytest.raises(MCPError) as refused:
                await host.client.get_prompt(name, {})
            assert refused.value.code == -32602
