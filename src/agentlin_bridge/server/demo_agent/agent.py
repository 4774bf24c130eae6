"""The demo agent: what it asks for, and what it answers.

Everything in an answer is computed from what the client sent or its tools returned.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from anyio import to_thread

from agentlin_bridge.server.agent import AgentFailure, Conversation, Item, Step, Voice, answer
from agentlin_bridge.server.demo_agent import digest, tables
from agentlin_bridge.server.demo_agent.comparison import compared
from agentlin_bridge.server.demo_agent.material import Material, Message, read_message, returned
from agentlin_bridge.server.demo_agent.tools import ASK_HOST, host_among, reader_among
from agentlin_bridge.task import ToolCallItem, ToolResultItem

BANNER = "demo agent: only digests text, Markdown and CSV; set AGENTLIN_BASE_URL or AGENTLIN_BRIDGE_MODEL"
ANSWER_LIMIT = 8000
"""Characters of an answer."""
FILE_LIMIT = 20
"""Files asked for in one task."""
WANTED_TEXT = "the text sent by the host"


class DemoAgent:
    """Digests text, Markdown and CSV, deterministically, and says so."""

    name = "demo agent"
    description = BANNER

    max_steps = 50

    async def __aenter__(self) -> Self:
        """It needs nothing."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """It holds nothing."""

    async def step(self, conversation: Conversation, voice: Voice) -> Step:
        """Ask for the files the instructions name; then answer from what came."""
        return Step(tuple(await to_thread.run_sync(next_step, conversation, abandon_on_cancel=True)))

    def owns(self, name: str) -> bool:
        """It has no tools of its own."""
        return False

    async def call(self, call: ToolCallItem) -> ToolResultItem:
        """It has no tools of its own."""
        raise AgentFailure(f"The demo agent has no tool {call.name!r}.")


def next_step(conversation: Conversation) -> list[Item]:
    """The agent without its thread: a pure function."""
    message = read_message(conversation.user_content)
    if conversation.rounds:
        came = _came(message, conversation)
        return [answer(_bounded(_findings([*message.attached, *came], _left_out(message))))]
    files = message.files[:FILE_LIMIT]
    if files:
        reader = reader_among(conversation.client_tools)
        if reader is not None:
            return [reader.for_file(path) for path in files]
        missing = [Material(path, problem="could not be read: no tool for it was offered") for path in files]
        needs = "I would have needed a client tool read_file(path), or ask_host(request)."
        return [answer(_bounded(_findings([*message.attached, *missing], needs)))]
    if message.attached:
        return [answer(_bounded(_findings(message.attached, "")))]
    host = host_among(conversation.client_tools)
    if host is not None and message.instructions.strip():
        return [host.for_material(message.instructions)]
    return [answer(_bounded(_needs(conversation)))]


def _came(message: Message, conversation: Conversation) -> list[Material]:
    last = conversation.rounds[-1]
    calls = [item for item in last.items if isinstance(item, ToolCallItem)]
    names = message.files[:FILE_LIMIT] or (WANTED_TEXT,)
    return [
        returned(name, result, by_model=call.name == ASK_HOST)
        for name, call, result in zip(names, calls, last.results, strict=True)
    ]


def _left_out(message: Message) -> str:
    more = len(message.files) - FILE_LIMIT
    return (
        f"Not looked at, as {FILE_LIMIT} files are the limit: {', '.join(message.files[FILE_LIMIT:])}."
        if more > 0
        else ""
    )


def _needs(conversation: Conversation) -> str:
    can_read = reader_among(conversation.client_tools) is not None
    needed = "the name of a file in the instructions, or a text attached to them"
    if not can_read:
        needed += ", and for a named file a client tool read_file(path) or ask_host(request)"
    return f"There is nothing here I can digest. I would have needed {needed}."


def _findings(materials: Sequence[Material], remark: str) -> str:
    """What was found out about every piece of material, a comparison first where there are several."""
    texts: dict[str, digest.Digest] = {}
    sections = []
    problems = []
    for material in materials:
        if material.problem:
            problems.append(f"{material.name} {material.problem}.")
        elif (table := _table(material)) is not None:
            sections.append(f"## {material.name}\n\n{table}")
        else:
            texts[material.name] = digest.digest_of(material.text)
            sections.append(f"## {material.name}\n\n{digest.written(texts[material.name])}")
    if len(texts) > 1:
        sections.insert(0, f"## Comparison\n\n{compared(texts)}")
    return "\n\n".join(filter(None, ["\n".join(problems), *sections, remark]))


def _table(material: Material) -> str | None:
    """Column statistics, if the material is CSV."""
    try:
        if not tables.looks_like_csv(material.name, material.text):
            return None
        return tables.written(tables.table_statistics(material.text, name=material.name))
    except csv.Error as error:
        return f"It cannot be read as CSV: {error}."


def _bounded(findings: str) -> str:
    text = f"{BANNER}\n\n{findings}"
    if len(text) <= ANSWER_LIMIT:
        return text
    note = "\n\n... (cut: the whole answer would be too long)"
    return text[: ANSWER_LIMIT - len(note)] + note
