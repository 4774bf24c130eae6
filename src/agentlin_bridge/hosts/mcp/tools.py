"""The tools: what a model that has never seen Agentlin reads about them, and what they do."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any

import anyio.lowlevel
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field, WithJsonSchema

from agentlin_bridge.delegation.bridge import TaskBridge
from agentlin_bridge.errors import InvalidRequestError
from agentlin_bridge.hosts.arguments import CallResult, OfferedTool
from agentlin_bridge.hosts.content import content_item
from agentlin_bridge.hosts.mcp.attending import Answer, attend, task_asked_about
from agentlin_bridge.hosts.mcp.calling import BridgeTool
from agentlin_bridge.hosts.mcp.offering import offered
from agentlin_bridge.hosts.mcp.results import PATIENCE
from agentlin_bridge.hosts.mcp.serving import Ctx, serving
from agentlin_bridge.remote.backend import Capabilities
from agentlin_bridge.task import Task, TaskStatus

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Attachments = WithJsonSchema(
    {
        "type": "array",
        "items": {"type": "object"},
        "description": 'Content items: {"type": "text", "text"}, {"type": "image", "data", "mimeType"}, '
        '{"type": "image_url", "image_url": {"url"}} or {"type": "file", "file": {"file_url" or "file_data"}}',
    }
)

CREATE = """\
Delegate a subtask to a remote Agentlin agent and wait for it. Returns one of:
- completed: the agent's answer.
- input-required: tool_calls for you. The agent needs a tool of yours, or asks you something with ask_host, or your \
user with ask_user. Do it, then call {prefix}submit_tool_results.
- working: not done yet. Call {prefix}retrieve_task.
A line "Next:" in the result names the call to make."""


async def create_task(
    ctx: Ctx,
    *,
    instructions: Annotated[str, Field(description="The whole subtask; the agent sees nothing else of your context")],
    client_tools: Annotated[
        list[OfferedTool] | None,
        Field(description="Tools of yours that the agent may ask you to run; a configured one by its name alone"),
    ] = None,
    continue_task: Annotated[str, Field(description="task_id of an ended task whose conversation goes on")] = "",
    output_schema: Annotated[
        dict[str, Any] | None, Field(description="JSON Schema; the answer is then JSON that satisfies it")
    ] = None,
    agent: Annotated[str, Field(description="An agent profile from the bridge's configuration")] = "",
    request_id: Annotated[
        str, Field(description="Any id; repeating the call with it gives the same task, not a second one")
    ] = "",
    wait_seconds: Annotated[Seconds, Field(description="Seconds to wait; the task goes on afterwards")] = PATIENCE,
    attachments: Annotated[list[Any] | None, Attachments] = None,
) -> Answer:
    bridge = await serving(ctx).bridge_of_caller()
    if (asked_about := task_asked_about(ctx)) is not None:
        task = await _concerned(ctx, bridge, asked_about)
        return await attend(ctx, bridge, task, wait_seconds)
    tools, metadata = offered(
        client_tools or [],
        serving(ctx).client_tools,
        serving(ctx).config,
        is_possible=bridge.capabilities_of(agent or None).client_tools,
    )
    task = await bridge.create(
        instructions,
        client_tools=tools,
        attachments=[item if isinstance(item, str) else content_item(item) for item in attachments or []],
        agent=agent or None,
        continue_task=continue_task or None,
        output_schema=output_schema,
        request_id=request_id or None,
        metadata=metadata,
    )
    # Nothing is awaited in between: a cancellation finds either no task, or this one.
    serving(ctx).calls.concerns(ctx.request_context, task.id)
    await anyio.lowlevel.checkpoint_if_cancelled()
    return await attend(ctx, bridge, task, wait_seconds)


async def retrieve_task(
    ctx: Ctx,
    task_id: str,
    wait_seconds: Seconds = 0,
    offset: Annotated[int, Field(ge=0, description="Where in a long answer to start")] = 0,
) -> Answer:
    bridge = await serving(ctx).bridge_of_caller()
    return await attend(ctx, bridge, await bridge.retrieve(task_id), wait_seconds, offset=offset)


async def submit_tool_results(
    ctx: Ctx,
    task_id: str,
    results: Annotated[list[CallResult], Field(description="One for each call_id; the rest can follow later")],
    wait_seconds: Seconds = PATIENCE,
) -> Answer:
    given = {result.call_id: result.as_result() for result in results}
    if len(given) < len(results):
        raise InvalidRequestError(
            "A call_id stands in results more than once; nothing was stored.",
            next_step="give one result for each call_id",
        )
    bridge = await serving(ctx).bridge_of_caller()
    task = await _concerned(ctx, bridge, task_id)
    if task_asked_about(ctx) is None:
        task = await bridge.submit(task_id, given)
    return await attend(ctx, bridge, task, wait_seconds)


async def cancel_task(ctx: Ctx, task_id: str) -> CallToolResult:
    bridge = await serving(ctx).bridge_of_caller()
    return serving(ctx).results.canceled(await bridge.cancel(task_id))


async def pause_task(ctx: Ctx, task_id: str) -> CallToolResult:
    bridge = await serving(ctx).bridge_of_caller()
    return serving(ctx).results.task(await bridge.pause(task_id))


async def resume_task(ctx: Ctx, task_id: str) -> CallToolResult:
    bridge = await serving(ctx).bridge_of_caller()
    return serving(ctx).results.task(await bridge.resume(task_id))


async def delete_task(ctx: Ctx, task_id: str) -> CallToolResult:
    bridge = await serving(ctx).bridge_of_caller()
    return serving(ctx).results.deleted(await bridge.delete(task_id))


async def list_tasks(
    ctx: Ctx,
    status: TaskStatus | None = None,
    limit: Annotated[int, Field(ge=1, le=100)] = 20,
) -> CallToolResult:
    bridge = await serving(ctx).bridge_of_caller()
    return serving(ctx).results.listed([task async for task in bridge.list(status=status, limit=limit)])


async def _concerned(ctx: Ctx, bridge: TaskBridge, task_id: str) -> Task:
    """The task a call is about; from now on cancelling the call means the task."""
    task = await bridge.retrieve(task_id)
    serving(ctx).calls.concerns(ctx.request_context, task.id)
    return task


def cancelable(prefix: str) -> Collection[str]:
    """The tools whose cancellation by the host is the task's."""
    return {f"{prefix}{tool.__name__}" for tool in (create_task, submit_tool_results)}


