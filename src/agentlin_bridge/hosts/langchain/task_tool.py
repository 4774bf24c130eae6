"""`AgentlinTaskTool`: a LangChain tool that delegates a subtask and waits for its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal, Self

from langchain_core.callbacks import AsyncCallbackManagerForToolRun, CallbackManagerForToolRun
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config, patch_config
from langchain_core.tools import BaseTool, InjectedToolArg, ToolException
from pydantic import BaseModel, Field, PlainSerializer, PrivateAttr, ValidationError

from agentlin_bridge import TaskBridge
from agentlin_bridge.delegation.client_tools import ClientTool
from agentlin_bridge.errors import BridgeError, InvalidRequestError
from agentlin_bridge.hosts.langchain.caller import Caller
from agentlin_bridge.hosts.langchain.host_tools import as_offered
from agentlin_bridge.hosts.langchain.outcome import content_of
from agentlin_bridge.hosts.langchain.portal import BridgeKeeper
from agentlin_bridge.task import Task

DESCRIPTION = (
    "Delegate a subtask to a remote agent and wait for its answer. It knows nothing of this conversation, so "
    "say in the instructions all it needs: what to do, which files or data it is about, and what the answer "
    "should look like. It may use some of the tools here to do its work."
)

Runtime = Annotated[Any, InjectedToolArg, PlainSerializer(lambda _: None)]
"""LangGraph's `ToolRuntime` in a graph, else None. LangChain dumps what it validates, and this is large."""


class TaskArguments(BaseModel):
    """What the model says, and what LangGraph adds to it."""

    instructions: str = Field(description="What the remote agent shall do, with all it needs to know.")
    runtime: Runtime = None


def explained(error: ValidationError) -> str:
    """What the model is told about arguments that do not fit."""
    found = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
    return f"The arguments do not fit ({found}), and nothing was delegated. Next: give `instructions`, a text."


class AgentlinTaskTool(BaseTool):
    """Delegates a subtask to an Agentlin agent, runs the host's tools that it asks for, returns its answer.

    The content is the answer, the artifact the `Task` (LangGraph's checkpoints give it back as a dict, which
    `Task.model_validate` reads). A task that fails, expires or is canceled is a `ToolException`. The backend,
    its address and its key come from the environment, not from this object.

    Cancelling a call cancels its task. The end of the timeout does not: the content then says that the task
    goes on, and its client tools are still run while this process lives (async ones: while the loop of the
    call does).

    Two things LangChain users may expect do not happen here. A host tool that the remote agent calls does
    not pass through the agent's middleware, so a human-in-the-loop middleware does not see it: offer only
    tools that may run unasked, or a `ClientTool` with an `approval`. And a host tool that calls LangGraph's
    `interrupt` is not supported yet: the remote agent is told so in an error result.

    Args:
        client_tools: what the remote agent may call: LangChain tools, `ClientTool`s, typed functions.
        bridge: builds the bridge; called with `principal`. By default as the environment describes it.
        principal: whose tasks these are.
        timeout: seconds to wait for an answer; None waits as long as it takes.
    """

    name: str = "agentlin_task"
    description: str = DESCRIPTION
    args_schema: type[BaseModel] = TaskArguments
    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    handle_tool_error: Any = True
    handle_validation_error: Any = explained

    client_tools: Sequence[Any] = Field(default=(), frozen=True)
    bridge: Callable[..., TaskBridge] | None = Field(default=None, frozen=True, repr=False, exclude=True)
    principal: str = Field(default="local", frozen=True)
    timeout: float | None = Field(default=None, gt=0)

    _keeper: BridgeKeeper = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        if any(isinstance(tool, AgentlinTaskTool) for tool in self.client_tools):
            raise InvalidRequestError(
                "An AgentlinTaskTool among the client tools would let tasks delegate tasks without end.",
                next_step="leave it out",
            )
        as_offered(self.client_tools)
        self._keeper = BridgeKeeper(partial(self.bridge or TaskBridge.from_env, principal=self.principal))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy the tool; a copy with another principal or bridge opens its own."""
        copied = super().model_copy(update=update, deep=deep)
        if update:
            copied.model_post_init(None)
        return copied

    def close(self) -> None:
        """Close the tool's bridge now rather than at the interpreter's exit. Its tasks go on."""
        self._keeper.close()

    def _run(
        self,
        instructions: str,
        runtime: Any = None,
        *,
        config: RunnableConfig,
        run_manager: CallbackManagerForToolRun | None = None,
    ) -> tuple[str, Task]:
        caller = Caller(_for_children(config, run_manager), runtime, loop=None)
        try:
            task = self._keeper.call(delegate, instructions, as_offered(self.client_tools, caller), self.timeout)
        except BridgeError as error:
            raise ToolException(str(error)) from error
        return content_of(task, self.timeout), task

    async def _arun(
        self,
        instructions: str,
        runtime: Any = None,
        *,
        config: RunnableConfig,
        run_manager: AsyncCallbackManagerForToolRun | None = None,
    ) -> tuple[str, Task]:
        caller = Caller(_for_children(config, run_manager), runtime, loop=asyncio.get_running_loop())
        try:
            tools = as_offered(self.client_tools, caller)
            task = await self._keeper.acall(delegate, instructions, tools, self.timeout)
        except BridgeError as error:
            raise ToolException(str(error)) from error
        return content_of(task, self.timeout), task


async def delegate(
    bridge: TaskBridge, instructions: str, client_tools: Sequence[ClientTool], timeout: float | None
) -> Task:
    """Create a task and wait for it; if cancelled, which may happen once, cancel the task."""
    creating = asyncio.ensure_future(bridge.create(instructions, client_tools=client_tools))
    try:
        task = await asyncio.shield(creating)
        return await bridge.wait(task.id, timeout=timeout)
    except asyncio.CancelledError:
        # Nobody else knows its id.
        await bridge.cancel((await creating).id)
        raise


def _for_children(
    config: RunnableConfig | None, run_manager: CallbackManagerForToolRun | AsyncCallbackManagerForToolRun | None
) -> RunnableConfig:
    """The caller's configuration for runs below ours."""
    return patch_config(ensure_config(config), callbacks=run_manager.get_child() if run_manager else None)
