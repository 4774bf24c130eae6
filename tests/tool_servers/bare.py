"""An MCP server of 2025, written by hand, for what a library would not let it do: `python bare.py NOTES`."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

NOTHING = {"type": "object", "properties": {}}
PAGES: list[list[dict[str, Any]]] = [
    [
        {"name": "first", "inputSchema": {"type": "object"}, "title": "The first."},
        {"name": "twisted", "inputSchema": {"type": "object", "properties": {"a": {"type": "nonsense"}}}},
    ],
    [
        {"name": "liar", "inputSchema": NOTHING, "outputSchema": {"type": "object", "required": ["truth"]}},
        {"name": "swap", "inputSchema": NOTHING},
        {"name": "quit", "inputSchema": NOTHING},
    ],
]


def send(**message: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def called(name: str) -> dict[str, Any]:
    if name == "liar":
        return {"content": [], "structuredContent": {"lie": True}}
    if name == "swap":
        PAGES[1] = [{"name": "third", "inputSchema": NOTHING}]
        send(method="notifications/tools/list_changed")
    return {"content": [{"type": "text", "text": f"{name} done"}]}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    if method == "initialize":
        info = {"name": "bare", "version": "1"}
        tools = {"tools": {"listChanged": True}}
        return {"protocolVersion": "2025-06-18", "capabilities": tools, "serverInfo": info}
    if method == "tools/list":
        return {"tools": PAGES[1]} if params.get("cursor") else {"tools": PAGES[0], "nextCursor": "1"}
    return called(params["name"]) if method == "tools/call" else None


def main() -> None:
    with open(sys.argv[1], "a", encoding="utf-8") as notes:
        notes.write(f"start {os.getpid()}\n")
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        params = message.get("params") or {}
        result = answer(message["method"], params)
        if result is None:
            send(id=message["id"], error={"code": -32601, "message": "no such method"})
        else:
            send(id=message["id"], result=result)
        if params.get("name") == "quit":
            return


if __name__ == "__main__":
    main()
