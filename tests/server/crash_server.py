"""A server that writes down what its agent does, and kills itself at the point it is told.

Run as a program: `python -m tests.server.crash_server <database> <port> <journal> [<workers>]`, with the point in
KILL_AT.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
from sqlalchemy import Connection

from agentlin_bridge.errors import BridgeError
from agentlin_bridge.server.agent import Agents, Conversation, Item, OneAgent, Step, Voice, answer, tool_call
from agentlin_bridge.server.execution import engine
from agentlin_bridge.server.execution.engine import Engine
from agentlin_bridge.server.process import ServeOptions, serve
from agentlin_bridge.server.records.store import Store
from agentlin_bridge.task import TextContentItem, ToolCallItem, ToolResultItem, text_of

from .agents import Simple

MOMENTS = ["before", "uncommitted", "after"]
KILL_POINTS = [
    *(f"{name}.{moment}" for name in ("accept", "record_step", "record_result", "settle") for moment in MOMENTS),
    "look_step.after",
    "record_step.after#2",  # the round is over, and the engine does not know yet
    "record_result.after#2",  # the last of two parallel tools
    "run.before",  # accepted, and never started
    "run.after",  # the engine has recorded the end of the round, if it was told of it
    "model.begin",
    "model.end",
    "tool.begin",
    "tool.end",
    "tool.end#2",
    "accept.before#2",  # the client's tool result
    "accept.uncommitted#2",
    "accept.after#2",
    "model.end#3",
    "record_step.after#3",
    "run.after#2",
]
QUEUE_KILL_POINTS = [f"{name}.{moment}" for name in ("release", "enter_step") for moment in MOMENTS]
"""Passed where a task has to wait for another of its session."""


@functools.cache
def points_of(journal: str) -> Points:
    """The points of this process."""
    return Points(Path(journal))


class Points:
    """Counts how often each point is passed, and ends the process at one of them."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self.gate = journal.with_suffix(".gate")
        self._passed: dict[str, int] = {}
        self._deadly = os.environ.get("KILL_AT", "")

    async def opened(self) -> None:
        """Wait until the test opens the gate."""
        while not self.gate.exists():  # noqa: ASYNC110  another process makes the file
            await anyio.sleep(0.01)

    def note(self, **line: Any) -> None:
        with self._journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**line, "pid": os.getpid()}) + "\n")

    def passed(self, name: str) -> None:
        count = self._passed[name] = self._passed.get(name, 0) + 1
        if self._deadly in ({name, f"{name}#1"} if count == 1 else {f"{name}#{count}"}):
            self.note(what="killed", at=self._deadly)
            os.kill(os.getpid(), signal.SIGKILL)


class Countdown(Simple):
    """Asks two tools of the server, then one of the client; its answer follows from what they returned."""

    name = "countdown agent"

    def __init__(self, points: Points) -> None:
        self._points = points

    async def step(self, conversation: Conversation, voice: Voice) -> Step:
        key = text_of(conversation.user_content)
        number = len(conversation.rounds) + 1
        self._points.note(what="begin", key=key, step=f"model {number}")
        self._points.passed("model.begin")
        await anyio.sleep(0.2 if key.startswith("q") else 0.005)
        if key.startswith("q"):
            self._points.note(what="end", key=key, step=f"model {number}")
            return Step((answer(f"{key} done"),))
        if key.startswith("hold"):
            return await self._hold(key)
        results = [result.text for round_ in conversation.rounds for result in round_.results]
        items: dict[int, list[Item]] = {
            1: [tool_call("double", json.dumps({"key": key, "of": n})) for n in (1, 2)],
            2: [tool_call("ask", json.dumps({"key": key, "sum": results}))],
            3: [answer(f"{key}: {' '.join(results)}")],
        }
        self._points.note(what="end", key=key, step=f"model {number}")
        self._points.passed("model.end")
        return Step(tuple(items[number]), {"input_tokens": 1})

    async def _hold(self, key: str) -> Step:
        try:
            await self._points.opened()
        except BaseException:
            self._points.note(what="stopped", key=key)
            if key.startswith("hold-slow"):
                with anyio.CancelScope(shield=True):
                    await self._points.opened()
                    self._points.note(what="left", key=key)
            raise
        self._points.note(what="end", key=key)
        return Step((answer(f"{key} done"),))

    def owns(self, name: str) -> bool:
        return name == "double"

    async def call(self, call: ToolCallItem) -> ToolResultItem:
        given = json.loads(call.arguments)
        step = f"tool {given['of']}"
        self._points.note(what="begin", key=given["key"], step=step)
        self._points.passed("tool.begin")
        await anyio.sleep(0.005)
        self._points.note(what="end", key=given["key"], step=step)
        self._points.passed("tool.end")
        return ToolResultItem(call_id=call.call_id, message_content=[TextContentItem(text=str(2 * given["of"]))])


def watch(points: Points) -> None:
    """Let every transaction and every round pass its points."""
    read, write, run = Store.read, Store.write, Engine.run

    @functools.wraps(read)
    async def watched_read(self: Store, work: Callable[[Connection], Any]) -> Any:
        value = await read(self, work)
        points.passed(f"{_name(work)}.after")
        return value

    @functools.wraps(write)
    async def watched_write(self: Store, work: Callable[[Connection], Any]) -> Any:
        name = _name(work)

        def watched(connection: Connection) -> Any:
            value = work(connection)
            points.passed(f"{name}.uncommitted")
            return value

        points.passed(f"{name}.before")
        value = await write(self, watched)
        points.passed(f"{name}.after")
        return value

    async def watched_run(self: Engine, start: Any) -> None:
        points.passed("run.before")
        await run(self, start)
        points.passed("run.after")

    Store.write = watched_write  # type: ignore[method-assign]
    Store.read = watched_read  # type: ignore[method-assign]
    Engine.run = watched_run  # type: ignore[method-assign]


def _name(work: Any) -> str:
    name: str = getattr(work, "func", work).__name__
    return name


def agents(journal: str) -> Agents:
    """What each worker makes for itself."""
    return OneAgent(Countdown(points_of(journal)))


def main(database: str, port: str, journal: str, workers: str = "1") -> None:
    logging.basicConfig(level=logging.INFO)
    watch(points_of(journal))
    engine.ENTERED_AFTER = float(os.environ.get("ENTERED_AFTER", engine.ENTERED_AFTER))
    engine.VERSION = os.environ.get("ENGINE_VERSION") or engine.VERSION
    options = ServeOptions(
        database=database, port=int(port), agents=functools.partial(agents, journal), workers=int(workers)
    )
    try:
        anyio.run(serve, options)
    except BridgeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
