"""A chat-completions endpoint on a real port whose model says what a test scripted."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.support.replay import listening

Json = dict[str, Any]
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


@dataclass(frozen=True)
class Call:
    """A tool call of the model; `arguments` may be broken JSON."""

    name: str
    arguments: str = "{}"
    id: str | None = "call_1"


@dataclass
class Reply:
    """One answer of the model.

    Attributes:
        text: its message, piece by piece.
        reasoning: what it thinks first, piece by piece.
        status: an HTTP status; with any but 200, `error` is the body's error.
        cut: whether the connection breaks after the last piece.
        gate: opened by the test before the last piece is sent.
    """

    text: tuple[str, ...] = ()
    reasoning: tuple[str, ...] = ()
    calls: tuple[Call, ...] = ()
    finish_reason: str | None = None
    refusal: str | None = None
    status: int = 200
    error: Json = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    usage: bool = True
    gate: anyio.Event | None = None

    @property
    def ends_with(self) -> str | None:
        if self.finish_reason is not None:
            return self.finish_reason or None
        return "tool_calls" if self.calls else "stop"


Model = Callable[[Json], Reply]


def saying(*replies: Reply) -> Model:
    """A model that gives one reply after the other, whatever it is asked."""
    left = list(replies)

    def next_reply(_request: Json) -> Reply:
        assert left, "the model was asked more often than scripted"
        return left.pop(0)

    return next_reply


@dataclass
class Endpoint:
    """What the model is asked, and where."""

    model: Model
    base_url: str = ""
    requests: list[Json] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    asked: anyio.Event = field(default_factory=anyio.Event)

    def messages(self, index: int = -1) -> list[Json]:
        """The messages of one request."""
        found: list[Json] = self.requests[index]["messages"]
        return found

    def offered(self, index: int = -1) -> list[str]:
        """The names of the tools of one request."""
        return [tool["function"]["name"] for tool in self.requests[index].get("tools", [])]

    async def _respond(self, request: Request) -> Response:
        """The same model behind the Responses API, streaming only: a signed thought, then tool calls or a message."""
        body = await request.json()
        self.requests.append(body)
        return StreamingResponse(_events(self.model(body)), media_type="text/event-stream")

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        self.asked.set()
        reply = self.model(body)
        if reply.status != 200:
            return JSONResponse({"error": reply.error}, reply.status, dict(reply.headers))
        if body.get("stream"):
            headers = {"content-length": "1000000"} if reply.cut else {}
            return StreamingResponse(_frames(reply, body), media_type="text/event-stream", headers=headers)
        return JSONResponse(_whole(reply))


async def _frames(reply: Reply, body: Json) -> AsyncIterator[str]:
    deltas: list[Json] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": piece} for piece in reply.reasoning]
    deltas += [{"content": piece} for piece in reply.text]
    for index, call in enumerate(reply.calls):
        half = len(call.arguments) // 2
        head = {"name": call.name, "arguments": call.arguments[:half]}
        deltas.append({"tool_calls": [{"index": index, "id": call.id, "type": "function", "function": head}]})
        deltas.append({"tool_calls": [{"index": index, "function": {"arguments": call.arguments[half:]}}]})
    if reply.refusal is not None:
        deltas.append({"refusal": reply.refusal})
    for index, delta in enumerate(deltas):
        if reply.gate is not None and index == len(deltas) - 1:
            await reply.gate.wait()
        yield _frame(choices=[{"index": 0, "delta": delta, "finish_reason": None}])
    if reply.cut:
        return
    yield _frame(choices=[{"index": 0, "delta": {}, "finish_reason": reply.ends_with}])
    if reply.usage and (body.get("stream_options") or {}).get("include_usage"):
        yield _frame(choices=[], usage=USAGE)
    yield "data: [DONE]\n\n"


def _frame(**fields: Any) -> str:
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "scripted", **fields}
    return f"data: {json.dumps(chunk)}\n\n"


async def _events(reply: Reply) -> AsyncIterator[str]:
    items: list[Json] = []
    if reply.reasoning:
        summary = [{"type": "summary_text", "text": text} for text in reply.reasoning]
        items.append({"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": "signed"})
    items += [
        {
            "type": "function_call",
            "id": f"fc_{call.id}",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
            "status": "completed",
        }
        for call in reply.calls
    ]
    if reply.text:
        parts = [{"type": "output_text", "text": "".join(reply.text), "annotations": []}]
        items.append({"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": parts})
    response: Json = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "scripted",
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "status": "in_progress",
    }
    events: list[Json] = [{"type": "response.created", "response": response}]
    for index, item in enumerate(items):
        place = {"output_index": index, "item_id": item["id"]}
        started = {**item, "summary": []} if item["type"] == "reasoning" else item
        started = {**started, "arguments": ""} if item["type"] == "function_call" else started
        started = {**started, "content": []} if item["type"] == "message" else started
        events.append({"type": "response.output_item.added", "output_index": index, "item": started})
        for number, part in enumerate(item.get("summary", ())):
            of_part = {**place, "summary_index": number}
            events.append({"type": "response.reasoning_summary_part.added", "part": {**part, "text": ""}, **of_part})
            events.append({"type": "response.reasoning_summary_text.delta", "delta": part["text"], **of_part})
        if item["type"] == "function_call":
            arguments = item["arguments"]
            events.append({"type": "response.function_call_arguments.delta", "delta": arguments, **place})
        for number, part in enumerate(item.get("content", ())):
            of_part = {**place, "content_index": number, "logprobs": []}
            events.append({"type": "response.output_text.delta", "delta": part["text"], **of_part})
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    reason = {"reason": "max_output_tokens"} if reply.finish_reason == "length" else None
    status = "incomplete" if reason else "completed"
    done = {**response, "status": status, "output": items, "incomplete_details": reason}
    events.append({"type": f"response.{status}", "response": done})
    for number, event in enumerate(events):
        yield f"event: {event['type']}\ndata: {json.dumps({**event, 'sequence_number': number})}\n\n"


def _whole(reply: Reply) -> Json:
    message: Json = {"role": "assistant", "content": "".join(reply.text) or None, "refusal": reply.refusal}
    if reply.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in reply.calls
        ]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "scripted",
        "choices": [{"index": 0, "message": message, "finish_reason": reply.ends_with}],
        "usage": USAGE,
    }


@asynccontextmanager
async def endpoint(model: Model | Reply) -> AsyncIterator[Endpoint]:
    """Listen while entered."""
    listener = socket.create_server(("127.0.0.1", 0))
    made = Endpoint(saying(model) if isinstance(model, Reply) else model)
    made.base_url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", made._complete, methods=["POST"]),
            Route("/v1/responses", made._respond, methods=["POST"]),
        ]
    )
    config = uvicorn.Config(app, lifespan="off", log_config=None, ws="none", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    server.capture_signals = nullcontext  # type: ignore[assignment,method-assign]  # pytest has its own handlers
    with listener, anyio.fail_after(60):
        async with listening(server, listener):
            yield made
