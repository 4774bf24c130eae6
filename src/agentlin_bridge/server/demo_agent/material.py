"""The texts a task is about: attached to its message, or returned by client tools."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from pydantic import BaseModel

from agentlin_bridge.server.demo_agent.mentions import mentioned_files
from agentlin_bridge.task import FileContentItem, TextContentItem, ToolResultItem

SHORT = 1500
"""Characters up to which a whole message counts as instructions."""
ENOUGH_WORDS = 12
"""Words that make what follows the instructions worth a digest."""
LIST_LINES = 200
"""Lines looked at to tell a list of files from a text."""
LIST_WORDS = 6
"""Words in a line that lists a file, at most."""
REASON_LIMIT = 300

_DATA_URI = re.compile(r"data:([^,;]*)((?:;[^,;]*)*),(.*)", re.DOTALL)
_FENCED = re.compile(r"\s*```[\w.-]*\n(.*?)\n?```\s*", re.DOTALL)


@dataclass(frozen=True)
class Material:
    """One text by name; or, where there is none, the problem with it."""

    name: str
    text: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Message:
    """A user message taken apart."""

    instructions: str
    files: tuple[str, ...]
    attached: tuple[Material, ...]


def read_message(content: Sequence[BaseModel]) -> Message:
    """Tell instructions from what they are about.

    The first text holds the instructions, further texts and files are material. A first text that goes on
    after its first paragraph and names no file there carries its material in it.
    """
    first = next((item for item in content if isinstance(item, TextContentItem)), None)
    instructions, pasted = _split(first.text) if first else ("", "")
    attached = [Material("the text after the instructions", pasted)] if pasted else []
    others = [item for item in content if item is not first]
    for number, item in enumerate(others, start=1):
        attached.append(_attachment(item, number))
    has = {_base(material.name) for material in attached}
    files = [name for name in mentioned_files(instructions) if _base(name) not in has]
    return Message(instructions, tuple(files), tuple(attached))


def _base(name: str) -> str:
    return re.split(r"[\\/]", name)[-1].casefold()


def _split(text: str) -> tuple[str, str]:
    head, _, rest = text.strip().partition("\n\n")
    first_line, _, following = head.partition("\n")
    if first_line.rstrip().endswith(":") and following:
        head, rest = first_line, text.strip()[len(first_line) :]
    rest = rest.strip("\n")
    if mentioned_files(head):
        return (text if len(text) <= SHORT else head), ""
    lines = [line for line in rest.split("\n") if line.strip()][:LIST_LINES]
    listed = sum(len(line.split()) <= LIST_WORDS and bool(mentioned_files(line)) for line in lines)
    introduced = head.rstrip().endswith(":")
    if listed * 2 >= len(lines) or (not introduced and len(text) <= SHORT and mentioned_files(rest)):
        return text, ""
    return (head, rest) if len(rest.split()) >= ENOUGH_WORDS else (text, "")


def _attachment(item: BaseModel, number: int) -> Material:
    name = f"attachment {number}"
    if isinstance(item, TextContentItem):
        return checked(Material(name, item.text))
    if not isinstance(item, FileContentItem):
        return Material(name, problem=f"is of type {getattr(item, 'type', '')!r}, not text")
    name = item.file.filename or name
    uri = item.file.file_data or item.file.file_url or ""
    decoded = _decoded(uri)
    if decoded is None:
        where = "by its URL, and I fetch nothing" if item.file.file_url else "without readable content"
        return Material(name, problem=f"was attached {where}")
    return checked(Material(name, decoded))


def _decoded(uri: str) -> str | None:
    match = _DATA_URI.fullmatch(uri)
    if match is None:
        return None
    try:
        raw = unquote_to_bytes(match[3])
        if ";base64" in match[2].lower():
            raw = base64.b64decode(raw, validate=True)
    except (ValueError, binascii.Error):
        return None
    return raw.decode("utf-8", errors="replace")


def returned(name: str, result: ToolResultItem, *, by_model: bool) -> Material:
    """What a tool returned for a file.

    Args:
        name: of the file.
        result: of the call.
        by_model: a model wrote it, which may have put all of it in a code fence.
    """
    text = result.text
    others = [item for item in result.message_content if not isinstance(item, TextContentItem)]
    if not text and others:
        found = _attachment(others[0], 1)
        return Material(name, found.text, found.problem)
    if text.startswith("ERROR"):
        reason = " ".join(text.removeprefix("ERROR").lstrip(": ").split())
        return Material(name, problem=f"could not be read: {reason[:REASON_LIMIT] or 'no reason was given'}")
    if by_model and (fenced := _FENCED.fullmatch(text)):
        text = fenced[1]
    return checked(Material(name, text))


def checked(material: Material) -> Material:
    """The material, or what is wrong with it: it is empty, or no text."""
    text = material.text.strip()
    if not text or text == "(no output)":
        return Material(material.name, problem="is empty")
    strange = sum(not (character.isprintable() or character in "\t\n\r\f\ufeff") for character in text)
    strange += text.count("\ufffd")
    if "\x00" in text or strange * 20 > len(text):
        return Material(material.name, problem="is not text")
    return material
