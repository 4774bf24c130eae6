"""A remote whose event stream a test writes byte by byte, on a real port."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

Json = dict[str, Any]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nconnection: close\r\n\r\n"


def frame(kind: str, task_id: str, **fields: Any) -> bytes:
    """One event as the published server writes it."""
    event = {"type": kind, "task_id": task_id, "sequence_number": 0, **fields}
    return b"data: " + json.dumps({"jsonrpc": "2.0", "id": "req_1", "result": event}).encode() + b"\r\n\r\n"


def ended(task_id: str, text: str, status: str = "completed") -> bytes:
    """The last event of a task."""
    message = {"type": "message", "role": "assistant", "message_content": text}
    task = {"object": "task", "id": task_id, "session_id": "s", "user_id": "u", "status": status, "output": [message]}
    return frame(f"task.{status}", task_id, task={**task, "created_at": 1})


@dataclass
class Request:
    """A request as it came."""

    line: str
    body: Json
    stream: SocketStream

    async def answer(self, body: Any, status: str = "200 OK") -> None:
        """Answer with JSON and close."""
        content = json.dumps(body).encode()
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        await self.stream.send(head.encode() + content)


Handler = Callable[[Request], Awaitable[None]]


@dataclass
class RawRemote:
    """Hands every request to a handler; the connection closes when it returns."""

    handler: Handler
    base_url: str = ""
    lines: list[str] = field(default_factory=list)

    async def _serve(self, stream: SocketStream) -> None:
        async with stream:
            reader = BufferedByteReceiveStream(stream)
            head = (await reader.receive_until(b"\r\n\r\n", 65536)).decode()
            line = head.split("\r\n", 1)[0].removesuffix(" HTTP/1.1")
            lengths = [int(row.split(":")[1]) for row in head.split("\r\n") if row.lower().startswith("content-length")]
            body = json.loads(await reader.receive_exactly(lengths[0])) if lengths and lengths[0] else {}
            self.lines.append(line)
            try:
                await self.handler(Request(line, body, stream))
            except (anyio.BrokenResourceError, anyio.EndOfStream):
                return


@asynccontextmanager
async def raw_remote(handler: Handler) -> AsyncIterator[RawRemote]:
    """Listen while entered."""
    remote = RawRemote(handler)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    remote.base_url = f"http://127.0.0.1:{port}/v1"
    group = anyio.create_task_group()
    await group.__aenter__()
    group.start_soon(listener.serve, remote._serve)
    try:
        yield remote
    finally:
        group.cancel_scope.cancel()
        await group.__aexit__(None, None, None)
        await listener.aclose()
