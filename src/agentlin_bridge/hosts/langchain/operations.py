"""What the toolkit's tools do, each one operation of `TaskBridge`, and what their models may say."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from agentlin_bridge import TaskBridge
from agentlin_bridge.delegation.client_tools import ClientTool, ToolLike
from agentlin_bridge.errors import BridgeError, InvalidRequestError
from agentlin_bridge.hosts.arguments import CallResult, HostTool
from agentlin_bridge.hosts.langchain.caller import Caller
from agentlin_bridge.hosts.langchain.host_tools import as_offered
from agentlin_bridge.hosts.langchain.results import TaskResults
from agentlin_bridge.hosts.langchain.task_tool import Runtime
from agentlin_bridge.task import Task, TaskStatus

NAMED = "client_tools"
"""The key of a task's metadata that holds the names of the configured client tools it was given."""

Told = tuple[str, Task | list[Task]]
"""What the model reads, and what it is about."""

TaskId = Annotated[str, Field(description="The task's id, as the tools gave it", min_length=1)]
LONGEST = 86_400
"""Seconds one call waits at most."""

_WAIT = "Seconds to wait; the task goes on afterwards"
Patience = Annotated[
    float | None, Field(ge=0, le=LONGEST, description=_WAIT), WithJsonSchema({"type": "number", "minimum": 0})
]
Tools = Annotated[
    list[str | HostTool],
    WithJsonSchema(
        {
            "type": "array",
            "items": {
                "anyOf": [
                    {"type": "string", "description": "The name of a configured one"},
                    {
                        "type": "object",
                        "properties": {
                            "name": {"type": "string"},
                            "description": {"type": "string"},
                            "parameters": {"type": "object", "description": "JSON Schema of its arguments"},
                        },
                        "required": ["name", "description", "parameters"],
                    },
                ]
            },
        }
    ),
]


def _unsaid() -> None:
    """What an argument is that the model leaves out; unlike a plain default, it is in no schema."""


class Arguments(BaseModel):
    """What a tool takes; nothing else, and null stands for what is left out."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        return {name: value for name, value in dict(given).items() if value is not None}


class CreateArguments(Arguments):
    """Arguments of `create`."""

    instructions: str = Field(description="The whole subtask; the agent sees nothing else of your context")
    client_tools: Tools = Field(default_factory=list, description="Tools of yours that the agent may ask you to run")
    continue_task: str = Field(default_factory=str, description="Id of an ended task whose conversation goes on")
    output_schema: dict[str, Any] = Field(
        default_factory=dict, description="JSON Schema; the answer is then JSON that satisfies it"
    )
    agent: str = Field(default_factory=str, description="An agent profile from the bridge's configuration")
    request_id: str = Field(
        default_factory=str, description="Any id; repeating the call with it gives the same task, not a second one"
    )
    wait_seconds: Patience = Field(default_factory=_unsaid)
    runtime: Runtime = None


class RetrieveArguments(Arguments):
    """Arguments of `retrieve`."""

    task_id: TaskId
    wait_seconds: float = Field(default=0, ge=0, le=LONGEST, description=_WAIT)
    offset: int = Field(default=0, ge=0, description="Where in a long answer to start, in characters")
    runtime: Runtime = None


class SubmitArguments(Arguments):
    """Arguments of `submit`."""

    task_id: TaskId
    results: list[CallResult] = Field(description="One for each call_id; the rest can follow later")
    wait_seconds: Patience = Field(default_factory=_unsaid)
    runtime: Runtime = None


class OneTaskArguments(Arguments):
    """Arguments of the operations on one task."""

    task_id: TaskId


class ListArguments(Arguments):
    """Arguments of `list_`."""

    status: Annotated[
        TaskStatus | None, WithJsonSchema({"type": "string", "enum": [status.value for status in TaskStatus]})
    ] = Field(default_factory=_unsaid, description="Only tasks with this status")
    limit: int = Field(default=20, ge=1, le=100)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool.

    Attributes:
        caller: on whose side configured client tools run.
        client_tools: the configured ones.
        patience: seconds to wait, as far as the model does not say.
        results: puts tasks into words.
    """

    caller: Caller
    client_tools: Sequence[Any]
    patience: float
    results: TaskResults

    def configured(self) -> dict[str, ClientTool]:
        """The configured client tools, by the names they are offered by."""
        return {tool.name: tool for tool in as_offered(self.client_tools, self.caller).values()}

    def seconds(self, said: float | None) -> float:
        """How long to wait."""
        return self.patience if said is None else said


