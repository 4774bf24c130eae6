"""What our way to the remote costs: retrieving a task and reading events, beside the floor and the peer.

    python benchmarks/wire.py [--requests N] [--repeat N]

One server in a process of its own answers all contestants, which take turns within one run; what counts is
the median wall time of a request. The exit code is 1 if `retrieve` costs more than 1.25 x bare httpx with
json, or if event decoding misses its own targets (`event_decoding.py`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Awaitable, Callable
from time import perf_counter

import anyio
import event_decoding
import httpx
from agentlin_client import AsyncClient
from pydantic import SecretStr

from agentlin_bridge.remote.agentlin.backend import AgentlinBackend
from agentlin_bridge.remote.agentlin.dialect import Dialect
from agentlin_bridge.remote.agentlin.endpoint import Address, FixedEndpoint

TARGET = 1.25
KEY = "benchmark"
TASK = {
    "object": "task",
    "id": "task_1",
    "session_id": "sess_1",
    "user_id": "user_1",
    "status": "completed",
    "created_at": 1795332313,
    "output": [
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "message_content": [{"type": "text", "text": "An answer of ordinary length. " * 20}],
            "block_list": [],
            "status": "completed",
        }
    ],
    "usage": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0},
}


async def serve() -> None:
    """Answer every request with the same task, as fast as a few lines can."""
    body = json.dumps({"jsonrpc": "2.0", "id": "req_1", "result": TASK}).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()

    async def answer(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            held = b""
            async for chunk in stream:
                held += chunk
                while b"\r\n\r\n" in held:
                    _, held = held.split(b"\r\n\r\n", 1)
                    await stream.send(head + body)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    print(listener.extra(anyio.abc.SocketAttribute.local_port), flush=True)
    await listener.serve(answer)


async def compare(port: int, requests: int, repeat: int) -> dict[str, float]:
    """Seconds per request of each contestant: the median over rounds that take turns."""
    url = f"http://127.0.0.1:{port}/v1"
    backend = AgentlinBackend(FixedEndpoint(Address(url, SecretStr(KEY))), dialect=Dialect.DOCUMENTED)
    async with (
        httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}) as bare,
        AsyncClient(api_key=KEY, base_url=url, max_retries=0) as sdk,
        backend,
    ):

        async def floor() -> None:
            assert json.loads((await bare.get(f"{url}/tasks/task_1")).content)["result"]["id"] == "task_1"

        async def ours() -> None:
            assert (await backend.retrieve("task_1")).id == "task_1"

        async def peer() -> None:
            found = await sdk.tasks.info("task_1")
            assert found.result is not None

        contestants: dict[str, Callable[[], Awaitable[None]]] = {
            "bare httpx + json": floor,
            "agentlin_bridge retrieve": ours,
            "agentlin_client 1.14 info": peer,
        }
        taken: dict[str, list[float]] = {name: [] for name in contestants}
        for round_ in range(repeat + 1):
            for name, request in contestants.items():
                start = perf_counter()
                for _ in range(requests):
                    await request()
                if round_:  # the first round warms up
                    taken[name].append((perf_counter() - start) / requests)
        return {name: statistics.median(times) for name, times in taken.items()}


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description="What our way to the remote costs.")
    parser.add_argument("--requests", type=int, default=300, help="per contestant and round")
    parser.add_argument("--repeat", type=int, default=9, help="rounds")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        anyio.run(serve)
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    with server:
        try:
            assert server.stdout is not None
            measured = anyio.run(compare, int(server.stdout.readline()), options.requests, options.repeat)
        finally:
            server.terminate()
    base = measured["bare httpx + json"]
    for name, seconds in measured.items():
        print(f"{name:32} {seconds * 1e6:8.0f} us a request   {seconds / base:5.2f} x bare httpx + json")
    good = measured["agentlin_bridge retrieve"] <= TARGET * base
    print("good" if good else f"NOT GOOD: wanted at most {TARGET} x")
    print()
    sys.argv[1:] = []
    return event_decoding.main() or (not good)


if __name__ == "__main__":
    sys.exit(main())
