"""The six tools: what a model that has never seen Agentlin reads about them, and what they do."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import Field, WithJsonSchema

from agentlin_bridge.errors import InvalidRequestError
from agentlin_bridge.hosts.mcp.arguments import CallResult, HostTool
from agentlin_bridge.hosts.mcp.calling import BridgeTool
from agentlin_bridge.hosts.mcp.lazy_bridge import LazyBridge
from agentlin_bridge.hosts.mcp.results import PATIENCE, canceled_result, deleted_result, list_result, task_result
from agentlin_bridge.hosts.mcp.waiting import waited
from agentlin_bridge.task import TaskStatus

ASK_HOST: dict[str, Any] = {
    "name": "ask_host",
    "description": "Ask the agent that delegated this task to do something only it can do, such as reading one of its "
    "files or asking its user. It answers in text.",
    "parameters": {
        "type": "object",
        "properties": {"request": {"type": "string", "description": "What it shall do, in one or more sentences"}},
        "required": ["request"],
    },
}
"""Offered with every task, so that a host never has to write a schema."""

Ctx = Context[LazyBridge]
TaskId = Annotated[str, Field(description="As in the result of agentlin_create_task")]
Wait = Annotated[float, Field(ge=0, allow_inf_nan=False, description="Seconds to wait; the task goes on afterwards")]
Attachments = WithJsonSchema(
    {
        "type": "array",
        "items": {"type": "object"},
        "description": 'Content items: {"type": "text", "text": "..."} or '
        '{"type": "image_url", "image_url": {"url": "..."}}',
    }
)

CREATE = """\
Delegate a subtask to a remote Agentlin agent and wait for it. Returns one of:
- completed: the agent's answer.
- input-required: tool_calls for you. The agent needs a tool of yours, or asks you for something with ask_host \
(always offered). Do it, then call agentlin_submit_tool_results.
- working: not done yet. Call agentlin_retrieve_task.
A line "Next:" in the result names the call to make."""


async def create_task(
    ctx: Ctx,
    *,
    instructions: Annotated[str, Field(description="The whole subtask; the agent sees nothing else of your context")],
    client_tools: Annotated[
        list[HostTool] | None, Field(description="Tools of yours that the agent may ask you to run")
    ] = None,
    continue_task: Annotated[str, Field(description="task_id of an ended task whose conversation goes on")] = "",
    output_schema: Annotated[
        dict[str, Any] | None, Field(description="JSON Schema; the answer is then JSON that satisfies it")
    ] = None,
    agent: Annotated[str, Field(description="An agent profile from the bridge's configuration")] = "",
    request_id: Annotated[
        str, Field(description="Any id; repeating the call with it gives the same task, not a second one")
    ] = "",
    wait_seconds: Wait = PATIENCE,
    attachments: Annotated[list[Any] | None, Attachments] = None,
) -> CallToolResult:
    bridge = await ctx.request_context.lifespan_context.get()
    tools = [tool.model_dump() for tool in client_tools or []]
    if bridge.capabilities.client_tools and all(tool["name"] != ASK_HOST["name"] for tool in tools):
        tools.append(ASK_HOST)
    task = await bridge.create(
        instructions,
        client_tools=tools,
        attachments=attachments or [],
        agent=agent or None,
        continue_task=continue_task or None,
        output_schema=output_schema,
        request_id=request_id or None,
    )
    return task_result(await waited(ctx, bridge, task, wait_seconds))


async def retrieve_task(
    ctx: Ctx,
    task_id: TaskId,
    wait_seconds: Wait = 0,
    offset: Annotated[int, Field(ge=0, description="Where in a long answer to start, in characters")] = 0,
) -> CallToolResult:
    bridge = await ctx.request_context.lifespan_context.get()
    task = await bridge.retrieve(task_id)
    return task_result(await waited(ctx, bridge, task, wait_seconds), offset=offset)


async def submit_tool_results(
    ctx: Ctx,
    task_id: TaskId,
    results: Annotated[list[CallResult], Field(description="One for each call_id; the rest can follow later")],
    wait_seconds: Wait = PATIENCE,
) -> CallToolResult:
    given = {result.call_id: result.as_result() for result in results}
    if len(given) < len(results):
        raise InvalidRequestError(
            "A call_id stands in results more than once; nothing was stored.",
            next_step="give one result for each call_id",
        )
    bridge = await ctx.request_context.lifespan_context.get()
    task = await bridge.submit(task_id, given)
    return task_result(await waited(ctx, bridge, task, wait_seconds))


async def cancel_task(ctx: Ctx, task_id: TaskId) -> CallToolResult:
    bridge = await ctx.request_context.lifespan_context.get()
    return canceled_result(await bridge.cancel(task_id))


async def delete_task(ctx: Ctx, task_id: TaskId) -> CallToolResult:
    bridge = await ctx.request_context.lifespan_context.get()
    return deleted_result(await bridge.delete(task_id))


async def list_tasks(
    ctx: Ctx,
    status: TaskStatus | None = None,
    limit: Annotated[int, Field(ge=1, le=100)] = 20,
) -> CallToolResult:
    bridge = await ctx.request_context.lifespan_context.get()
    return list_result([task async for task in bridge.list(status=status, limit=limit)])


def all_tools(notice: str) -> list[BridgeTool]:
    """The tools, in the order a host lists them. The notice opens what is said about creating a task."""
    create = f"[{notice}]\n{CREATE}" if notice else CREATE
    return [
        BridgeTool.of(create_task, create, ToolAnnotations(destructive_hint=False)),
        BridgeTool.of(
            retrieve_task,
            "Look at a task, or wait for it: its status, then its answer or the tool_calls it waits for.",
            ToolAnnotations(read_only_hint=True),
        ),
        BridgeTool.of(
            submit_tool_results,
            "Give the results of tool_calls that an input-required task waits for, and wait on. Returns what "
            "agentlin_create_task does. Repeating a result changes nothing.",
            ToolAnnotations(destructive_hint=False, idempotent_hint=True),
        ),
        BridgeTool.of(
            cancel_task,
            "Stop a task for good. Says whether the remote run stopped, kept running, or cannot be stopped.",
            ToolAnnotations(destructive_hint=True, idempotent_hint=True),
        ),
        BridgeTool.of(
            delete_task,
            "Cancel a task if it runs, and delete it with its answer, here and remotely.",
            ToolAnnotations(destructive_hint=True, idempotent_hint=True),
        ),
        BridgeTool.of(
            list_tasks,
            "List delegated tasks, newest first, also those of earlier sessions.",
            ToolAnnotations(read_only_hint=True, open_world_hint=False),
        ),
    ]
