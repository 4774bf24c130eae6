"""What the host's model is told about a task."""

from __future__ import annotations

import json
from typing import Any

from langchain_core.tools import ToolException

from agentlin_bridge.hosts.langchain.content import blocks_of
from agentlin_bridge.task import MessageItem, Task, TaskStatus, TextContentItem

ANSWER_CHARS = 100_000
"""Characters of text the model is given of an answer; the artifact has all of it."""
MEDIA_CHARS = 8_000_000
"""Characters of images, files and audio, as they are encoded, that the model is given of an answer."""

_REPORTED_CHARS = 500


def content_of(task: Task, timeout: float | None) -> str | list[str | dict[Any, Any]]:
    """The answer, as text or as content blocks, or how far the task is.

    Raises:
        ToolException: the task ended without an answer; it says why and what to do.
    """
    if task.status is TaskStatus.COMPLETED:
        return _blocks(task) or (
            _bounded(task.answer) if task.answer else f"Task {task.id} is completed. It gave no answer in text."
        )
    if task.status.is_terminal:
        raise ToolException(_without_answer(task))
    if task.pending:
        calls = "\n".join(
            f"- {call.name} ({call.call_id}): {call.arguments[:_REPORTED_CHARS]}" for call in task.pending
        )
        if all(call.approval_required for call in task.pending):
            waits = "for a person to approve tool calls", "have a person approve them; no model may"
        else:
            waits = (
                "for the results of client tools that nothing here runs",
                "submit their results to the task by call id",
            )
        return f"Task {task.id} has no answer yet: it waits {waits[0]}.\n{calls}\nNext: {waits[1]}."
    waited = f" after {timeout:g} seconds" if timeout is not None else ""
    return (
        f"Task {task.id} has no answer yet: it is still {task.status.value}{waited}, and goes on.\n"
        "Next: retrieve it later by its id, instead of delegating it again."
    )


def _blocks(task: Task) -> list[str | dict[Any, Any]]:
    """The final message in content blocks, if it is more than text."""
    said = [item for item in task.output if isinstance(item, MessageItem) and item.role == "assistant"]
    content = said[-1].message_content if said else []
    if all(isinstance(item, TextContentItem) for item in content):
        return []
    room, text_room = MEDIA_CHARS, ANSWER_CHARS
    blocks: list[str | dict[Any, Any]] = []
    for item, block in zip(content, blocks_of(content), strict=True):
        if isinstance(item, TextContentItem):
            if text_room > 0:
                blocks.append({**block, "text": _bounded(item.text, text_room)})
            text_room -= len(item.text)
            continue
        room -= len(item.model_dump_json())
        left_out = f"[left out: content of type {block['type']!r}, too large to show; the artifact has it]"
        blocks.append(block if room >= 0 else {"type": "text", "text": left_out})
    return blocks


def for_tool_node(blocks: list[str | dict[Any, Any]]) -> list[str | dict[Any, Any]]:
    """The same in blocks that LangGraph's `ToolNode` leaves alone: one of another type, and it makes text of all."""
    return [_for_tool_node(block) if isinstance(block, dict) else block for block in blocks]


def _for_tool_node(block: dict[Any, Any]) -> dict[Any, Any]:
    if block["type"] == "audio":
        return {**block, "type": "file"}
    if block["type"] == "non_standard":
        return {"type": "text", "text": json.dumps(block["value"], ensure_ascii=False, default=str)}
    return block


def _bounded(answer: str, room: int = ANSWER_CHARS) -> str:
    if len(answer) <= room:
        return answer
    return f"{answer[:room]}\n[cut: the answer has {len(answer):,} characters; the artifact has all of it]"


def _without_answer(task: Task) -> str:
    if task.error is None:
        return f"Task {task.id} is {task.status.value}. Next: delegate it again if it is still needed."
    cause = task.error.message
    # Errors of the bridge's own say what to do.
    step = "" if "Next: " in cause else " Next: delegate it again, with other instructions if they were the cause."
    return f"Task {task.id} {task.status.value}: {cause}{step}"
