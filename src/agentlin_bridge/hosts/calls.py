"""Tool calls as the host's model reads them: bounded, inert, and each on a line of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from agentlin_bridge.hosts.text import inert, quoted
from agentlin_bridge.task import PendingCall

ARGUMENT_CHARS = 20_000
"""Characters of tool call arguments in one result."""
CALLS = 20
"""Tool calls in one result."""

_NAME_CHARS = 200


def shown(pending: Sequence[PendingCall]) -> list[PendingCall]:
    """The calls one result has room for; at least one. The rest follows when these are answered."""
    fitting: list[PendingCall] = []
    room = ARGUMENT_CHARS
    for call in pending[:CALLS]:
        room -= len(call.arguments) + len(call.name) + len(call.call_id)
        if fitting and room < 0:
            break
        fitting.append(call)
    return fitting


def described(call: PendingCall, remark: str) -> tuple[dict[str, Any], str]:
    """A call as fields, and as a line of text; the remark says what is special about it."""
    arguments = _arguments(call.arguments)
    fields: dict[str, Any] = {"call_id": call.call_id, "name": inert(call.name[:_NAME_CHARS]), "arguments": arguments}
    # As JSON it stays on one line, and nothing in it can pass for a line of ours.
    line = (
        f"- call_id {quoted(call.call_id)}, tool {quoted(call.name[:_NAME_CHARS])}, "
        f"arguments {inert(json.dumps(arguments, ensure_ascii=False))}"
    )
    if len(call.arguments) > ARGUMENT_CHARS:
        fields["arguments_chars"] = len(call.arguments)
        line += (
            f" [cut: {len(call.arguments)} characters, too long to be shown; "
            "answer with is_error true and ask for smaller pieces]"
        )
    if call.outcome_unknown:
        fields["outcome_unknown"] = True
        line += " [outcome unknown: it may have run already; find out before you run it again]"
    if call.approval_required:
        fields["approval_required"] = True
        line += " [the bridge runs it once a person has approved]"
    if remark:
        fields["remark"] = remark
        line += f" [{remark}]"
    return fields, line


def _arguments(raw: str) -> dict[str, Any] | str:
    """The arguments as an object where they are one that can be sent on; else the text as it came."""
    if len(raw) > ARGUMENT_CHARS:
        return inert(raw[: ARGUMENT_CHARS // 10])
    try:
        value = json.loads(raw)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return inert(raw)
    return value if isinstance(value, dict) else inert(raw)


def next_step(prefix: str, task_id: str, calls: Sequence[PendingCall], approved: str) -> str:
    """What a host's model does about tool calls.

    Args:
        prefix: what the names of the host's tools begin with.
        task_id: the task.
        calls: those it is shown.
        approved: how it learns what a person has decided.
    """
    mine = [call for call in calls if not call.approval_required]
    if not mine:
        return (
            "a person has to approve this, which you cannot do: tell your user. A result of your own, or one with "
            f"is_error true, can replace the run; {approved}."
        )
    results = [{"call_id": inert(call.call_id), "content": "..."} for call in mine]
    approvals = "" if len(mine) == len(calls) else "tell your user about what a person has to approve, "
    return (
        f"{approvals}do what each tool call asks, then call {prefix}submit_tool_results with "
        f'task_id "{task_id}" and results {json.dumps(results, ensure_ascii=False)}.'
    )
