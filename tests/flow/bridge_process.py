"""A bridge in a process of its own, told what to do line by line: `python -m tests.flow.bridge_process OPTIONS`.

OPTIONS is JSON: `url` of the remote, `ledger`, `acts` (a file the handler appends to), `handler` of the client tool
`act` (`answer`, `die` with the process, `none`), `idempotent`, and `die_at`: a function of the ledger and whether the
process kills itself `before` or `after` the transaction.

A line is `[number, method of TaskBridge, positional arguments, keyword arguments]`; the answer is `[number, task]` or
`[number, {"raised": class}]`. Lines are worked on at the same time. First of all `[0, instance]` is told.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from agentlin_bridge import BridgeError, ClientTool, Limits, Task, TaskBridge
from agentlin_bridge.delegation.ledger.ledger import Ledger
from agentlin_bridge.remote.agentlin.backend import AgentlinBackend
from agentlin_bridge.remote.agentlin.dialect import Dialect
from agentlin_bridge.remote.agentlin.endpoint import Address, FixedEndpoint


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class MortalLedger(Ledger):
    """Ends with the process at a transaction of choice."""

    die_at: tuple[str, str] | None = None

    async def write(self, function: Any, /, *arguments: Any, **keywords: Any) -> Any:
        if self.die_at == (function.__name__, "before"):
            _die()
        result = await super().write(function, *arguments, **keywords)
        if self.die_at == (function.__name__, "after"):
            _die()
        return result


def tool(options: dict[str, Any]) -> ClientTool:
    """The client tool of this process."""

    def act(what: str) -> str:
        with Path(options["acts"]).open("a", encoding="utf-8") as acts:
            acts.write(f"{what}\n")
        if options["handler"] == "die":
            _die()
        return f"did {what}"

    schema = {"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]}
    handler = None if options["handler"] == "none" else act
    return ClientTool("act", "Act.", schema, handler, idempotent=options.get("idempotent", False))


def tell(number: int, what: object) -> None:
    """Answer a line."""
    sys.stdout.write(json.dumps([number, what]) + "\n")
    sys.stdout.flush()


async def work(bridge: TaskBridge, act: ClientTool, line: str) -> None:
    """Do what a line says."""
    number, verb, positional, keywords = json.loads(line)
    if verb in ("create", "run", "wait"):
        keywords["client_tools"] = [act]
    try:
        task: Task = await getattr(bridge, verb)(*positional, **keywords)
    except BridgeError as error:
        tell(number, {"raised": type(error).__name__})
    else:
        tell(number, task.model_dump(mode="json"))


async def main(options: dict[str, Any]) -> None:
    """Work until the input ends."""
    act = tool(options)
    ledger = MortalLedger(options["ledger"])
    if "die_at" in options:
        ledger.die_at = tuple(options["die_at"])
    backend = AgentlinBackend(FixedEndpoint(Address(options["url"])), dialect=Dialect.DOCUMENTED)
    async with (
        TaskBridge(backend, ledger=ledger, limits=Limits(settle=0.5)) as bridge,
        anyio.create_task_group() as group,
    ):
        tell(0, ledger.instance)
        async for line in anyio.wrap_file(sys.stdin):
            group.start_soon(work, bridge, act, line)
        group.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main, json.loads(sys.argv[1]))
