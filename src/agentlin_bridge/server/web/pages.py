"""Pages of tasks, as they are answered: bounded in bytes, because the tasks on them are not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from agentlin_bridge.server.protocol.request import ListQuery
from agentlin_bridge.server.protocol.wire import RequestId, task_json
from agentlin_bridge.task import TaskObject


def page_answer(
    request_id: RequestId | None, query: ListQuery, tasks: Sequence[TaskObject], more: bool, limit: int
) -> Response:
    """The answer to a list request.

    Args:
        request_id: of the envelope.
        query: what was asked for.
        tasks: the page, newest first.
        more: whether there are more tasks in the direction of paging.
        limit: the bytes of tasks it may hold. It holds at least one, and those next to the cursor.
    """
    backwards = query.ending_before is not None
    kept: list[bytes] = []
    size = 0
    for task in reversed(tasks) if backwards else tasks:
        encoded = _encoded(task_json(task))
        size += len(encoded)
        if kept and size > limit:
            more = True
            break
        kept.append(encoded)
    if backwards:
        kept.reverse()
    head = _encoded({"jsonrpc": "2.0", "id": request_id, "has_more": more})
    return Response(head[:-1] + b',"result":[' + b",".join(kept) + b"]}", media_type="application/json")


def _encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
