"""A round's stream is read whole, and only what is ours is taken for ours."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentlin_bridge.events import TaskFailedEvent, TaskInputRequiredEvent, UnknownEvent, parse_event
from agentlin_bridge.remote.agentlin.frames import ENDING, FRAME_LIMIT, Frame, FrameReader
from agentlin_bridge.task import JsonrpcError, TaskStatus
from tests.events.streams import MAIN, RECORDINGS, SUB, delta, event, frame

STREAMS = {name: recording for name, recording in RECORDINGS.items() if recording.events}


def read(*chunks: bytes, main_id: str = MAIN, **options: Any) -> tuple[FrameReader, list[Frame]]:
    reader = FrameReader(main_id, **options)
    frames = [frame for chunk in chunks for frame in reader.feed(chunk)]
    return reader, frames + reader.close()


def types(frames: Iterable[Frame], *, main: bool = True) -> list[str]:
    return [frame.event.type for frame in frames if frame.event is not None and frame.is_main is main]


# What was recorded --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STREAMS)
def test_recorded_streams(name: str) -> None:
    recording = STREAMS[name]
    reader, frames = read(recording.stream, main_id=recording.main_id)
    assert [(frame.event.type, frame.event.task_id) for frame in frames if frame.event is not None] == [
        (raw["type"], raw["task_id"]) for raw in recording.events
    ]
    for got, raw in zip(frames, recording.events, strict=True):
        assert got.is_main == (raw["task_id"] == recording.main_id)
        assert not isinstance(got.event, UnknownEvent)
        if "error" not in raw:
            assert got.event == parse_event(raw)
    last = recording.events[-1]
    assert (reader.outcome, reader.garbage, reader.problem) == ("ended", 0, "")
    assert reader.request_id == recording.envelopes[0]["id"]
    assert reader.task is not None
    assert (reader.task.id, reader.task.status) == (recording.main_id, last["task"]["status"])
    assert len(reader.task.output) == len(last["task"]["output"])
    assert (reader.error is None) == ("error" not in recording.envelopes[-1])


@pytest.mark.parametrize("name", STREAMS)
def test_without_an_id_the_first_frame_gives_it(name: str) -> None:
    recording = STREAMS[name]
    asked = read(recording.stream, main_id=recording.main_id)
    for reader, frames in (read(recording.stream, main_id=""), read(recording.stream, main_id="x", adopt_id=True)):
        assert reader.main_id == recording.main_id
        assert frames == asked[1]
    reader, frames = read(recording.stream, main_id="task_of_somebody_else")
    assert not types(frames)
    assert (reader.outcome, reader.task) == ("cut", None)


def test_a_refused_request_fails() -> None:
    reader, [refused] = read(RECORDINGS["continue_e_agent_bad_payload_stream"].stream)
    assert refused.event is None
    assert refused.is_main
    assert refused.error == reader.error
    assert reader.outcome == "failed"
    assert reader.error is not None
    assert reader.error.code == -32602
    assert reader.request_id == "r9"


def test_no_traceback_gets_through() -> None:
    recording = STREAMS["model_failure_500_stream"]
    assert b"Traceback" in recording.stream
    reader, frames = read(recording.stream, main_id=recording.main_id)
    last = frames[-1]
    assert isinstance(last.event, TaskFailedEvent)
    assert reader.task is last.event.task
    for error in (last.error, last.event.error, reader.task.error, reader.error):
        assert error is not None
        assert error.code == -32000
        assert 0 < len(error.message) <= 500
    assert "Traceback" not in repr(frames)


# However it is cut --------------------------------------------------------------------------------------

SAMPLE = [event("created"), event("created", SUB), delta("hé 漢字 😀"), event("completed", SUB), event("completed")]
SHORT = b"\xef\xbb\xbf" + b": ping - now\r\n\r\n".join(map(frame, SAMPLE))


@settings(deadline=None)
@given(st.lists(st.integers(0, len(SHORT)), max_size=12), st.sampled_from([b"\r\n", b"\n", b"\r"]), st.booleans())
def test_chunks_make_no_difference(cuts: list[int], end: bytes, ended: bool) -> None:
    stream = SHORT.replace(b"\r\n", end)
    stream = stream if ended else stream.rstrip(b"\r\n")
    edges = [0, *sorted(cuts), len(stream)]
    reader, frames = read(*(stream[start:stop] for start, stop in pairwise(edges)))
    assert [got.event for got in frames] == [parse_event(raw) for raw in SAMPLE]
    assert types(frames) == ["task.created", "task.text.delta", "task.completed"]
    assert (reader.outcome, reader.garbage) == ("ended", 0)


def test_byte_by_byte() -> None:
    for end in (b"\r\n", b"\n", b"\r"):
        stream = SHORT.replace(b"\r\n", end)
        _, frames = read(*(stream[index : index + 1] for index in range(len(stream))))
        assert frames == read(SHORT)[1]
        assert len(frames) == len(SAMPLE)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_recorded_streams_in_any_chunks(data: st.DataObject) -> None:
    recording = STREAMS[data.draw(st.sampled_from(["create_unknown_tool", "create_two_client_calls_stream"]))]
    stream = recording.stream
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=30)))
    edges = [0, *cuts, len(stream)]
    chunks = [stream[start:stop] for start, stop in pairwise(edges)]
    assert read(*chunks, main_id=recording.main_id)[1] == read(stream, main_id=recording.main_id)[1]


def test_a_frame_comes_out_as_soon_as_it_is_whole() -> None:
    for end in ("\r\n", "\n", "\r"):
        assert len(FrameReader(MAIN).feed(frame(delta("x"), end=end))) == 1


def test_truncated_anywhere() -> None:
    """Only from the last byte of the last frame's JSON on is the stream whole."""
    stream = b"".join(map(frame, [*SAMPLE, event("working", SUB)]))
    last = frame(SAMPLE[-1]).rstrip()
    whole = stream.index(last) + len(last)
    for size in range(len(stream)):
        reader, frames = read(stream[:size])
        assert reader.outcome == ("ended" if size >= whole else "cut"), size
        assert (reader.task is not None) == (size >= whole)
        assert frames == read(stream)[1][: len(frames)]
        assert reader.garbage == 0


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_recorded_streams_truncated(data: st.DataObject) -> None:
    recording = STREAMS[data.draw(st.sampled_from(["create_subagent_stream", "structured_output_stream"]))]
    whole = recording.stream.rstrip()
    size = data.draw(st.integers(0, len(whole)))
    reader, _ = read(whole[:size], main_id=recording.main_id)
    assert reader.outcome == ("ended" if size == len(whole) else "cut")


