"""A scripted model behind the OpenAI API, on a real port: words in the user's text say what it does.

| in the user's text | what the model does |
|---|---|
| `weather Paris` | calls get_weather(city="Paris"); `weather Paris and Rome` calls it twice in one turn |
| `weather Paris and echo hi` | calls get_weather and the server's own echo in one turn |
| `chain 3` | calls get_weather in three rounds, one call each |
| `call act {"what": "x"}` | calls any tool, offered or not; several such words: several calls in one turn |
| `bad args` | calls get_weather with arguments that are not JSON |
| `echo hi`, `sleep 0.5` | calls the server's own tool |
| `delegate REST` | calls the server's subagent, which gets REST as its own text |
| `fail 500` | answers the first request of the turn with this status |
| `then fail 500`, `then fail 500 once` | the same when it has tool results: always, or the first time |
| `hold`, `then hold` | replies only after `release()`: to the first request, or when it has tool results |
| `reason` | thinks aloud before the first reply |
| anything else | answers `Answer to: ` and the text |

A tool that is not offered in the request is not called (but by `call`): the model says so instead. Once it has
the results it answers `Results: ` and the texts of the results, joined by ` | `, an image as its media type.
What comes after a tool result in the same turn belongs to the results; "continue" asks for nothing new.

As OpenAI's API does it refuses with 400 a prompt in which calls and results do not match, or with an image in a
tool message. All scripted failures forbid the client to retry, so that one failure fails one run.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

Json = dict[str, Any]

_HELD_AT_MOST = 60.0


@dataclass(frozen=True)
class Said:
    """One message of a prompt, the same for both APIs."""

    role: str
    parts: list[Json] = field(default_factory=list)
    calls: dict[str, str] = field(default_factory=dict)
    call_id: str | None = None

    @property
    def text(self) -> str:
        """The texts, without what the server adds of its own."""
        texts = (part["text"] for part in self.parts if "text" in part)
        return "".join(text for text in texts if not text.startswith("<system-reminder>"))

    @property
    def images(self) -> list[str]:
        """The addresses of the images."""
        found = (part["image_url"] for part in self.parts if "image_url" in part)
        return [image if isinstance(image, str) else image["url"] for image in found]

    def __str__(self) -> str:
        return " ".join([self.role, *self.calls, *([self.call_id] if self.call_id else [])])


@dataclass
class Asked:
    """One request the server sent."""

    path: str
    body: Json
    headers: Mapping[str, str]
    messages: list[Said]
    refused: str | None = None

    @property
    def task_id(self) -> str | None:
        """The task this request was made for."""
        return self.headers.get("x-task-id")

    @property
    def session_id(self) -> str | None:
        """The session this request was made for."""
        return self.headers.get("x-session-id")

    @property
    def shape(self) -> list[str]:
        """Roles and call ids in order: `["system", "user", "assistant call_1", "tool call_1"]`."""
        return [str(said) for said in self.messages]

    @property
    def tools(self) -> list[str]:
        """The names of the tools the model may call."""
        return [tool.get("function", tool)["name"] for tool in self.body.get("tools", [])]


@dataclass(frozen=True)
class _Call:
    name: str
    arguments: str
    id: str = field(default_factory=lambda: f"call_{secrets.token_hex(6)}")


@dataclass(frozen=True)
class _Reply:
    text: str = ""
    calls: list[_Call] = field(default_factory=list)
    reasoning: str = ""
    status: int = 200


@dataclass
class _Turn:
    """The current turn of a prompt: what was asked, and what happened since."""

    text: str = ""
    rounds: int = 0
    results: list[str] = field(default_factory=list)

    @property
    def delegates(self) -> bool:
        """Whether the words are meant for the subagent."""
        return self.text.startswith("delegate ")


class ScriptedModel:
    """The model. `requests` is everything it was asked, oldest first."""

    def __init__(self) -> None:
        self.requests: list[Asked] = []
        self.base_url = ""
        self._arrived = threading.Condition()
        self._released = threading.Event()
        self._failed: set[str] = set()

    def reset(self) -> None:
        """Forget the requests and let go what is held, for the next test."""
        self.release()
        self.requests.clear()
        self._failed.clear()
        self._released = threading.Event()

    def release(self) -> None:
        """Let the model answer what it holds, and hold nothing any more."""
        self._released.set()

    def of(self, task_id: str) -> list[Asked]:
        """The requests made for a task."""
        return [asked for asked in self.requests if asked.task_id == task_id]

    def wait_for(self, task_id: str, count: int = 1, seconds: float = 20) -> Asked:
        """Wait until that many requests were made for a task; the last of them."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.of(task_id)) >= count, seconds):
                raise AssertionError(f"the model got {len(self.of(task_id))} requests for {task_id}, not {count}")
            return self.of(task_id)[count - 1]

    @contextmanager
    def serve(self) -> Iterator[Self]:
        """Listen while entered, in a thread."""
        routes = [
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/responses", self._responses, methods=["POST"]),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes), lifespan="off", log_config=None, ws="none", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        server.capture_signals = nullcontext  # type: ignore[assignment,method-assign]  # pytest has its own handlers
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.base_url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
            thread = threading.Thread(target=asyncio.run, args=[server.serve([listener])])
            thread.start()
            try:
                yield self
            finally:
                self.release()
                server.should_exit = True
                server.force_exit = True
                thread.join(20)

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        messages = [_from_chat(message) for message in body["messages"]]
        reply = await self._reply(request, body, messages, _chat_mismatch(messages))
        if isinstance(reply, Response):
            return reply
        model = body["model"]
        if body.get("stream"):
            return StreamingResponse(_chat_chunks(reply, model), media_type="text/event-stream")
        return JSONResponse(_chat_completion(reply, model))

    async def _responses(self, request: Request) -> Response:
        body = await request.json()
        messages = _from_responses(body["input"])
        reply = await self._reply(request, body, messages, _responses_mismatch(messages))
        return reply if isinstance(reply, Response) else JSONResponse(_response(reply, body["model"]))

    async def _reply(
        self, request: Request, body: Json, messages: list[Said], refused: str | None
    ) -> Response | _Reply:
        asked = Asked(request.url.path, body, dict(request.headers), messages, refused)
        released = self._released
        with self._arrived:
            self.requests.append(asked)
            self._arrived.notify_all()
        if refused is not None:
            return _error(400, refused)
        turn = _current_turn(messages)
        if not turn.delegates and re.search(r"\bthen hold\b" if turn.results else r"(?<!then )\bhold\b", turn.text):
            await asyncio.to_thread(released.wait, _HELD_AT_MOST)
        if (status := self._failure(asked, turn)) is not None:
            return _error(status, "scripted failure")
        return _decide(turn, asked.tools)

    def _failure(self, asked: Asked, turn: _Turn) -> int | None:
        if turn.delegates:
            return None
        found = re.search(r"\bthen fail (\d+)( once)?" if turn.results else r"(?<!then )\bfail (\d+)()", turn.text)
        if found is None:
            return None
        if found[2]:
            failed = f"{asked.session_id} {turn.text}"
            if failed in self._failed:
                return None
            self._failed.add(failed)
        return int(found[1])


def _decide(turn: _Turn, offered: list[str]) -> _Reply:
    reasoning = "Let me think." if re.search(r"\breason\b", turn.text) and not turn.rounds else ""
    calls = _wanted(turn)
    if not calls:
        answer = "Results: " + " | ".join(turn.results) if turn.rounds else f"Answer to: {turn.text}"
        return _Reply(_harmless(answer), reasoning=reasoning)
    missing = [call.name for call in calls if call.name not in offered and not turn.text.startswith("call ")]
    if missing:
        return _Reply(f"I was not given the tool {missing[0]}.", reasoning=reasoning)
    return _Reply(calls=calls, reasoning=reasoning)


def _wanted(turn: _Turn) -> list[_Call]:
    """The calls of the next round."""
    text = turn.text
    if (chain := re.search(r"\bchain (\d+)", text)) is not None:
        return [_tool("get_weather", city=f"City {turn.rounds + 1}")] if turn.rounds < int(chain[1]) else []
    if turn.rounds:
        return []
    if (delegated := re.match(r"delegate (.+)", text, re.DOTALL)) is not None:
        return [_tool("Task", name="helper", description="Help.", prompt=delegated[1])]
    if text.startswith("call "):
        return [_Call(name, arguments) for name, arguments in re.findall(r"\bcall (\w+) (\{[^{}]*\})", text)]
    if re.search(r"\bbad args\b", text):
        return [_Call("get_weather", "{not json")]
    calls = []
    if (weather := re.search(r"\bweather (?:in )?(\w+)(?: and (?!echo\b|sleep\b)(\w+))?", text)) is not None:
        calls += [_tool("get_weather", city=city) for city in weather.groups() if city]
    if (echo := re.search(r"\becho (\w+)", text)) is not None:
        calls.append(_tool("echo", text=echo[1]))
    if (sleep := re.search(r"\bsleep (\d+(?:\.\d+)?)", text)) is not None:
        calls.append(_tool("sleep", seconds=float(sleep[1])))
    return calls


def _tool(name: str, /, **arguments: Any) -> _Call:
    return _Call(name, json.dumps(arguments))


def _harmless(text: str) -> str:
    """The server runs the code blocks of an answer, and cuts thoughts out of it."""
    return text.replace("```", "'''").replace("<think>", "(think)").replace("</think>", "(/think)")


def _current_turn(messages: list[Said]) -> _Turn:
    turn = _Turn()
    has_results = False
    for said in messages:
        if said.role == "assistant":
            has_results = False
            turn.rounds += bool(said.calls)
        elif said.role == "tool" or (said.role == "user" and has_results):
            has_results = True
            if said.text.strip().lower() != "continue":
                turn.results += [said.text] if said.text else []
                turn.results += [f"[{image.removeprefix('data:').split(';')[0]}]" for image in said.images]
        elif said.role == "user" and said.text.strip():
            turn = _Turn(said.text.strip())
    return turn


# --- The two APIs ---------------------------------------------------------------------------------------------------


def _parts(content: str | list[Json] | None) -> list[Json]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content or []


def _from_chat(message: Json) -> Said:
    calls = {call["id"]: call["function"]["name"] for call in message.get("tool_calls") or []}
    return Said(message["role"], _parts(message.get("content")), calls, message.get("tool_call_id"))


def _from_responses(items: list[Json]) -> list[Said]:
    messages: list[Said] = []
    last_was_call = False
    for item in items:
        is_call = item["type"] == "function_call"
        if is_call:
            if not last_was_call:
                messages.append(Said("assistant"))
            messages[-1].calls[item["call_id"]] = item["name"]
        elif item["type"] == "function_call_output":
            messages.append(Said("tool", _parts(item["output"]), call_id=item["call_id"]))
        elif item["type"] == "message":
            messages.append(Said(item["role"], _parts(item["content"])))
        last_was_call = is_call
    return messages


def _chat_mismatch(messages: list[Said]) -> str | None:
    """Each call is answered once, in the tool messages directly after it; images are for users."""
    open_calls: dict[str, str] = {}
    for index, said in enumerate([*messages, Said("end")]):
        if said.role == "tool":
            if open_calls.pop(said.call_id or "", None) is None:
                return (
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message "
                    "with 'tool_calls'."
                )
            if said.images:
                return (
                    f"Invalid 'messages[{index}]'. Image URLs are only allowed for messages with role 'user', "
                    "but this message with role 'tool' contains an image URL."
                )
        elif open_calls:
            return (
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                "'tool_call_id'. The following tool_call_ids did not have response messages: " + ", ".join(open_calls)
            )
        else:
            open_calls = dict(said.calls)
    return None


def _responses_mismatch(messages: list[Said]) -> str | None:
    """Each call is answered once, anywhere after it. (Whether OpenAI refuses a second answer is not known.)"""
    open_calls: dict[str, str] = {}
    for said in messages:
        if said.role == "tool" and open_calls.pop(said.call_id or "", None) is None:
            return f"No tool call found for function call output with call_id {said.call_id}."
        open_calls |= said.calls
    return f"No tool output found for function call {next(iter(open_calls))}." if open_calls else None


def _error(status: int, message: str) -> Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse({"error": error}, status, {"x-should-retry": "false"})


def _id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(6)}"


