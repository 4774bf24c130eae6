"""The demo agent through the server: what it asks for, what it answers, and that it invents nothing."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from .agents import ASK_HOST, READ_FILE, result
from .conftest import Server

BANNER = "demo agent: only digests text, Markdown and CSV; set AGENTLIN_BASE_URL or AGENTLIN_BRIDGE_MODEL"


def offered(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def needs(*required: str, **kinds: str) -> dict[str, Any]:
    return {"properties": {name: {"type": kind} for name, kind in kinds.items()}, "required": list(required)}


def text_of(task: dict[str, Any]) -> str:
    """The answer of a completed task, which starts as every answer does."""
    assert task["status"] == "completed"
    (message,) = task["output"]
    first, _, rest = message["content"].partition("\n")
    assert first == BANNER
    assert len(message["content"]) <= 8000
    return str(rest.strip())


def calls_of(task: dict[str, Any]) -> list[tuple[str, dict[str, str]]]:
    assert task["status"] == "input-required"
    return [(call["name"], json.loads(call["arguments"])) for call in task["output"]]


def digest(demo: Server, instructions: Any, *contents: str, tool: dict[str, Any] = READ_FILE) -> str:
    """The answer to instructions when the client tool returns these contents."""
    asked = demo.make(instructions, session_id="s", client_tools=[tool])
    results = [result(*pair) for pair in zip(asked["input_required_call_ids"], contents, strict=True)]
    return text_of(demo.make([], session_id="s", thought_messages=results))


def test_it_reads_every_file_named_at_once(demo: Server) -> None:
    task = demo.make("Compare README.md with docs/guide.md", client_tools=[ASK_HOST, READ_FILE])
    assert calls_of(task) == [("read_file", {"path": "README.md"}), ("read_file", {"path": "docs/guide.md"})]


def test_without_a_reading_tool_it_asks_the_host(demo: Server) -> None:
    task = demo.make("Compare README.md with `my notes.txt`", client_tools=[ASK_HOST])
    wanted = "Send me the complete text of the file {}, and nothing else."
    assert calls_of(task) == [
        ("ask_host", {"request": wanted.format("README.md")}),
        ("ask_host", {"request": wanted.format("my notes.txt")}),
    ]


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        (offered("fs_readText", needs("file", file="string", limit="integer")), {"file": "a.md"}),
        (offered("read_file", {}), {"path": "a.md"}),
        (offered("read_file", needs(path="string", offset="integer")), {"path": "a.md"}),
        (offered("read_file", needs(name="string")), None),
        (offered("read_lines", needs("path", "count", path="string", count="integer")), None),
        (offered("read_page", needs("number", number="integer")), None),
        (offered("read_page", needs("number")), None),
        (offered("mark_as_read", needs("id", id="string")), None),
        (offered("spread", needs("path", path="string")), None),
    ],
)
def test_it_takes_a_tool_only_if_it_reads_one_named_thing(
    demo: Server, tool: dict[str, Any], arguments: dict[str, str] | None
) -> None:
    task = demo.make("Digest a.md", client_tools=[tool, ASK_HOST])
    name, given = calls_of(task)[0]
    if arguments is None:
        assert name == "ask_host"
    else:
        assert (name, given) == (tool["function"]["name"], arguments)


def test_without_a_tool_it_says_what_it_would_have_needed(demo: Server) -> None:
    text = text_of(demo.make("Digest README.md"))
    assert "README.md could not be read: no tool for it was offered." in text
    assert "read_file(path)" in text
    assert "Counts" not in text
    text = text_of(demo.make("What is the capital of France?"))
    assert "nothing here I can digest" in text
    assert "read_file(path) or ask_host(request)" in text
    assert "Paris" not in text
    text = text_of(demo.make("What is the capital of France?", client_tools=[READ_FILE]))
    assert "the name of a file" in text
    assert "read_file" not in text
    assert "nothing here" in text_of(demo.make([], client_tools=[ASK_HOST]))


def test_a_task_without_files_asks_the_host_for_its_text(demo: Server) -> None:
    task = demo.make("Summarise our meeting", session_id="s", client_tools=[ASK_HOST])
    ((name, arguments),) = calls_of(task)
    assert name == "ask_host"
    assert '"Summarise our meeting"' in arguments["request"]
    results = [result(task["input_required_call_ids"][0], "We met. We talked about bridges.")]
    text = text_of(demo.make([], session_id="s", thought_messages=results))
    assert "## the text sent by the host" in text
    assert "6 words" in text


MARKDOWN = """# Bridge guide