def test_a_cut_stream_says_where() -> None:
    assert read()[0].problem == "The stream ended before the task's last event."
    assert read(frame(delta("x")))[0].problem == "The stream ended before the task's last event."
    assert read(frame(delta("x")).rstrip())[0].problem == "The stream ended before the task's last event."
    assert read(frame(delta("x"))[:50])[0].problem == "The stream ended in the middle of a frame."
    assert read(frame(delta("x"))[:50] + b"\n")[0].problem == "The stream ended in the middle of a frame."
    assert read(b"dat")[0].problem == "The stream ended in the middle of a frame."


def test_nothing_follows_the_end() -> None:
    reader, _ = read(frame(event("created")))
    assert reader.feed(frame(event("completed"))) == []
    assert reader.close() == []
    assert reader.outcome == "cut"


# Whose is it --------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=40), st.booleans())
def test_interleaved_streams_stay_apart(turns: list[bool], ours_first: bool) -> None:
    main, other = STREAMS["create_stream_text"], STREAMS["model_failure_500_stream"]
    if ours_first:
        main, other = other, main
    queues = {True: list(main.raw), False: list(other.raw)}
    order = [queues[turn].pop(0) for turn in turns if queues[turn]]
    order += queues[False] + queues[True] if ours_first else queues[True] + queues[False]
    reader, frames = read("\r\n\r\n".join(order).encode(), main_id=main.main_id)
    alone, expected = read(main.stream, main_id=main.main_id)
    assert [got for got in frames if got.is_main] == expected
    assert types(frames, main=False) == [raw["type"] for raw in other.events]
    assert (reader.outcome, reader.task, reader.error) == (alone.outcome, alone.task, alone.error)


