"""A delegating process for tests that kill it: `python -m tests.support.delegate URL LEDGER TASK HANDLER`.

TASK is `new` or the id of a task to carry on. HANDLER says what the client tool `act` does: `die` kills the
process, `answer` returns, `none` leaves its calls to somebody else. Prints the task's id when it exists and
the task as JSON at the end; what the handler did is appended to the file LEDGER.acts.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import anyio

from agentlin_bridge import ClientTool, Limits, TaskBridge
from agentlin_bridge.remote.agentlin.backend import AgentlinBackend
from agentlin_bridge.remote.agentlin.endpoint import Address, FixedEndpoint


async def main(url: str, ledger: str, task_id: str, handler: str, *, idempotent: bool) -> None:
    def act(what: str) -> str:
        with Path(f"{ledger}.acts").open("a", encoding="utf-8") as acts:
            acts.write(f"{what}\n")
        if handler == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return f"did {what}"

    schema = {"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]}
    tool = ClientTool("act", "Act.", schema, None if handler == "none" else act, idempotent=idempotent)
    backend = AgentlinBackend(FixedEndpoint(Address(url)))
    async with TaskBridge(backend, ledger=ledger, limits=Limits(settle=1)) as bridge:
        if task_id == "new":
            task_id = (await bridge.create("act", client_tools=[tool])).id
        sys.stdout.write(f"{task_id}\n")
        sys.stdout.flush()
        task = await bridge.wait(task_id, client_tools=[tool])
    sys.stdout.write(task.model_dump_json() + "\n")


if __name__ == "__main__":
    anyio.run(lambda: main(*sys.argv[1:5], idempotent="--idempotent" in sys.argv))
