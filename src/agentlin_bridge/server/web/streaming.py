"""Event streams: server-sent events, one JSON-RPC envelope each, as the published clients read them."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request

from agentlin_bridge.server.execution.feed import Happening
from agentlin_bridge.server.protocol.bodies import EventParams, checked
from agentlin_bridge.server.protocol.refusals import Refusal
from agentlin_bridge.server.protocol.sessions import shown_name
from agentlin_bridge.server.web.metrics import Metrics

PING = 15
"""Seconds between the comments that keep an idle stream open."""


class _Ping(ServerSentEvent):
    def encode(self) -> bytes:
        # Without the empty line that would end an event: after an `id` the published SDK takes it for one.
        return b": ping\r\n"


def event_stream(
    happenings: AsyncGenerator[Happening, None], request_id: str | int, user: str | None, metrics: Metrics
) -> EventSourceResponse:
    """The answer that tells a user what happens to a task, until its round is over or the client leaves.

    Leaving changes nothing for the task.
    """
    frames = _frames(happenings, request_id, user, metrics)
    return EventSourceResponse(frames, ping=PING, ping_message_factory=_Ping)


async def _frames(
    happenings: AsyncGenerator[Happening, None], request_id: str | int, user: str | None, metrics: Metrics
) -> AsyncIterator[bytes]:
    head = b'{"jsonrpc":"2.0","id":' + json.dumps(request_id).encode() + b',"result":'
    with metrics.stream() as count:
        async with aclosing(happenings):
            try:
                async for happening in happenings:
                    count()
                    yield b"id: %d\r\ndata: %b%b%b}\r\n\r\n" % (
                        happening.number,
                        head,
                        _shown(happening, user),
                        _error_of(happening.event),
                    )
            except Refusal:
                # The server stops, or the task is gone. The stream ends without a last event: clients look it up.
                return


def _shown(happening: Happening, user: str | None) -> bytes:
    task = happening.event.get("task")
    if user is None or task is None:
        return happening.encoded
    shown = {**task, "session_id": shown_name(user, task["session_id"])}
    return Happening(happening.number, {**happening.event, "task": shown}).encoded


def _error_of(event: Mapping[str, object]) -> bytes:
    error = event.get("error") if event["type"] == "task.failed" else None
    return b"" if error is None else b',"error":' + json.dumps(error).encode()


def read_position(request: Request) -> int:
    """After which event a stream is to go on: `?after=`, else the header `Last-Event-ID`, else 0.

    Raises:
        Refusal: it is no event's number.
    """
    given = [request.query_params.get("after"), request.headers.get("last-event-id") or None]
    positions = [checked(EventParams, {"after": position}).after for position in given if position is not None]
    return positions[0] if positions else 0
