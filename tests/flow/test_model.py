"""A configured chat model behind the embedded server that a bridge starts by itself."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from agentlin_bridge import TaskBridge, TaskStatus
from tests.server.model_agent.endpoint import Call, Reply, endpoint, saying
from tests.support.processes import end_embedded_server

pytestmark = pytest.mark.anyio


def stored_in(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


async def test_a_model_asks_for_a_client_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration file is found in the host's directory, and the key comes from the environment."""
    monkeypatch.setenv("AGENTLIN_BRIDGE_LEDGER", str(tmp_path / "ledger.sqlite3"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("MODEL_KEY", "sesame")
    monkeypatch.chdir(tmp_path)
    read: list[str] = []

    def read_file(path: str) -> str:
        """Read a file."""
        read.append(path)
        return "The crane is red."

    model = saying(Reply(calls=(Call("read_file", '{"path": "notes.md"}'),)), Reply(("The crane", " is red.")))
    async with endpoint(model) as scripted:
        config = f"""
[server.agents.reader]
prompt = "You read files."
model = "openai:scripted"
model_options = {{ base_url = "{scripted.base_url}", api_key = "${{MODEL_KEY}}" }}
"""
        (tmp_path / "agentlin-bridge.toml").write_text(config, encoding="utf-8")
        try:
            with anyio.fail_after(60):
                async with TaskBridge.from_env() as bridge:
                    assert bridge.notice == ""
                    task = await bridge.create("Which colour?", client_tools=[read_file], stream=True)
                    texts = [progress.text async for progress in bridge.events(task.id)]
                    task = await bridge.wait(task.id)
        finally:
            end_embedded_server(tmp_path / "agentlin-bridge" / "embedded-openai-scripted.sqlite3")
    assert (task.status, task.answer) == (TaskStatus.COMPLETED, "The crane is red.")
    assert texts[-1] == "The crane is red."
    assert read == ["notes.md"]
    assert scripted.messages(0)[0] == {"role": "system", "content": "You read files."}
    assert {headers["authorization"] for headers in scripted.headers} == {"Bearer sesame"}
    assert b"sesame" not in stored_in(tmp_path)
