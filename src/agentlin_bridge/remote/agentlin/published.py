"""The dialect of the published server, `agentlin` 0.0.27.

Its POST /tasks/ refuses `ToolResultItem`s and handles tool messages on some of its model backends only. Its
JSON-RPC route takes a plain dict as payload, and a role-tool message whose content is a list of text parts
works there on every model backend (observed). So rounds after the first go that way.

Sources: behaviour and recorded traffic of PyPI `agentlin` 0.0.27; tests/upstream runs its real code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from agentlin_bridge.remote.agentlin.documented import parameters, start_body, wire
from agentlin_bridge.remote.backend import Continuation, PastRound, StartRequest
from agentlin_bridge.task import (
    AudioContentItem,
    FileContentItem,
    ImageContentItem,
    MessageItem,
    TaskObject,
    TextContentItem,
    ToolCallItem,
    ToolResultItem,
)

START_PATH = "/tasks/"
"""With the slash: without it the server redirects every request."""

RPC_PATH = "/tasks/agent"

_WRONG_FORM = ("has no attribute 'get'", "ValidatorIterator", "'texts'")
_BROKEN_HISTORY = (
    "must be a response to a prece",
    "must be followed by tool messages",
    "No tool output found for function call",
    "No tool call found for function call output",
)
"""What OpenAI's chat and Responses endpoints say of a dialogue whose calls and results do not match."""


def start_request(request: StartRequest, client_id: str | None) -> dict[str, Any]:
    """The create request of a first round. This server takes lists of `text`, `image_url`, ... parts only."""
    body = start_body(request, client_id)
    body["user_message_content"] = list(_parts(request.content))
    # Broken over HTTP on this server, streamed or not; the answer is checked on our side anyway.
    body.pop("structured_output", None)
    return body


def rpc_request(continuation: Continuation, client_id: str | None) -> dict[str, Any]:
    """The JSON-RPC request of a further round."""
    payload = {
        **parameters(continuation, client_id),
        "user_message_content": [],
        "previous_task_id": continuation.previous_remote_id,
        **_messages(continuation),
    }
    payload.setdefault("client_id", "agentlin-bridge")
    payload.pop("structured_output", None)
    return {
        "jsonrpc": "2.0",
        # An integer here makes the server answer 500.
        "id": f"req_{continuation.remote_id}",
        "method": "tasks/createSubscribe" if continuation.stream else "tasks/create",
        "params": {
            "id": continuation.remote_id,
            "session_id": continuation.session_id,
            "user_id": continuation.user_id,
            "payload": payload,
        },
    }


def _messages(continuation: Continuation) -> dict[str, Any]:
    if continuation.kind == "nudge":
        # The results are in the session already: a second tool message for a call would break it for good.
        return {"thought_messages": [_user([{"type": "text", "text": "continue"}])]}
    if continuation.kind == "results":
        return {"thought_messages": list(_results(continuation.history[-1].results))}
    said = list(_parts(continuation.content))
    told = [message for round_ in continuation.history for message in _turn(round_)]
    if not told:
        return {"user_message_content": said}
    return {"history_messages": [_user(said)], "thought_messages": told}


def _turn(round_: PastRound) -> Iterator[dict[str, Any]]:
    """A past round as chat messages: each run of calls, then every result of theirs."""
    answers = {result.call_id: result for result in round_.results}
    answers |= {item.call_id: item for item in round_.output if isinstance(item, ToolResultItem)}
    calls: list[ToolCallItem] = []
    for item in [*round_.output, None]:
        if isinstance(item, ToolCallItem):
            calls.append(item)
        elif calls and not isinstance(item, ToolResultItem):
            yield from _called(calls, answers)
            calls = []
        if isinstance(item, MessageItem) and item.text:
            yield {"role": "assistant", "content": [{"type": "text", "text": item.text}]}
    # Nothing is left: the loop ends with an item that is neither call nor result.


def _called(calls: Sequence[ToolCallItem], answers: dict[str, ToolResultItem]) -> Iterator[dict[str, Any]]:
    yield {
        "role": "assistant",
        "content": [],
        "tool_calls": [
            {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in calls
        ],
    }
    unknown = {call.call_id: ToolResultItem(call_id=call.call_id) for call in calls}
    yield from _results([answers.get(call.call_id, unknown[call.call_id]) for call in calls])


def _results(results: Sequence[ToolResultItem]) -> Iterator[dict[str, Any]]:
    """Tool messages with the text, then what is not text in one user message: tool messages cannot hold it."""
    attached: list[dict[str, Any]] = []
    for result in results:
        parts = list(_parts(result.message_content))
        texts = [part for part in parts if part["type"] == "text"]
        others = [_as_file(part) if part["type"] == "input_audio" else part for part in parts if part["type"] != "text"]
        if not texts:
            text = result.text or ("(see the attachment that follows)" if others else "(no output)")
            texts = [{"type": "text", "text": text}]
        yield {"role": "tool", "tool_call_id": result.call_id, "content": texts}
        if others:
            attached += [{"type": "text", "text": f"Attached to the result of tool call {result.call_id}:"}, *others]
    if attached:
        yield _user(attached)


def _as_file(audio: dict[str, Any]) -> dict[str, Any]:
    """Audio in a later message fails on the Responses backend; a file passes on all of them (observed)."""
    kind, data = audio["input_audio"]["format"], audio["input_audio"]["data"]
    return {"type": "file", "file": {"filename": f"audio.{kind}", "file_data": f"data:audio/{kind};base64,{data}"}}


def _user(content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _parts(content: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Content items under the four type names this server knows; what it does not know goes as text."""
    for item in content:
        if isinstance(item, TextContentItem):
            yield {"type": "text", "text": item.text}
        elif isinstance(item, ImageContentItem):
            yield {"type": "image_url", "image_url": wire(item.image_url)}
        elif isinstance(item, AudioContentItem):
            yield {"type": "input_audio", "input_audio": wire(item.input_audio)}
        elif isinstance(item, FileContentItem):
            yield {"type": "file", "file": wire(item.file)}
        else:
            yield {"type": "text", "text": item.model_dump_json()}


def remedy(failed: TaskObject | None, tried: Sequence[str]) -> Literal["nudge", "replay"] | None:
    """How to make up for a failed round: see `TaskBackend.remedy`.

    A first round that failed stays failed. Afterwards the results are in the session already, whatever the
    model did: ask it to go on, once; then tell everything to a fresh session, once.
    """
    replayable: Literal["replay"] | None = None if "replay" in tried else "replay"
    if failed is None:
        return replayable
    if tried[0] == "start":
        return None
    text = failed.error.message if failed.error is not None else ""
    if any(sign in text for sign in (*_WRONG_FORM, *_BROKEN_HISTORY)) or "nudge" in tried or "replay" in tried:
        return replayable
    return "nudge"
