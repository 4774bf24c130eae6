"""Event streams for the tests: the recorded ones, and made ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WIRE = Path(__file__).parents[1] / "wire" / "streams"
MAIN, SUB = "task_main", "call_sub"


@dataclass(frozen=True)
class Recording:
    """A recorded stream."""

    name: str
    envelopes: list[dict[str, Any]]
    raw: list[str]

    @property
    def stream(self) -> bytes:
        return b"".join(frame.encode() + b"\r\n\r\n" for frame in self.raw)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [envelope["result"] for envelope in self.envelopes if "result" in envelope]

    @property
    def main_id(self) -> str:
        return str(self.events[0]["task_id"]) if self.events else ""


def _load(path: Path) -> Recording:
    frames = json.loads(path.read_text(encoding="utf-8"))["response"]["frames"]
    return Recording(path.stem, [frame["json"] for frame in frames], [frame["raw"] for frame in frames])


RECORDINGS = {path.stem: _load(path) for path in sorted(WIRE.glob("*.json"))}


def event(kind: str, task_id: str = MAIN, **fields: Any) -> dict[str, Any]:
    """An event as JSON; those with a task object get one."""
    if kind in {"created", "completed", "failed", "input_required", "canceled", "expired", "paused"}:
        fields.setdefault("task", {"id": task_id, "status": kind.replace("_", "-")})
    return {"type": f"task.{kind}", "task_id": task_id, "sequence_number": 0, **fields}


def delta(text: str, task_id: str = MAIN) -> dict[str, Any]:
    """A text delta as JSON."""
    return event("text.delta", task_id, item_id="msg_1", delta=text)


def frame(result: Any = None, *, end: str = "\r\n", **envelope: Any) -> bytes:
    """An envelope on the wire."""
    body = {"jsonrpc": "2.0", "id": "req_1", **({} if result is None else {"result": result}), **envelope}
    return f"data: {json.dumps(body, ensure_ascii=False)}{end}{end}".encode()
