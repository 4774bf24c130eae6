"""Which tools a model is offered in a step, and what becomes of calls to others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentlin_bridge.server.agent import Item, OfferedTool
from agentlin_bridge.server.model_agent.messages import arguments_of
from agentlin_bridge.server.model_agent.overrides import Overrides
from agentlin_bridge.task import ToolCallItem

_NO_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}}
_NAMED = 30

INCOMPLETE = "incomplete"
"""The status of a call that cannot be run."""


@dataclass(frozen=True)
class Offer:
    """The tools of one step, the client's first."""

    tools: tuple[OfferedTool, ...]

    @classmethod
    def of(cls, client: Sequence[OfferedTool], own: Iterable[OfferedTool], overrides: Overrides) -> Offer:
        """What the request allows of the client's tools and the server's."""
        return cls(tuple(tool for tool in (*client, *own) if overrides.allows(tool.name)))

    @property
    def definitions(self) -> list[dict[str, Any]]:
        """The tools as chat models are told them."""
        return [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": {**_NO_PARAMETERS, **tool.parameters},
                },
            }
            for tool in self.tools
        ]

    def checked(self, items: Sequence[Item]) -> tuple[Item, ...]:
        """The items of a step, with what is wrong noted on every call that nobody can run.

        Such a call is `incomplete` and the agent's own to answer, whatever its name: neither the client nor a
        tool server sees it, and the model reads what was wrong.
        """
        known = {tool.name for tool in self.tools}
        return tuple(
            _refused(item, problem)
            if isinstance(item, ToolCallItem) and (problem := self._problem(item, known))
            else item
            for item in items
        )

    def _problem(self, call: ToolCallItem, known: set[str]) -> str:
        if call.name not in known:
            names = [tool.name for tool in self.tools]
            listed = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
            return f"there is no tool {call.name[:100]!r} to use here. Next: use one of: {listed or '(there are none)'}"
        try:
            arguments_of(call)
        except ValueError as error:
            return (
                f"the arguments of {call.name} are not a JSON object: {error}. The tool was not run. "
                "Next: call it again with a complete JSON object"
            )
        return ""


def problem_of(call: ToolCallItem) -> str:
    """Why a call cannot be run; empty for one that can."""
    if call.status != INCOMPLETE:
        return ""
    problem = (call.model_extra or {}).get("problem")
    return problem if isinstance(problem, str) else "the call is incomplete"


def _refused(call: ToolCallItem, problem: str) -> ToolCallItem:
    return call.model_copy(update={"status": INCOMPLETE, "problem": problem})
