"""Another backend is one module: the example of docs/backends.md, as it stands there."""

from __future__ import annotations

import re
import sys
import textwrap
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import anyio
import pytest

from agentlin_bridge import ClientTool, InvalidRequestError, TaskBridge, TaskNotFound, TaskStatus, UnsupportedError
from agentlin_bridge.remote.agentlin.backend import AgentlinBackend
from agentlin_bridge.remote.agentlin.endpoint import Address, FixedEndpoint
from agentlin_bridge.remote.backend import TaskBackend
from tests.support.remote import ScriptedRemote, Turn, message

pytestmark = pytest.mark.anyio

REPOSITORY = Path(__file__).parents[2]
_EXAMPLE = re.compile(r"^ *```python\n(.*?class ShoutBackend.*?)^ *```$", re.DOTALL | re.MULTILINE)


@pytest.fixture
def shout(tmp_path: Path) -> TaskBackend:
    """The backend of the example."""
    document = (REPOSITORY / "docs" / "backends.md").read_text(encoding="utf-8")
    found = _EXAMPLE.search(document[document.index("## Another backend") :])
    assert found is not None
    file = tmp_path / "shout.py"
    file.write_text(textwrap.dedent(found[1]), encoding="utf-8")
    spec = spec_from_file_location("shout", file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    backend: TaskBackend = module.ShoutBackend()
    return backend


async def test_it_runs_tasks(shout: TaskBackend, tmp_path: Path) -> None:
    with anyio.fail_after(20):
        async with TaskBridge(shout, ledger=tmp_path / "ledger.sqlite3") as bridge:
            task = await bridge.run("hello", attachments=["world"])
            assert (task.status, task.answer) == (TaskStatus.COMPLETED, "HELLO WORLD")
            assert [remote.id async for remote in shout.list()] == [task.id]
            assert (await bridge.cancel(task.id)).status is TaskStatus.COMPLETED
            assert (await bridge.delete(task.id)).remote == "stopped"
            assert [remote.id async for remote in shout.list()] == []
            with pytest.raises(TaskNotFound):
                await bridge.retrieve("task_unheard-of")


async def test_what_it_cannot_do_is_refused(shout: TaskBackend, tmp_path: Path) -> None:
    with anyio.fail_after(20):
        async with TaskBridge(shout, ledger=tmp_path / "ledger.sqlite3") as bridge:
            task = await bridge.run("hello")
            for wrong in (
                {"client_tools": [ClientTool("look", "Look.", {"type": "object"})]},
                {"continue_task": task.id},
                {"options": {"volume": 11}},
            ):
                with pytest.raises(InvalidRequestError, match="'shout'"):
                    await bridge.create("hello", **wrong)
    assert await shout.cancel("task_1") == "unsupported"
    for verb in (shout.pause, shout.resume):
        with pytest.raises(UnsupportedError, match="'shout' cannot"):
            await verb("task_1")


async def test_it_runs_tasks_beside_another(shout: TaskBackend, tmp_path: Path) -> None:
    with anyio.fail_after(20):
        async with ScriptedRemote(lambda body: Turn([message("quietly")])).serve() as remote:
            agentlin = AgentlinBackend(FixedEndpoint(Address(remote.base_url)))
            agents = {"loud": {"backend": "shout"}}
            ledger = tmp_path / "ledger.sqlite3"
            async with TaskBridge(agentlin, more_backends=[shout], agents=agents, ledger=ledger) as bridge:
                tasks = await bridge.run_many([{"instructions": "x"}, {"instructions": "x", "agent": "loud"}])
    assert [task.answer for task in tasks] == ["quietly", "X"]


def test_neither_the_core_nor_a_host_names_nla_engine() -> None:
    named = re.compile(r"(?<![a-z])nla(?![a-z])", re.IGNORECASE)
    package = Path(str(sys.modules["agentlin_bridge"].__file__)).parent
    sources = [path for room in ("delegation", "hosts") for path in (package / room).rglob("*.py")]
    assert len(sources) > 40
    assert [path.name for path in sources if named.search(path.read_text(encoding="utf-8"))] == []
