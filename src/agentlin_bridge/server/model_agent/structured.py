"""Answers that must fit a JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import anyio
import anyio.to_process

from agentlin_bridge.json_schema import misfit

_PROBLEM = 500
PATTERN_TIMEOUT = 10.0
"""Seconds that checking an answer by a schema with patterns may take."""


@dataclass(frozen=True)
class AnswerSchema:
    """What the final answer must look like."""

    schema: Mapping[str, Any]

    @property
    def instruction(self) -> str:
        """What the model is told about it."""
        written = json.dumps(self.schema, ensure_ascii=False)
        return (
            "Your final answer must be one JSON value and nothing else: no explanation, no code fence. "
            f"It must be valid by this JSON Schema:\n{written}"
        )

    async def canonical(self, text: str) -> str:
        """The JSON value a text holds, written plainly.

        Raises:
            Misfit: it holds none, or one that is not valid by the schema.
        """
        try:
            value = json.loads(_without_fence(text), parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise Misfit(f"it is not JSON ({error})") from None
        if problem := await self._misfit(value):
            raise Misfit(problem if len(problem) <= _PROBLEM else problem[:_PROBLEM] + "...")
        return json.dumps(value, ensure_ascii=False)

    async def _misfit(self, value: object) -> str:
        if '"pattern' not in json.dumps(self.schema):
            return misfit(self.schema, value)
        # Matching can take for ever, and would hold up everybody: in a process of its own it can be ended.
        with anyio.move_on_after(PATTERN_TIMEOUT):
            return await anyio.to_process.run_sync(misfit, dict(self.schema), value, cancellable=True)
        return "matching its patterns takes too long; write them in another way"


class Misfit(Exception):
    """An answer does not fit its schema; says why."""


def _without_fence(text: str) -> str:
    """Models fence JSON even when told not to."""
    stripped = text.strip()
    if stripped.startswith("```") and stripped.endswith("```") and "\n" in stripped:
        return stripped.partition("\n")[2].removesuffix("```")
    return stripped


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")