async def create(
    bridge: TaskBridge,
    call: Call,
    *,
    instructions: str,
    client_tools: Sequence[str | HostTool],
    continue_task: str,
    output_schema: Mapping[str, Any],
    agent: str,
    request_id: str,
    wait_seconds: float | None,
) -> Told:
    """Create a task and wait for it; a caller that leaves before it knows the id cancels the task."""
    tools, named = _offered(client_tools, call.configured())
    creating = asyncio.ensure_future(
        bridge.create(
            instructions,
            client_tools=tools,
            continue_task=continue_task or None,
            output_schema=output_schema or None,
            agent=agent or None,
            request_id=request_id or None,
            metadata={NAMED: named} if named else None,
        )
    )
    try:
        task = await asyncio.shield(creating)
        task = await _waited(bridge, call, task, call.seconds(wait_seconds))
    except asyncio.CancelledError:
        # What could not be created needs no cancelling.
        with suppress(BridgeError):
            await bridge.cancel((await creating).id)
        raise
    return call.results.task(task), task


async def retrieve(bridge: TaskBridge, call: Call, *, task_id: str, wait_seconds: float, offset: int) -> Told:
    """Look at a task, or wait for it."""
    task = await _waited(bridge, call, await bridge.retrieve(task_id), wait_seconds)
    return call.results.task(task, offset=offset), task


async def submit(
    bridge: TaskBridge, call: Call, *, task_id: str, results: Sequence[CallResult], wait_seconds: float | None
) -> Told:
    """Give results for pending calls and wait; a caller that leaves only ends the waiting."""
    given = {result.call_id: result.as_result() for result in results}
    if len(given) < len(results):
        raise InvalidRequestError(
            "A call_id stands in results more than once; nothing was stored.",
            next_step="give one result for each call_id",
        )
    task = await _waited(bridge, call, await bridge.submit(task_id, given), call.seconds(wait_seconds))
    return call.results.task(task), task


async def cancel(bridge: TaskBridge, call: Call, *, task_id: str) -> Told:
    """Cancel a task."""
    task = await bridge.cancel(task_id)
    return call.results.canceled(task), task


async def delete(bridge: TaskBridge, call: Call, *, task_id: str) -> Told:
    """Delete a task."""
    task = await bridge.delete(task_id)
    return call.results.deleted(task), task


async def list_(bridge: TaskBridge, call: Call, *, status: TaskStatus | None, limit: int) -> Told:
    """List tasks, newest first."""
    tasks = [task async for task in bridge.list(status=status, limit=limit)]
    return call.results.listed(tasks), tasks


async def pause(bridge: TaskBridge, call: Call, *, task_id: str) -> Told:
    """Pause a task."""
    task = await bridge.pause(task_id)
    return call.results.task(task), task


async def resume(bridge: TaskBridge, call: Call, *, task_id: str) -> Told:
    """Let a paused task go on."""
    task = await bridge.resume(task_id)
    return call.results.task(task), task


def _offered(given: Sequence[str | HostTool], configured: Mapping[str, ClientTool]) -> tuple[list[ToolLike], list[str]]:
    """The client tools of a new task, and the names of those among them that are configured."""
    tools: list[ToolLike] = []
    named: list[str] = []
    for tool in given:
        name = tool if isinstance(tool, str) else tool.name
        if name in configured and (isinstance(tool, str) or tool.model_fields_set <= {"name"}):
            tools.append(configured[name])
            named.append(name)
        elif isinstance(tool, str):
            raise InvalidRequestError(
                f"There is no configured client tool {name[:64]!r} ({', '.join(configured) or 'none are'} configured).",
                next_step="give its name, description and parameters",
            )
        else:
            tools.append(tool.model_dump())
    return tools, named


async def _waited(bridge: TaskBridge, call: Call, task: Task, seconds: float) -> Task:
    """The task when it is over, needs somebody, or time is up; its configured tools run on the caller's side."""
    call.caller.task_id = task.id
    named = task.metadata.get(NAMED)
    tools = [tool for name, tool in call.configured().items() if name in named] if named else []
    if task.status.is_terminal or not (tools or seconds):
        return task
    return await bridge.wait(task.id, timeout=seconds, client_tools=tools)
