"""The task of a LangGraph graph that makes a call: its answers so far, and its interruption.

LangGraph's public part of this is `interrupt`. How many answers there are, and the plain answer it keeps, can
only be seen in its configuration; where that looks otherwise, the safe thing is done.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentlin_bridge.hosts.langchain.caller import Caller, is_graph_control

logger = logging.getLogger(__name__)

_SCRATCHPAD = "__pregel_scratchpad"
_CHECKPOINTER = "__pregel_checkpointer"
_RESUME = "__resume__"
_NO_TASK = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class Given:
    """An answer: its place among the task's answers, and whether it named no interrupt."""

    number: int
    is_plain: bool
    value: object


class GraphTask:
    """One run of a graph's task.

    Args:
        caller: in whose context it is interrupted.
    """

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._configurable: Mapping[str, Any] = caller.config.get("configurable") or {}

    @property
    def can_forget(self) -> bool:
        """Whether a plain answer can be kept from being given twice."""
        root = self._configurable.get("checkpoint_map")
        return isinstance(root, Mapping) and "" in root and hasattr(self._configurable.get(_CHECKPOINTER), "put_writes")

    def count_of_answers(self) -> int:
        """How many answers the task has been given."""
        return len(self._answers())

    def next_answer(self) -> Given | None:
        """The next answer that nobody has taken in this run; None if there is none."""
        before = len(self._answers())
        try:
            value = self._caller.call(_interrupt, {})
        except Exception as error:
            # Nothing was said yet: interrupting is for when it is known what to ask.
            if not is_graph_control(error):
                raise
            return None
        answers = self._answers()
        is_plain = len(answers) > before
        # An earlier one is found again by what it is; two that are the same may stand for each other.
        number = before if is_plain else next((at for at, one in enumerate(answers) if one is value), before)
        return Given(number, is_plain, value)

    def interrupt(self, request: Mapping[str, object]) -> None:
        """Interrupt the graph.

        Raises:
            GraphInterrupt: always, once all answers are taken.
        """
        self._caller.call(_interrupt, request)

    async def forget_plain_answer(self) -> None:
        """Overwrite the plain answer that LangGraph keeps: a run without one would give it to the next question."""
        if not self.can_forget:
            return
        saver = self._configurable[_CHECKPOINTER]
        root = {
            "configurable": {
                "thread_id": self._configurable["thread_id"],
                "checkpoint_ns": "",
                "checkpoint_id": self._configurable["checkpoint_map"][""],
            }
        }
        if self._caller.is_sync:
            await self._caller.run_in_thread(saver.put_writes, root, [(_RESUME, None)], _NO_TASK)
        else:
            await self._caller.run(saver.aput_writes, root, [(_RESUME, None)], _NO_TASK)

    def _answers(self) -> list[object]:
        return list(getattr(self._configurable.get(_SCRATCHPAD), "resume", ()))


def _interrupt(request: Mapping[str, object]) -> object:
    # There is a graph, so there is LangGraph.
    from langgraph.types import interrupt  # noqa: PLC0415

    return interrupt(request)