def all_tools(
    notice: str, prefix: str, configured: Collection[str], can: Capabilities, agents: Collection[str] = ()
) -> list[BridgeTool]:
    """The tools, in the order a host lists them.

    Args:
        notice: opens what is said about creating a task.
        can: what the backend can do; tools for what it cannot are left out.
        prefix: what their names begin with.
        configured: client tools that a host may give by name.
        agents: agent profiles that a host may name.
    """
    create = CREATE.format(prefix=prefix)
    if notice:
        create = f"[{notice}]\n{create}"
    if configured:
        create = f"{create}\nConfigured client_tools: {', '.join(configured)}."
    if agents:
        create = f"{create}\nAgent profiles: {', '.join(agents)}."
    reads = ToolAnnotations(read_only_hint=True)
    ends = ToolAnnotations(destructive_hint=True, idempotent_hint=True)
    retrieve = "Look at a task, or wait for it: its status, its answer, or the tool_calls it waits for."
    submit = (
        "Give the results of tool_calls that an input-required task waits for, and wait on. Returns what "
        f"{prefix}create_task does."
    )
    cancel = "Stop a task for good. Says whether the remote run really stopped."
    delete = "End a task and delete it, here and remotely."
    listing = "List delegated tasks, newest first."
    changes = ToolAnnotations(destructive_hint=False, idempotent_hint=True)
    harmless = ToolAnnotations(destructive_hint=False)
    holding = [
        *([BridgeTool.of(pause_task, prefix, "Hold a task until it is resumed.", harmless)] * can.pause),
        *([BridgeTool.of(resume_task, prefix, "Let a paused task go on.", harmless)] * can.resume),
    ]
    return [
        BridgeTool.of(create_task, prefix, create, harmless),
        BridgeTool.of(retrieve_task, prefix, retrieve, reads),
        BridgeTool.of(submit_tool_results, prefix, submit, changes),
        BridgeTool.of(cancel_task, prefix, cancel, ends),
        BridgeTool.of(delete_task, prefix, delete, ends),
        *holding,
        BridgeTool.of(list_tasks, prefix, listing, ToolAnnotations(read_only_hint=True, open_world_hint=False)),
    ]