_CHAT_USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def _chat_completion(reply: _Reply, model: str) -> Json:
    message: Json = {"role": "assistant", "content": reply.text or None}
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    if reply.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in reply.calls
        ]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if reply.calls else "stop"}
    return {
        "id": _id("chatcmpl"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
        "usage": _CHAT_USAGE,
    }


def _chat_chunks(reply: _Reply, model: str) -> Iterator[str]:
    deltas: list[Json] = [{"role": "assistant"}]
    if reply.reasoning:
        deltas.append({"reasoning_content": reply.reasoning})
    for index, call in enumerate(reply.calls):
        half = len(call.arguments) // 2
        name = {"name": call.name, "arguments": call.arguments[:half]}
        deltas.append({"tool_calls": [{"index": index, "id": call.id, "type": "function", "function": name}]})
        deltas.append({"tool_calls": [{"index": index, "function": {"arguments": call.arguments[half:]}}]})
    half = len(reply.text) // 2
    deltas += [{"content": text} for text in (reply.text[:half], reply.text[half:]) if text]
    deltas.append({})
    chunk = {"id": _id("chatcmpl"), "object": "chat.completion.chunk", "created": int(time.time()), "model": model}
    for delta in deltas:
        # The server reads choices[0] of every chunk, so the usage comes with the last choice.
        end = {"finish_reason": "tool_calls" if reply.calls else "stop"} if not delta else {"finish_reason": None}
        usage = {} if delta else {"usage": _CHAT_USAGE}
        choices = [{"index": 0, "delta": delta, **end}]
        yield f"data: {json.dumps({**chunk, 'choices': choices, **usage})}\n\n"
    yield "data: [DONE]\n\n"


def _response(reply: _Reply, model: str) -> Json:
    output: list[Json] = []
    if reply.reasoning:
        summary = [{"type": "summary_text", "text": reply.reasoning}]
        output.append({"type": "reasoning", "id": _id("rs"), "summary": summary})
    output += [
        {
            "type": "function_call",
            "id": _id("fc"),
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
            "status": "completed",
        }
        for call in reply.calls
    ]
    if reply.text:
        text = {"type": "output_text", "text": reply.text, "annotations": []}
        message = {"type": "message", "id": _id("msg"), "role": "assistant", "status": "completed", "content": [text]}
        output.append(message)
    return {
        "id": _id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "model": model,
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 10,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 15,
        },
    }
