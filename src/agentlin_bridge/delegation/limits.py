"""Bounds on time, size and concurrency. Every one can be set in the configuration file under `[limits]`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """Bounds of one bridge.

    Attributes:
        task_deadline: seconds from creation after which a task expires.
        round_deadline: seconds one round may take before its task expires.
        settle: seconds a lost request is looked up before it counts as never arrived.
        handler_timeout: seconds a client tool may take.
        result_chars: characters of a client tool's result that are sent to the remote agent. A handler's
            longer result is cut and says so; a submitted one is refused.
        concurrent_handlers: client tools running at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task_deadline: float = Field(default=24 * 3600, gt=0)
    round_deadline: float = Field(default=3600, gt=0)
    settle: float = Field(default=10, ge=0)
    handler_timeout: float = Field(default=300, gt=0)
    result_chars: int = Field(default=1_000_000, gt=0)
    concurrent_handlers: int = Field(default=16, gt=0)