@pytest.mark.parametrize("kind", sorted(ENDING))
def test_only_our_own_last_event_ends_the_stream(kind: str) -> None:
    last = kind.removeprefix("task.")
    reader, _ = read(frame(event(last, SUB), error={"code": 1, "message": "theirs"}))
    assert (reader.outcome, reader.task, reader.error) == ("cut", None, None)
    reader = FrameReader(MAIN)
    reader.feed(frame(event(last)))
    assert reader.outcome == "ended"
    assert reader.task is not None
    assert reader.task.status == last.replace("_", "-")


def test_the_first_ending_counts() -> None:
    reader, frames = read(
        frame(event("completed")), frame(event("failed")), frame(error={"code": 1}), frame(event("created", SUB))
    )
    assert reader.outcome == "ended"
    assert reader.task is not None
    assert reader.task.status is TaskStatus.COMPLETED
    assert len(frames) == 4


def test_a_created_event_is_not_believed() -> None:
    reader, _ = read(frame(event("created", task={"id": MAIN, "status": "completed"})))
    assert (reader.outcome, reader.task) == ("cut", None)


def test_an_event_without_an_id_is_nobodys() -> None:
    nameless = frame({"type": "task.completed", "task": {"id": "x"}})
    for main_id in ("", MAIN):
        reader, [got] = read(nameless, main_id=main_id)
        assert not got.is_main
        assert reader.outcome == "cut"
    reader, frames = read(nameless, frame(event("completed")), main_id="")
    assert [got.is_main for got in frames] == [False, True]


def test_an_ending_nobody_can_read_still_ends() -> None:
    reader, [got] = read(frame(event("completed", task=["?"])))
    assert isinstance(got.event, UnknownEvent)
    assert (reader.outcome, reader.task) == ("ended", None)


def test_what_the_task_object_leaves_out_is_filled_in() -> None:
    bare = {"id": MAIN}
    error = {"code": -1, "message": "boom"}
    reader, [got] = read(frame(event("input_required", task=bare)))
    assert isinstance(got.event, TaskInputRequiredEvent)
    assert reader.task is not None
    assert reader.task.status is TaskStatus.INPUT_REQUIRED
    for failed in (frame(event("failed", task=bare, error=error)), frame(event("failed", task=bare), error=error)):
        reader, _ = read(failed)
        assert reader.task is not None
        assert reader.task.status is TaskStatus.FAILED
        assert reader.task.error == JsonrpcError(code=-1, message="boom")


# Garbage ------------------------------------------------------------------------------------------------

LINES = st.sampled_from(
    [
        b": ping",
        b"",
        b"data",
        b"data:",
        b"data: {",
        b"data: [",
        b"data: null",
        b'data: "text"',
        b'data: {"jsonrpc":"2.0","id":"x"}',
        b'data: {"result":[1],"error":null}',
        b"data: \xff\xfe{}",
        b"event: message",
        b"id: 7",
        b"retry: soon",
        b"\xf0\x9f",
        b"\x00",
        b"data: " + b"[" * 3000,
        b"data: " + b"9" * 5000,
        frame(event("completed", SUB)).strip() + b"\n",
        frame(event("brand_new", "task_other")).strip() + b"\n",
    ]
)
GARBAGE = st.lists((LINES | st.binary(max_size=12)).map(lambda line: line + b"\r\n"), max_size=4).map(b"".join)


@settings(deadline=None, max_examples=150)
@given(st.lists(GARBAGE, min_size=4, max_size=4))
def test_garbage_between_frames_costs_no_frame(garbage: list[bytes]) -> None:
    ours = [event("created"), delta("x"), delta("y"), event("completed")]
    reader, frames = read(*(junk + frame(raw) for junk, raw in zip(garbage, ours, strict=True)))
    assert [got.event for got in frames if got.is_main] == [parse_event(raw) for raw in ours]
    assert reader.outcome == "ended"
    assert reader.task is not None


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=5))
def test_garbage_alone_is_a_cut_stream(chunks: list[bytes]) -> None:
    reader, frames = read(*chunks)
    assert not frames
    assert reader.outcome == "cut"


