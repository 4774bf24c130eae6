"""`AgentlinToolkit`: the single operations on tasks as tools, for agents that manage tasks themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForToolRun, CallbackManagerForToolRun
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config, patch_config
from langchain_core.tools import BaseTool, BaseToolkit, ToolException
from pydantic import BaseModel, Field, InstanceOf, PrivateAttr, ValidationError

from agentlin_bridge import TaskBridge
from agentlin_bridge.errors import BridgeError, InvalidRequestError
from agentlin_bridge.hosts.langchain import operations
from agentlin_bridge.hosts.langchain.caller import Caller
from agentlin_bridge.hosts.langchain.host_tools import as_offered
from agentlin_bridge.hosts.langchain.operations import Call, Told
from agentlin_bridge.hosts.langchain.portal import BridgeKeeper
from agentlin_bridge.hosts.langchain.results import PATIENCE, TaskResults, in_words
from agentlin_bridge.hosts.langchain.task_tool import PRINCIPAL_KEY, AgentlinTaskTool
from agentlin_bridge.hosts.text import one_line

Operation = Callable[..., Awaitable[Told]]

_MISFITS = 3
_SAID_CHARS = 200

_CREATE = """\
Hand a subtask to a remote agent and wait for it ({wait_seconds:g} seconds, unless wait_seconds says otherwise). The \
agent knows nothing of this conversation. Returns the task's id and how it stands:
- completed: the agent's answer.
- input-required: tool calls for you, of the tools you gave in client_tools. Run them, then call \
{prefix}submit_tool_results.
- not done yet: it goes on by itself. Call {prefix}retrieve_task.
A line "Next:" in a result names the call to make."""
_RETRIEVE = "Look at a task, or wait for it: its status, then its answer or the tool calls it waits for."
_SUBMIT = """\
Give the results of tool calls that an input-required task waits for, and wait on. Returns what {prefix}create_task \
does. Repeating a result changes nothing."""
_CANCEL = "Stop a task for good. Says whether the remote run stopped, kept running, or cannot be stopped."
_DELETE = "Cancel a task if it runs, and delete it with its answer, here and remotely."
_LIST = "List the tasks handed to remote agents, newest first, also those of earlier sessions."
_PAUSE = "Pause a task: it stops where it is and keeps its work, until {prefix}resume_task."
_RESUME = "Let a paused task go on."


def explained(error: ValidationError) -> str:
    """What the model is told about arguments that do not fit."""
    # The values are left out: they may be long, and the caller knows them.
    found = error.errors(include_url=False, include_input=False, include_context=False)
    said = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found[:_MISFITS]]
    more = f"; and {len(found) - _MISFITS} more" if len(found) > _MISFITS else ""
    problem = one_line("; ".join(said), 10 * _SAID_CHARS)
    return f"The arguments do not fit ({problem}{more}), and nothing was done. Next: correct them and call it again."


class TaskOperation(BaseTool):
    """One operation on tasks. `AgentlinToolkit` makes them."""

    args_schema: type[BaseModel]
    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    handle_tool_error: Any = True
    handle_validation_error: Any = explained

    operation: Operation = Field(frozen=True, repr=False, exclude=True)
    keeper: InstanceOf[BridgeKeeper] = Field(frozen=True, repr=False, exclude=True)
    results: InstanceOf[TaskResults] = Field(frozen=True, repr=False, exclude=True)
    client_tools: Sequence[Any] = Field(default=(), frozen=True, repr=False, exclude=True)
    wait_seconds: float = Field(frozen=True, repr=False, exclude=True)

    def _run(
        self,
        *given: str,
        config: RunnableConfig,
        run_manager: CallbackManagerForToolRun | None = None,
        runtime: Any = None,
        **arguments: Any,
    ) -> Told:
        caller = Caller(_for_children(config, run_manager), runtime, loop=None)
        try:
            return self.keeper.call(self._operate, caller, {**self._filled(given), **arguments})
        except BridgeError as error:
            raise ToolException(in_words(error)) from error

    async def _arun(
        self,
        *given: str,
        config: RunnableConfig,
        run_manager: AsyncCallbackManagerForToolRun | None = None,
        runtime: Any = None,
        **arguments: Any,
    ) -> Told:
        caller = Caller(_for_children(config, run_manager), runtime, loop=asyncio.get_running_loop())
        try:
            return await self.keeper.acall(self._operate, caller, {**self._filled(given), **arguments})
        except BridgeError as error:
            raise ToolException(in_words(error)) from error

    def _filled(self, given: Sequence[str]) -> dict[str, Any]:
        """The arguments of a call with a text instead of arguments: it is the first, the others are left out."""
        if not given:
            return {}
        arguments = dict(self.args_schema.model_validate(dict(zip(self.args, given, strict=False))))
        arguments.pop("runtime", None)
        return arguments

    async def _operate(self, bridge: TaskBridge, caller: Caller, arguments: dict[str, Any]) -> Told:
        principal = (caller.config.get("configurable") or {}).get(PRINCIPAL_KEY)
        if principal is not None:
            if not isinstance(principal, str) or not principal:
                raise InvalidRequestError(
                    f'config["configurable"]["{PRINCIPAL_KEY}"] is {principal!r}.',
                    next_step="have the host's code set it to a text, or leave it out",
                )
            bridge = bridge.acting_for(principal)
        call = Call(caller, self.client_tools, self.wait_seconds, self.results)
        return await self.operation(bridge, call, **arguments)


class AgentlinToolkit(BaseToolkit):
    """Tools that create, retrieve, answer, cancel, delete and list tasks; pause and resume where the backend can.

    For agents that manage tasks themselves: several at once, tasks that outlive a conversation, client tools
    that the agent's own model runs. To delegate one task and have its answer, use `AgentlinTaskTool`.

    Each result is a text that ends with the next call to make; its artifact is the `Task`, or the list of them
    (LangGraph's checkpoints give a task back as a dict, which `Task.model_validate` reads). That a task failed is
    no error of the tool that says so; an operation that cannot be carried out is a `ToolException`.

    Cancelling a waiting call of `create_task` cancels the task, whose id nobody knows yet. Cancelling any other
    call, and the end of the waiting, leave the task as it is.

    Args:
        client_tools: what the model may give a task by name: LangChain tools, `ClientTool`s, typed functions,
            `{name, description, parameters}` dicts. Those with a handler run here, while this process lives and
            as long as a tool of the toolkit waits or has waited for the task; the others are the model's to run.
        bridge: builds the bridge; called with `principal`. By default as the environment describes it;
            `partial(TaskBridge.from_env, base_url=...)` changes that.
        principal: whose tasks these are; the key `agentlin_principal` of a call's
            `config["configurable"]` goes before it.
        wait_seconds: how long `create_task` and `submit_tool_results` wait, as far as the model does not say.
        prefix: what the tools' names begin with.

    Raises:
        InvalidRequestError: the client tools cannot be used.
    """

    client_tools: Sequence[Any] = Field(default=(), frozen=True)
    bridge: Callable[..., TaskBridge] | None = Field(default=None, frozen=True, repr=False, exclude=True)
    principal: str = Field(default="local", frozen=True)
    wait_seconds: float = Field(default=PATIENCE, ge=0, frozen=True)
    prefix: str = Field(default="agentlin_", pattern=r"^[A-Za-z0-9_-]{0,40}$", frozen=True)

    _keeper: BridgeKeeper = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        if any(isinstance(tool, AgentlinTaskTool | TaskOperation) for tool in self.client_tools):
            raise InvalidRequestError(
                "A tool that delegates among the client tools would let tasks delegate tasks without end.",
                next_step="leave it out",
            )
        as_offered(self.client_tools)
        self._keeper = BridgeKeeper(self._build)

    @property
    def _build(self) -> Callable[[], TaskBridge]:
        return partial(self.bridge or TaskBridge.from_env, principal=self.principal)

    def get_tools(self) -> list[BaseTool]:
        """The tools. All of them, and those of further calls, share one bridge.

        Raises:
            ConfigurationError: the environment describes no bridge.
        """
        # Never opened: it only says what the backend can, and what must be known about it.
        bridge = self._build()
        can = bridge.capabilities
        results = TaskResults(self.prefix, can_resume=can.resume)

        def tool(name: str, description: str, operation: Operation, arguments: type[BaseModel]) -> BaseTool:
            return TaskOperation(
                name=f"{self.prefix}{name}",
                description=description,
                args_schema=arguments,
                operation=operation,
                keeper=self._keeper,
                results=results,
                client_tools=self.client_tools,
                wait_seconds=self.wait_seconds,
            )

        tools = [
            tool("create_task", self._about_creating(bridge.notice), operations.create, operations.CreateArguments),
            tool("retrieve_task", _RETRIEVE, operations.retrieve, operations.RetrieveArguments),
            tool(
                "submit_tool_results", _SUBMIT.format(prefix=self.prefix), operations.submit, operations.SubmitArguments
            ),
            tool("cancel_task", _CANCEL, operations.cancel, operations.OneTaskArguments),
            tool("delete_task", _DELETE, operations.delete, operations.OneTaskArguments),
            tool("list_tasks", _LIST, operations.list_, operations.ListArguments),
        ]
        if can.pause:
            tools.append(
                tool("pause_task", _PAUSE.format(prefix=self.prefix), operations.pause, operations.OneTaskArguments)
            )
        if can.resume:
            tools.append(tool("resume_task", _RESUME, operations.resume, operations.OneTaskArguments))
        return tools

    def _about_creating(self, notice: str) -> str:
        said = _CREATE.format(prefix=self.prefix, wait_seconds=self.wait_seconds)
        if notice:
            said = f"[{notice}]\n{said}"
        if tools := as_offered(self.client_tools).values():
            lines = [f"- {tool.name}: {one_line(tool.description, _SAID_CHARS)}" for tool in tools]
            said = "\n".join([said, "client_tools that can be given by their names:", *lines])
        return said

    def close(self) -> None:
        """Close the tools' bridge now rather than at the interpreter's exit. Its tasks go on."""
        self._keeper.close()


def _for_children(
    config: RunnableConfig | None, run_manager: CallbackManagerForToolRun | AsyncCallbackManagerForToolRun | None
) -> RunnableConfig:
    """The caller's configuration for runs below ours."""
    return patch_config(ensure_config(config), callbacks=run_manager.get_child() if run_manager else None)
