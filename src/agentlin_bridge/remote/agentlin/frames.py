"""From the bytes of a round's event stream to frames, and to what became of the round.

Nothing here does IO. The stream is server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html),
one JSON-RPC envelope each. Lines are split here, in bytes and with a bound, which httpx-sse does not offer;
what a line means is left to httpx-sse.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from httpx_sse._decoders import SSEDecoder
from pydantic_core import from_json

from agentlin_bridge.events import AgentTaskEvent, parse_event
from agentlin_bridge.events.lifecycle import TaskFailedEvent, TaskObjectEvent
from agentlin_bridge.events.progress import STATUS_OF
from agentlin_bridge.remote.messages import clean_message
from agentlin_bridge.task import JsonrpcError, TaskObject

FRAME_LIMIT = 32 * 1024 * 1024
"""Bytes a frame may have. The last one repeats the whole task, so a few megabytes are ordinary."""

_MESSAGE_LIMIT = 10_000
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

ENDING = frozenset(
    {"task.completed", "task.failed", "task.input_required", "task.canceled", "task.expired", "task.paused"}
)
"""Types that end the stream, when they are the main task's."""

Outcome = Literal["ended", "failed", "cut"]
"""`ended`: the main task's last event came. `failed`: the request was answered with an error instead.
`cut`: neither came, so only a look-up can tell how the round is."""


class Frame(NamedTuple):
    """One envelope.

    Attributes:
        error: the envelope's error. In a sub-task's frame it is the sub-task's.
        is_main: whether it is about the main task, or the request itself; all others are about sub-tasks.
    """

    event: AgentTaskEvent | None
    error: JsonrpcError | None
    is_main: bool


