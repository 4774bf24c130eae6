"""The embedded server beside LangGraph: tasks with one client-tool round, waiting tasks, event streams.

    python benchmarks/server.py [--tasks N] [--at-once N] [--waiting N] [--repeat N] [--postgres URL]

Each contestant is a server process of its own; one client process drives all of them in the same way over
loopback. LangGraph does the same graph (model, wait for the client, model) with its SQLite checkpointer behind
the same HTTP stack, with the same write-ahead log and the same sync at every commit. The exit code is 1 if a
target is missed: at least LangGraph's tasks per second, a median of 15 ms from a tool result to the model call
that it sets off, 2 % of a core while tasks wait, 30 s until all of them are done once their results are there.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import anyio
import uvicorn
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from typing_extensions import TypedDict

from agentlin_bridge.server.agent import Conversation, Step, Voice, answer, tool_call
from agentlin_bridge.server.process import ServeOptions, serve
from agentlin_bridge.task import ToolCallItem, ToolResultItem, text_of

ROUND_TARGET = 0.015
IDLE_TARGET = 0.02
RESUME_TARGET = 30.0
LISTENERS = 200
PIECES = 400
CALL = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
ANSWER = "It is sunny in Paris. " * 10


# The servers --------------------------------------------------------------------------------------------


class State(TypedDict, total=False):
    """What LangGraph keeps of a task."""

    user: Any
    call: Any
    result: Any
    answer: str


class Model:
    """Asks for the weather, then answers. Writes down when it was called with a result."""

    name = "benchmark agent"
    description = "for benchmarks"
    max_steps = 10

    def __init__(self, marks: Path) -> None:
        self._marks = marks.open("a", buffering=1)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._marks.close()

    def mark(self) -> None:
        """The model is called with a result."""
        self._marks.write(f"{time.monotonic()}\n")

    async def step(self, conversation: Conversation, voice: Voice) -> Step:
        if text_of(conversation.user_content) == "speak":
            for number in range(PIECES):
                voice.text(f"piece {number} of what is said ")
                await anyio.sleep(0.005)
            return Step((answer(ANSWER),))
        if conversation.rounds:
            self.mark()
            return Step((answer(ANSWER),))
        return Step((tool_call(CALL["name"], CALL["arguments"]),))

    def owns(self, name: str) -> bool:
        return False

    async def call(self, call: ToolCallItem) -> ToolResultItem:
        raise NotImplementedError


def serve_ours(database: str, port: int, marks: Path) -> None:
    """The embedded server."""
    anyio.run(serve, ServeOptions(database=database, port=port, agent=Model(marks)))


def serve_langgraph(database: str, port: int, marks: Path) -> None:
    """The same graph on LangGraph, with the same API as far as the benchmark needs it."""
    model = Model(marks)

    async def ask(_state: State) -> State:
        return {"call": {**CALL, "call_id": "call_1"}}

    async def wait(state: State) -> State:
        return {"result": interrupt(state["call"])}

    async def reply(_state: State) -> State:
        model.mark()
        return {"answer": ANSWER}

    graph: Any = StateGraph(State)
    graph.add_node("ask", ask)
    graph.add_node("wait", wait)
    graph.add_node("reply", reply)
    for before, after in ((START, "ask"), ("ask", "wait"), ("wait", "reply"), ("reply", END)):
        graph.add_edge(before, after)

    async def run() -> None:
        async with AsyncSqliteSaver.from_conn_string(database) as saver:
            for pragma in ("journal_mode=WAL", "synchronous=FULL"):
                await saver.conn.execute(f"PRAGMA {pragma}")
            app = graph.compile(checkpointer=saver)

            async def create(request: Request) -> JSONResponse:
                body = await request.json()
                session = body["session_id"]
                config: Any = {"configurable": {"thread_id": session}}
                results = body.get("thought_messages")
                given: Any = {"user": body["user_message_content"]}
                if results:
                    given = Command(resume=results[0]["message_content"])
                state = await app.ainvoke(given, config, durability="sync")
                task: dict[str, Any] = {"id": body["task_id"], "session_id": session}
                if "answer" in state:
                    task |= {"status": "completed", "output": [{"type": "message", "content": state["answer"]}]}
                else:
                    call = state["call"]
                    task |= {"status": "input-required", "output": [call], "input_required_call_ids": [call["call_id"]]}
                return JSONResponse({"jsonrpc": "2.0", "id": "req", "result": task})

            web = Starlette(routes=[Route("/v1/tasks", create, methods=["POST"])])
            config = uvicorn.Config(web, port=port, log_config=None, access_log=False, http="h11", ws="none")
            await uvicorn.Server(config).serve()

    anyio.run(run)


# The client ---------------------------------------------------------------------------------------------


class Client:
    """Just enough HTTP, so that what is measured is the server."""

    def __init__(self, port: int, at_once: int) -> None:
        self._port = port
        self._free: list[tuple[SocketStream, BufferedByteReceiveStream]] = []
        self._limit = anyio.CapacityLimiter(at_once)

    async def post(self, body: dict[str, Any]) -> dict[str, Any]:
        async with self._limit:
            stream, buffered = self._free.pop() if self._free else await self._connected()
            raw = json.dumps(body).encode()
            head = (
                "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                f"content-length: {len(raw)}\r\n\r\n"
            )
            await stream.send(head.encode() + raw)
            answer = await buffered.receive_until(b"\r\n\r\n", 65536)
            fields = dict(line.lower().split(b": ", 1) for line in answer.split(b"\r\n")[1:])
            content = await buffered.receive_exactly(int(fields[b"content-length"]))
            self._free.append((stream, buffered))
        assert answer.startswith(b"HTTP/1.1 200"), content
        task: dict[str, Any] = json.loads(content)["result"]
        return task

    async def _connected(self) -> tuple[SocketStream, BufferedByteReceiveStream]:
        stream = await anyio.connect_tcp("127.0.0.1", self._port)
        return stream, BufferedByteReceiveStream(stream)

    async def ask(self, key: str) -> dict[str, Any]:
        body = {"user_message_content": f"weather {key}", "task_id": f"{key}-1", "session_id": key}
        task = await self.post({**body, "stream": False})
        assert task["status"] == "input-required", task
        return task

    async def reply(self, key: str, asked: dict[str, Any]) -> None:
        call_id = asked["input_required_call_ids"][0]
        results = [{"type": "tool_result", "call_id": call_id, "message_content": [{"type": "text", "text": "sun"}]}]
        body = {"user_message_content": [], "task_id": f"{key}-2", "session_id": key, "thought_messages": results}
        task = await self.post({**body, "stream": False})
        assert task["status"] == "completed", task


class Contestant:
    """One server in a process of its own."""

    def __init__(self, kind: str, database: str, directory: Path) -> None:
        self.directory = directory
        self.marks = directory / f"{kind}.marks"
        self.port = _free_port()
        command = [sys.executable, __file__, "--serve", kind, database, str(self.port), str(self.marks)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    async def client(self, at_once: int) -> Client:
        """A client, once the server listens."""
        with anyio.fail_after(30):
            while True:
                try:
                    await (await anyio.connect_tcp("127.0.0.1", self.port)).aclose()
                except OSError:
                    assert self.process.poll() is None
                    await anyio.sleep(0.05)
                else:
                    return Client(self.port, at_once)

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def last_marks(self, count: int) -> list[float]:
        return [float(line) for line in self.marks.read_text().split()[-count:]]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


@asynccontextmanager
async def contestant(kind: str, database: str, directory: Path) -> AsyncIterator[Contestant]:
    """A running server."""
    server = Contestant(kind, database, directory)
    try:
        yield server
    finally:
        server.process.terminate()
        server.process.wait(20)


# What is measured ---------------------------------------------------------------------------------------


async def tasks_per_second(server: Contestant, label: str, count: int, at_once: int) -> float:
    """Tasks with one client-tool round, so many at a time."""
    client = await server.client(at_once)

    async def one(key: str) -> None:
        await client.reply(key, await client.ask(key))

    for number in range(10):
        await one(f"{label}warm{number}")
    began = time.perf_counter()
    numbers = iter(range(count))

    async def lane() -> None:
        for number in numbers:
            await one(f"{label}task{number}")

    async with anyio.create_task_group() as group:
        for _ in range(at_once):
            group.start_soon(lane)
    return count / (time.perf_counter() - began)


async def round_latency(server: Contestant, label: str, count: int = 100) -> list[float]:
    """Seconds from sending a tool result until the model is called with it, one after the other."""
    client = await server.client(1)
    sent = []
    for number in range(count):
        key = f"{label}latency{number}"
        asked = await client.ask(key)
        sent.append(time.monotonic())
        await client.reply(key, asked)
    return [mark - begun for begun, mark in zip(sent, server.last_marks(count), strict=True)]


async def waiting(server: Contestant, count: int, idle_seconds: float = 10) -> tuple[float, float]:
    """The share of a core that so many waiting tasks cost, and the seconds until all are done."""
    client = await server.client(50)
    asked: dict[str, dict[str, Any]] = {}

    async def ask(key: str) -> None:
        asked[key] = await client.ask(key)

    await _all(ask, [f"wait{number}" for number in range(count)])
    await anyio.sleep(2)
    before = server.cpu_seconds()
    await anyio.sleep(idle_seconds)
    idle = (server.cpu_seconds() - before) / idle_seconds
    began = time.perf_counter()

    async def reply(key: str) -> None:
        await client.reply(key, asked[key])

    await _all(reply, list(asked))
    return idle, time.perf_counter() - began


async def _all(work: Callable[[str], Coroutine[Any, Any, None]], keys: list[str]) -> None:
    async with anyio.create_task_group() as group:
        for key in keys:
            group.start_soon(work, key)


async def streams(server: Contestant) -> tuple[float, int]:
    """Events per second that reach so many listeners of one task, and how many listeners heard its end."""
    client = await server.client(2)
    body = {"user_message_content": "speak", "task_id": "spoken", "session_id": "spoken", "stream": False}
    heard = 0
    ends = 0
    began = time.perf_counter()

    async def listen() -> None:
        nonlocal heard, ends
        stream = await anyio.connect_tcp("127.0.0.1", server.port)
        async with stream:
            await stream.send(b"GET /v1/tasks/spoken/events HTTP/1.1\r\nhost: localhost\r\n\r\n")
            tail = b""
            while b"0\r\n\r\n" not in tail[-7:]:
                chunk = await stream.receive()
                heard += chunk.count(b"\ndata: ")
                ends += (tail[-20:] + chunk).count(b'"task.completed"')
                tail = (tail + chunk)[-32:]

    async with anyio.create_task_group() as group:
        group.start_soon(client.post, body)
        while True:  # until the task is there
            stream = await anyio.connect_tcp("127.0.0.1", server.port)
            async with stream:
                await stream.send(b"GET /v1/tasks/spoken HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                if (await stream.receive()).startswith(b"HTTP/1.1 200"):
                    break
        for _ in range(LISTENERS):
            group.start_soon(listen)
    return heard / (time.perf_counter() - began), ends


async def measure(arguments: argparse.Namespace) -> bool:
    """Measure all, print it, and say whether the targets are reached."""
    reached = True

    def show(name: str, value: str, ok: bool = True) -> None:
        nonlocal reached
        reached = reached and ok
        print(f"{name:<58}{value:>20}{'' if ok else '   TARGET MISSED'}", flush=True)

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        rates: dict[str, list[float]] = {}
        kinds = {"ours": str(directory / "ours.sqlite"), "langgraph": str(directory / "langgraph.sqlite")}
        if arguments.postgres:
            kinds["ours-postgres"] = arguments.postgres
        for turn in range(arguments.repeat):
            for kind, database in kinds.items():
                async with contestant(kind.partition("-")[0], database, directory) as server:
                    rate = await tasks_per_second(
                        server, f"{kind}{turn}{os.getpid()}", arguments.tasks, arguments.at_once
                    )
                    rates.setdefault(kind, []).append(rate)
        best = {kind: statistics.median(found) for kind, found in rates.items()}
        for kind, rate in best.items():
            show(f"tasks/s, {arguments.at_once} at once, {kind}", f"{rate:.1f}")
        ratio = best["ours"] / best["langgraph"]
        show("tasks/s, ours on SQLite / LangGraph on SQLite", f"{ratio:.2f}", ratio >= 1)
        for kind, database in kinds.items():
            async with contestant(kind.partition("-")[0], database, directory) as server:
                latencies = await round_latency(server, f"{kind}{os.getpid()}")
                middle = statistics.median(latencies)
                ok = middle <= ROUND_TARGET or kind == "langgraph"
                show(
                    f"result to model call, p50 / p95, {kind}",
                    f"{middle * 1e3:.1f} / {sorted(latencies)[94] * 1e3:.1f} ms",
                    ok,
                )
        async with contestant("ours", str(directory / "waiting.sqlite"), directory) as server:
            idle, seconds = await waiting(server, arguments.waiting)
            show(f"share of a core with {arguments.waiting} waiting", f"{idle * 100:.2f} %", idle <= IDLE_TARGET)
            show(f"until all {arguments.waiting} are done", f"{seconds:.1f} s", seconds <= RESUME_TARGET)
        async with contestant("ours", str(directory / "streams.sqlite"), directory) as server:
            rate, ends = await streams(server)
            show(f"events/s to {LISTENERS} streams", f"{rate:.0f}", ends == LISTENERS)
    return reached


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        _, _, kind, database, port, marks = sys.argv
        {"ours": serve_ours, "langgraph": serve_langgraph}[kind](database, int(port), Path(marks))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=300)
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--waiting", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--postgres", help="the URL of an empty PostgreSQL database, to measure that as well")
    sys.exit(0 if anyio.run(measure, parser.parse_args()) else 1)


if __name__ == "__main__":
    main()