def test_garbage_is_counted() -> None:
    junk = b'data: oops\n\ndata: [1]\n\ndata: {"result": 5}\n\ndata: {}\n\n: ping\n\ndata:\n\nfoo\n\n'
    reader, frames = read(junk, b"data: oops\n" + frame(event("completed")))
    assert len(frames) == 1
    assert reader.garbage == 5


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
@pytest.mark.parametrize("size", [1, 2, 10_000])
def test_one_envelope_in_several_lines(end: str, size: int) -> None:
    lines = json.dumps({"result": event("completed")}, indent=1).splitlines()
    stream = ("".join(f"data: {line}{end}" for line in lines) + end).encode()
    reader, frames = read(*(stream[start : start + size] for start in range(0, len(stream), size)))
    assert len(frames) == 1
    assert (reader.outcome, reader.garbage) == ("ended", 0)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        ({"code": -5, "message": "no", "data": "Traceback"}, -5, "no"),
        ({"code": "x", "message": ["no"]}, -32000, "['no']"),
        ({}, -32000, ""),
        ("no", -32000, "no"),
        (7, -32000, "7"),
        ({"message": " " * 200_000 + "x"}, -32000, ""),
    ],
)
def test_errors_of_any_shape(error: Any, code: int, message: str) -> None:
    for result in (None, "not an event"):
        reader, [got] = read(frame(result, error=error))
        assert got.error == reader.error == JsonrpcError(code=code, message=message)
        assert reader.outcome == "failed"


def test_half_a_character_does_not_cost_the_frame() -> None:
    half = frame(delta("HALF")).replace(b"HALF", rb"\ud83d")
    [got] = FrameReader(MAIN).feed(half)
    assert got.event == parse_event(delta("?"))
    broken = frame(delta("HALF")).replace(b"HALF", b"\xf0\x9f")
    [got] = FrameReader(MAIN).feed(broken)
    assert got.event == parse_event(delta("\N{REPLACEMENT CHARACTER}"))


# Limits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "long",
    [b"x" * 2000, b"data: " + b"x" * 2000 + b"\n", b":" + b"x" * 2000 + b"\n", b"data: xxxxxxxxxx\n" * 200],
    ids=["unended", "line", "comment", "lines"],
)
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_frame_that_is_too_long(long: bytes, size: int) -> None:
    stream = frame(event("created")) + long + frame(event("completed"))
    reader = FrameReader(MAIN, limit=1000)
    frames = [got for start in range(0, len(stream), size) for got in reader.feed(stream[start : start + size])]
    assert types(frames) == ["task.created"]
    assert reader.outcome == "cut"
    assert reader.problem == "A frame of the stream is longer than 1000 bytes."
    assert reader.feed(frame(event("completed"))) == reader.close() == []


def test_a_line_without_an_end_is_not_waited_for() -> None:
    reader = FrameReader(MAIN, limit=1000)
    reader.feed(b"data: " + b"x" * 500)
    assert reader.outcome is None
    reader.feed(b"x" * 500)
    assert reader.outcome == "cut"


def test_the_limit_is_for_one_frame() -> None:
    stream = (b": " + b"x" * 300 + b"\r\n" + frame(delta("x" * 600))) * 9
    reader, frames = read(stream + frame(event("completed")) + b"x" * 2000, limit=1000)
    assert len(frames) == 10
    assert (reader.outcome, reader.problem) == ("ended", "")


def test_large_frames_are_ordinary() -> None:
    stream = frame(event("completed", task={"id": MAIN, "output": [{"type": "message", "content": "x" * 9_000_000}]}))
    reader, _ = read(*(stream[start : start + 65536] for start in range(0, len(stream), 65536)))
    assert reader.outcome == "ended"
    assert len(stream) < FRAME_LIMIT


def test_memory_stays_flat() -> None:
    reader, chunk = FrameReader(MAIN), frame(delta("x" * 100)) * 20
    reader.feed(chunk)
    tracemalloc.start()
    for _ in range(100):
        reader.feed(chunk)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200_000