class FrameReader:
    """Reads the stream of one round. Feed it bytes as they come, and close it when no more do.

    Args:
        main_id: the remote task's id; if empty, the first frame's is taken.
        adopt_id: for servers that may ignore our ids: the first frame's id wins over `main_id`.
        limit: bytes a frame may have; a longer one makes the stream unreadable from there on.

    Attributes:
        outcome: None as long as nobody knows; from the frame on that decides it, or from `close`.
        task: the task object of the event that ended the stream; None if there was none, or none readable.
        error: the error of the frame that ended the stream.
        problem: what is wrong with a stream that was cut.
        garbage: how many pieces of data were skipped because they were no envelope.
        request_id: the envelopes' id.
    """

    def __init__(self, main_id: str = "", *, adopt_id: bool = False, limit: int = FRAME_LIMIT) -> None:
        self.main_id = main_id
        self.outcome: Outcome | None = None
        self.task: TaskObject | None = None
        self.error: JsonrpcError | None = None
        self.problem = ""
        self.garbage = 0
        self.request_id: str | None = None
        self._id_is_open = adopt_id or not main_id
        self._lines = _Lines(limit)
        self._sse = SSEDecoder()
        self._is_closed = False

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames that a piece of the stream completes."""
        frames: list[Frame] = []
        if self._is_closed:
            return frames
        for line in self._lines.split(chunk):
            message = self._sse.decode(line.decode("utf-8", "replace"))
            if message is not None:
                frames += self._frames(message.data)
        if self._lines.overflow:
            self._is_closed = True
            self._give_up(f"A frame of the stream is longer than {self._lines.limit} bytes.")
        return frames

    def close(self) -> list[Frame]:
        """The stream has ended. A whole frame that lacks only its line ends still counts."""
        frames: list[Frame] = []
        if self._is_closed:
            return frames
        self._is_closed = True
        garbage = self.garbage
        rest = self._lines.rest()
        if rest:
            self._sse.decode(rest.decode("utf-8", "replace"))
        message = self._sse.decode("")
        if message is not None:
            frames += self._frames(message.data)
        is_half = not frames and (bool(rest) or self.garbage > garbage)
        self.garbage = garbage
        where = "in the middle of a frame" if is_half else "before the task's last event"
        self._give_up(f"The stream ended {where}.")
        return frames

    def _give_up(self, problem: str) -> None:
        if self.outcome is None:
            self.outcome, self.problem = "cut", problem

    def _frames(self, data: str) -> Iterator[Frame]:
        if not data:
            return
        envelope = _json_object(data)
        if envelope is None and "\n" in data:
            # Not one envelope in several lines, so a damaged line stands before or after a whole one.
            for line in data.split("\n"):
                yield from self._frames(line)
            return
        frame = None if envelope is None else self._frame(envelope)
        if frame is None:
            self.garbage += 1
        else:
            yield frame

    def _frame(self, envelope: dict[str, Any]) -> Frame | None:
        if self.request_id is None and isinstance(envelope.get("id"), str):
            self.request_id = envelope["id"]
        error = _error(envelope.get("error"))
        result = envelope.get("result")
        if not isinstance(result, dict):
            if error is None:
                return None
            self._end("failed", error)
            return Frame(None, error, True)
        event = parse_event(result)
        if isinstance(event, TaskObjectEvent):
            _clean(event)
        if self._id_is_open and event.task_id:
            self.main_id, self._id_is_open = event.task_id, False
        is_main = event.task_id == self.main_id != ""
        if is_main and event.type in ENDING:
            self._end("ended", error, event)
        return Frame(event, error, is_main)

    def _end(self, outcome: Outcome, error: JsonrpcError | None, event: AgentTaskEvent | None = None) -> None:
        if self.outcome is not None:
            return
        self.outcome, self.error = outcome, error
        if isinstance(event, TaskObjectEvent):
            self.task = event.task
            if self.task.status is None:
                self.task.status = STATUS_OF[event.type]
            if isinstance(event, TaskFailedEvent) and self.task.error is None:
                self.task.error = event.error or error


class _Lines:
    """Splits bytes into lines, at CRLF, LF or CR, until a frame outgrows the limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.overflow = False
        self._tail = bytearray()
        self._in_frame = 0
        self._is_after_cr = False
        self._is_at_start = True

    def split(self, chunk: bytes) -> Iterator[bytes]:
        if self._is_after_cr and chunk:
            self._is_after_cr = False
            chunk = chunk.removeprefix(b"\n")
        lines = chunk.splitlines()
        rest = lines.pop() if lines and not chunk.endswith((b"\r", b"\n")) else b""
        if lines:
            self._is_after_cr = chunk.endswith(b"\r")
            lines[0] = self._completed(lines[0])
        for line in lines:
            if self._is_too_much(len(line)):
                return
            if not line:
                self._in_frame = 0
            elif not line.startswith(b":"):
                self._in_frame += len(line)
            yield line
        self._tail += rest
        self._is_too_much(len(self._tail))

    def rest(self) -> bytes:
        """The last line, which nothing ended."""
        return bytes(self._tail)

    def _completed(self, line: bytes) -> bytes:
        if self._tail:
            line = bytes(self._tail) + line
            self._tail.clear()
        if self._is_at_start:
            self._is_at_start = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        return line

    def _is_too_much(self, size: int) -> bool:
        if self._in_frame + size > self.limit:
            self.overflow = True
            self._tail.clear()
        return self.overflow


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        value = from_json(text, cache_strings="keys")
    except ValueError:
        value = _repaired(text)
    return value if isinstance(value, dict) else None


def _repaired(text: str) -> Any:
    """JSON with halves of surrogate pairs, which a text cut in the middle of a character leaves behind."""
    try:
        text = json.dumps(json.loads(text), ensure_ascii=False)
        return from_json(text.encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def _error(value: Any) -> JsonrpcError | None:
    if value is None:
        return None
    found = value if isinstance(value, dict) else {"message": value}
    code = found.get("code")
    message = clean_message(str(found.get("message") or "")[:_MESSAGE_LIMIT])
    return JsonrpcError(code=code, message=message) if isinstance(code, int) else JsonrpcError(message=message)


def _clean(event: TaskObjectEvent) -> None:
    if event.task.error is not None:
        event.task.error = _error(event.task.error.model_dump())
    if isinstance(event, TaskFailedEvent) and event.error is not None:
        event.error = _error(event.error.model_dump())
