"""How fast a round's event stream is read, and whether reading it keeps memory flat.

    python benchmarks/event_decoding.py [--events N] [--repeat N]

Every decoder reads the same text deltas of 232 bytes in chunks of 4 KiB; what counts is its best CPU time.
The exit code is 1 if our typed events come at less than half the rate of httpx-sse with json, or if memory
grows while 100,000 of them are read.
"""

from __future__ import annotations

import argparse
import codecs
import gc
import json
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from time import process_time

from agentlin_client._streaming import SSEDecoder as PublishedDecoder
from httpx_sse._decoders import SSEDecoder, SSELineDecoder

from agentlin_bridge.events import TaskTextDeltaEvent
from agentlin_bridge.remote.agentlin.frames import FrameReader

CHUNK = 4096
SIZE = 232
MAIN_ID = "task_6187fb49d5c548fbbfd7e067cc2e1af7"
MEMORY_EVENTS = 100_000
MEMORY_LIMIT = 256 * 1024


def frame(number: int) -> bytes:
    """A text delta in its envelope, as the wire has it: `SIZE` bytes with the line ends."""
    head = f'data: {{"jsonrpc":"2.0","id":"req_1","result":{{"type":"task.text.delta","task_id":"{MAIN_ID}",'
    head += f'"sequence_number":{number},"item_id":"msg_1","content_index":0,"agent_step":1,"delta":"'
    return (head + '"}}\r\n\r\n').encode().replace(b'""', b'"' + b"x" * (SIZE - len(head) - 7) + b'"')


def chunks(events: int) -> Iterator[bytes]:
    """A stream of so many events, cut without regard to what is in it."""
    held = b""
    for number in range(events):
        held += frame(number % 100_000)
        if len(held) >= CHUNK:
            yield held[:CHUNK]
            held = held[CHUNK:]
    yield held


def split_bytes(stream: list[bytes]) -> int:
    """The floor: what any decoder has to do."""
    count, held = 0, b""
    for chunk in stream:
        *frames, held = (held + chunk).split(b"\r\n\r\n")
        for raw in frames:
            json.loads(raw[6:])
            count += 1
    return count


def httpx_sse(stream: list[bytes]) -> int:
    """httpx-sse's own decoders, without the response around them."""
    count, text, lines, events = 0, codecs.getincrementaldecoder("utf-8")(), SSELineDecoder(), SSEDecoder()
    for chunk in stream:
        for line in lines.decode(text.decode(chunk)):
            event = events.decode(line)
            if event is not None:
                event.json()
                count += 1
    return count


def published_sdk(stream: list[bytes]) -> int:
    """The decoder of `agentlin_client`."""
    count = 0
    for event in PublishedDecoder().iter_bytes(iter(stream)):
        event.json()
        count += 1
    return count


def ours(stream: list[bytes]) -> int:
    """Typed events."""
    count, reader = 0, FrameReader(MAIN_ID)
    for chunk in stream:
        for read in reader.feed(chunk):
            assert read.is_main
            assert type(read.event) is TaskTextDeltaEvent
            count += 1
    return count


DECODERS: dict[str, Callable[[list[bytes]], int]] = {
    "split bytes + json": split_bytes,
    "httpx-sse + json": httpx_sse,
    "agentlin_client decoder + json": published_sdk,
    "agentlin_bridge, typed events": ours,
}


def rates(events: int, repeat: int) -> dict[str, float]:
    """Events per second of each decoder, in turns, so that a busy moment hits them all."""
    stream = list(chunks(events))
    best = dict.fromkeys(DECODERS, float("inf"))
    for _ in range(repeat):
        for name, decode in DECODERS.items():
            gc.collect()
            start = process_time()
            count = decode(stream)
            best[name] = min(best[name], process_time() - start)
            assert count == events, f"{name}: {count} of {events}"
    return {name: events / seconds for name, seconds in best.items()}


def memory_growth(events: int) -> tuple[int, int]:
    """Bytes more after reading so many typed events than before, and at the worst moment."""
    reader = FrameReader(MAIN_ID)
    for chunk in chunks(5_000):
        reader.feed(chunk)
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for chunk in chunks(events):
        reader.feed(chunk)
    gc.collect()
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return after - before, peak - before


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description="How fast a round's event stream is read.")
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    assert len(frame(0)) == len(frame(12_345)) == SIZE
    measured = rates(options.events, options.repeat)
    base = measured["httpx-sse + json"]
    for name, rate in measured.items():
        print(f"{name:32} {rate:>10,.0f} events/s   {rate / base:5.2f} x httpx-sse + json")
    growth, peak = memory_growth(MEMORY_EVENTS)
    print(f"memory over {MEMORY_EVENTS:,} typed events: {growth / 1024:+.1f} KiB, at most {peak / 1024:+.1f} KiB")
    good = measured["agentlin_bridge, typed events"] >= base / 2 and peak < MEMORY_LIMIT
    print("good" if good else "NOT GOOD: wanted at least 0.5 x, and memory flat")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