Bridges join banks. See [the plan](https://example.com/plan).

## Building

A bridge needs a deck, and a deck needs cables. Cables hold the deck.

```python
# not a heading
[no](link)
```

## Care ##

Paint it.
"""


def test_a_markdown_digest(demo: Server) -> None:
    assert digest(demo, "Digest guide.md", MARKDOWN) == (
        "## guide.md\n\n"
        "Counts: 16 lines, 35 words, 227 characters, 3 sections, 1 link, 1 code block.\n\n"
        "Outline:\n- Bridge guide\n  - Building\n  - Care\n\n"
        "Most telling terms: deck (3), bridge (2), cables (2), building (1), bridges (1), banks (1), guide (1), "
        "paint (1).\n\n"
        'Longest section: "Building" (20 words, from line 5).'
    )


def test_the_same_input_gets_the_same_answer(demo: Server) -> None:
    assert digest(demo, "Compare a.md and b.md", MARKDOWN, "x\n") == digest(
        demo, "Compare a.md and b.md", MARKDOWN, "x\n"
    )


def test_plain_text_has_a_longest_paragraph(demo: Server) -> None:
    text = digest(demo, "Digest notes.txt", "One short.\n\nThis one here\nis longer.\n")
    assert 'Longest paragraph: "This one here" (5 words, from line 3).' in text
    assert "Outline" not in text


def test_a_table_gets_column_statistics(demo: Server) -> None:
    text = digest(demo, "Look at data/sales.csv", "city,sold\nParis,3\nRome,4.5\nParis,\n")
    assert text == (
        "## data/sales.csv\n\nCSV: 3 data rows, 2 columns.\n\n"
        "| column | count | distinct | min | max | mean |\n|---|---|---|---|---|---|\n"
        "| city | 3 | 2 | - | - | - |\n| sold | 2 | 2 | 3 | 4.5 | 3.75 |"
    )


def test_several_files_are_compared(demo: Server) -> None:
    first = "# Guide\n\n## Setup\n\ninstall the walnut walnut pump\n"
    second = "# Guide\n\n## Usage\n\nrun the cedar cedar pump daily\n"
    text = digest(demo, "Compare a.md, b.md and t.csv", first, second, "n\n1\n2\n")
    assert text.startswith("## Comparison\n\n| file | lines | words |")
    assert "| a.md | 5 | 7 |" in text
    assert "Longest: b.md (8 words); shortest: a.md (7 words)." in text
    assert "Headings in all: Guide." in text
    assert "Terms in all: guide, pump." in text
    assert "- a.md: walnut," in text
    assert "- b.md: cedar," in text
    assert "## t.csv\n\nCSV: 2 data rows, 1 column." in text
    assert text.index("## a.md") < text.index("## b.md") < text.index("## t.csv")


def test_what_could_not_be_read_is_said_and_the_rest_digested(demo: Server) -> None:
    text = digest(demo, "Compare a.md, b.md, c.md, d.bin.txt", "ERROR: no such\nfile", "b b\n", "", "\x00\x01\x02")
    assert text.startswith("a.md could not be read: no such file.\nc.md is empty.\nd.bin.txt is not text.")
    assert "## b.md\n\nCounts: 1 line, 2 words" in text
    assert "Comparison" not in text
    assert digest(demo, "Digest a.md", "ERROR") == "a.md could not be read: no reason was given."
    assert digest(demo, "Digest a.md", "(no output)") == "a.md is empty."


def test_a_result_without_text_is_no_text(demo: Server) -> None:
    asked = demo.make("Look at a.png", session_id="s", client_tools=[READ_FILE])
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    answer = {**result(asked["input_required_call_ids"][0], ""), "message_content": [image]}
    text = text_of(demo.make([], session_id="s", thought_messages=[answer]))
    assert text == "a.png is of type 'image_url', not text."


def test_a_host_may_fence_what_it_sends(demo: Server) -> None:
    fenced = digest(demo, "Digest a.csv", "```csv\nn\n1\n2\n```", tool=ASK_HOST)
    assert "CSV: 2 data rows, 1 column." in fenced


def data_uri(text: bytes, kind: str = "text/markdown;base64") -> str:
    return f"data:{kind},{base64.b64encode(text).decode()}"


def test_attachments_are_digested_without_asking(demo: Server) -> None:
    content = [
        {"type": "text", "text": "Digest notes.md and the others"},
        {"type": "file", "file": {"filename": "notes.md", "file_data": data_uri("# Näh\n".encode())}},
        {"type": "file", "file": {"filename": "t.csv", "file_data": "data:text/csv,n%0A1%0A"}},
        {"type": "text", "text": "a second text"},
        {"type": "file", "file": {"filename": "far.md", "file_url": "https://example.com/far.md"}},
        {"type": "file", "file": {"filename": "odd.md", "file_data": "data:text/plain;base64,&&&"}},
        {"type": "file", "file": {"filename": "b.zip", "file_data": data_uri(b"PK\x00\x01")}},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
    ]
    text = text_of(demo.make(content, client_tools=[READ_FILE]))
    assert "far.md was attached by its URL, and I fetch nothing." in text
    assert "odd.md was attached without readable content." in text
    assert "b.zip is not text." in text
    assert "attachment 7 is of type 'input_audio', not text." in text
    assert "Outline:\n- Näh" in text
    assert "CSV: 1 data row, 1 column." in text
    assert "## attachment 3\n\nCounts: 1 line, 3 words" in text


def test_attached_and_named_files_are_compared(demo: Server) -> None:
    content = [
        {"type": "text", "text": "Compare a.md with the attached text"},
        {"type": "text", "text": "one two three"},
    ]
    text = digest(demo, content, "four five")
    assert "Longest: attachment 1 (3 words); shortest: a.md (2 words)." in text


PROSE = "The old bridge.md was here. " * 4


@pytest.mark.parametrize(
    ("instructions", "digested", "asked"),
    [
        (f"Digest this:\n\n{PROSE}", True, []),
        (f"Digest this:\n{PROSE}", True, []),
        (f"Please digest what follows\n\n{PROSE * 20}", True, []),
        ("Compare these:\n\n- a.md\n- b.md", False, ["a.md", "b.md"]),
        ("Please digest\n\nthe file a.md", False, ["a.md"]),
        ("Digest a.md.\n\nAnd b.md too.", False, ["a.md", "b.md"]),
        (f"Digest a.md.\n\n{PROSE * 20}", False, ["a.md"]),
    ],
)
def test_text_after_the_instructions_is_told_from_instructions(
    demo: Server, instructions: str, digested: bool, asked: list[str]
) -> None:
    task = demo.make(instructions, client_tools=[READ_FILE])
    if digested:
        assert "## the text after the instructions\n\nCounts:" in text_of(task)
    else:
        assert [arguments["path"] for _, arguments in calls_of(task)] == asked


def test_answers_are_bounded(demo: Server) -> None:
    headings = "".join(f"# Heading number {number} {'x' * 300}\n" for number in range(60))
    assert "... and 35 more" in digest(demo, "Digest a.md", headings)
    names = [f"f{number}.md" for number in range(25)]
    text = digest(demo, f"Compare {' '.join(names)}", *[f"{headings} {name}" for name in names[:20]])
    assert text.endswith("... (cut: the whole answer would be too long)")
    short = digest(demo, f"Compare {' '.join(names)}", *["ERROR: x"] * 20)
    assert "Not looked at, as 20 files are the limit: f20.md, f21.md, f22.md, f23.md, f24.md." in short


def test_a_table_that_cannot_be_read_is_said(demo: Server) -> None:
    huge = f"a,b\n1,{'x' * 200_000}\n"
    assert "It cannot be read as CSV: field larger than field limit" in digest(demo, "Look at t.csv", huge)
