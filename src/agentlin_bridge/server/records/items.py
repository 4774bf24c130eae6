"""What a step produced, with the ids and repetitions clients expect."""

from __future__ import annotations

from collections.abc import Sequence, Set
from hashlib import sha256
from typing import Any

from pydantic import TypeAdapter

from agentlin_bridge.server.agent import Item
from agentlin_bridge.task import MessageItem, OutputItem, ReasoningItem, ToolCallItem, ToolResultItem

_items = TypeAdapter(list[OutputItem])


def item_id(kind: str, task_id: str, step: int, index: int = 0) -> str:
    """The id of the message (`msg`), reasoning (`rs`), call (`call`) or result (`res`) so-and-so of a step.

    It follows from the place alone: a step that is run again after a crash says the same under the same ids,
    and a listener knows the id of a message before it is complete.
    """
    return f"{kind}_{sha256(f'{task_id}:{step}:{kind}:{index}'.encode()).hexdigest()[:32]}"


def named(task_id: str, step: int, items: Sequence[Item], taken: Set[str]) -> list[Item]:
    """A step's items with ids; `taken` are the call ids that cannot be used again."""
    taken = set(taken)
    counts = {"msg": 0, "rs": 0, "call": 0, "res": 0}
    done: list[Item] = []
    for item in items:
        changes: dict[str, Any] = {"status": getattr(item, "status", None) or "completed"}
        kind = _KINDS.get(type(item))
        if kind is not None:
            own_id = item_id(kind, task_id, step, counts[kind])
            counts[kind] += 1
            changes["id"] = own_id
            if isinstance(item, ToolCallItem):
                changes["call_id"] = item.call_id if item.call_id and item.call_id not in taken else own_id
                taken.add(changes["call_id"])
            elif isinstance(item, MessageItem):
                changes["content"] = item.text
        done.append(type(item).model_validate({**item.model_dump(), **changes}))
    return done


_KINDS: dict[type, str] = {MessageItem: "msg", ReasoningItem: "rs", ToolCallItem: "call", ToolResultItem: "res"}


def dumped(items: Sequence[Item]) -> list[dict[str, Any]]:
    """Items as they are stored and sent."""
    return [item.model_dump(mode="json", exclude_none=True) for item in items]


def loaded(items: Sequence[dict[str, Any]]) -> list[Item]:
    """Items from how they are stored."""
    return list(_items.validate_python(items))
