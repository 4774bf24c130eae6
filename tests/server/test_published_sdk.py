"""The published client, unchanged, against this server."""

from __future__ import annotations

from typing import Any

import agentlin_client
import pytest

from .agents import READ_FILE, result
from .conftest import Server, Serving

MARKDOWN = "# Title\n\nBridges carry bridges.\n"


@pytest.fixture
def keyed(serving: Serving) -> Server:
    return serving(api_key="secret")


def test_the_sync_client(keyed: Server) -> None:
    with agentlin_client.Client(api_key="secret", base_url=keyed.url, max_retries=0) as client:
        created = client.tasks.create(
            stream=False,
            user_message_content="Digest notes.md",
            session_id="s",
            user_id="u",
            task_id="task_1",
            client_tools=[READ_FILE],  # type: ignore[list-item]
        )
        task = created.result
        assert task is not None
        assert task.input_required is not None
        assert (task.id, task.status, task.input_required.name) == ("task_1", "input-required", "read_file")
        answer: Any = result(task.input_required.call_id, MARKDOWN)
        continued = client.tasks.create(
            stream=False, user_message_content=[], session_id="s", user_id="u", thought_messages=[answer]
        ).result
        assert continued is not None
        assert (continued.status, continued.previous_task_id) == ("completed", "task_1")
        (message,) = continued.output
        assert message.type == "message"
        assert "bridges (2)" in message.message_content[0].text  # type: ignore[union-attr]

        info = client.tasks.info(continued.id)
        assert info.result == continued
        for number in range(4):
            client.tasks.create(stream=False, user_message_content="hi", user_id="u", task_id=f"more_{number}")
        expected = ["more_3", "more_2", "more_1", "more_0", continued.id, "task_1"]
        assert [listed.id for listed in client.tasks.list(limit=2)] == expected
        assert [listed.id for listed in client.tasks.list(limit=3, user_id="u")] == expected
        back = [listed.id for listed in client.tasks.list(limit=2, ending_before=expected[-1])]
        assert back == [*expected[3:5], *expected[1:3], expected[0]]
        waiting = client.tasks.list(status=["input-required", "failed"])
        assert [listed.id for listed in waiting] == ["task_1"]

        other = client.tasks.create(
            stream=False,
            user_message_content="Digest a.md",
            client_tools=[READ_FILE],  # type: ignore[list-item]
        ).result
        assert other is not None
        canceled = client.tasks.cancel(other.id)
        assert (canceled.id, canceled.status, canceled.object) == (other.id, "canceled", "task")
        deleted = client.tasks.delete(other.id)
        assert deleted.result is not None
        assert deleted.result.id == other.id
        for call in (client.tasks.info, client.tasks.delete, client.tasks.cancel, client.tasks.pause):
            with pytest.raises(agentlin_client.NotFoundError) as caught:
                call(other.id)
            assert caught.value.body["code"] == -32001  # type: ignore[index]


@pytest.mark.anyio
async def test_the_async_client(keyed: Server) -> None:
    async with agentlin_client.AsyncClient(api_key="secret", base_url=keyed.url, max_retries=0) as client:
        created = await client.tasks.create(stream=False, user_message_content="hello", user_id="u")
        assert created.result is not None
        assert created.result.status == "completed"
        listed = [task.id async for task in client.tasks.list(limit=1)]
        assert listed == [created.result.id]
        assert (await client.tasks.info(created.result.id)).result == created.result
        with pytest.raises(agentlin_client.ConflictError):
            await client.tasks.cancel(created.result.id)
        assert (await client.tasks.delete(created.result.id)).result == created.result


def test_the_wrong_key_is_an_authentication_error(keyed: Server) -> None:
    client = agentlin_client.Client(api_key="wrong", base_url=keyed.url, max_retries=0)
    with client, pytest.raises(agentlin_client.AuthenticationError):
        client.tasks.list()
