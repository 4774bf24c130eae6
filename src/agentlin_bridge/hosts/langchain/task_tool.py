"""`AgentlinTaskTool`: a LangChain tool that delegates a subtask and waits for its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Annotated, Any, Literal, Self

from langchain_core.callbacks import AsyncCallbackManagerForToolRun, CallbackManagerForToolRun
from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config, patch_config
from langchain_core.tools import BaseTool, InjectedToolArg, ToolException
from pydantic import BaseModel, Field, PlainSerializer, PrivateAttr, SecretStr, ValidationError

from agentlin_bridge import TaskBridge
from agentlin_bridge.errors import BridgeError, ConfigurationError, InvalidRequestError
from agentlin_bridge.hosts.langchain.caller import Caller
from agentlin_bridge.hosts.langchain.delegating import Order, delegate
from agentlin_bridge.hosts.langchain.host_tools import as_offered
from agentlin_bridge.hosts.langchain.outcome import content_of, for_tool_node
from agentlin_bridge.hosts.langchain.portal import BridgeKeeper
from agentlin_bridge.hosts.langchain.reporting import Reporter
from agentlin_bridge.hosts.langchain.reviewing import InterruptOn, Reviews
from agentlin_bridge.hosts.langchain.standing import Standing, standing_of
from agentlin_bridge.task import Task

DESCRIPTION = (
    "Delegate a subtask to a remote agent and wait for its answer. It knows nothing of this conversation, so "
    "say in the instructions all it needs: what to do, which files or data it is about, and what the answer "
    "should look like. It may use some of the tools here to do its work."
)

PRINCIPAL_KEY = "agentlin_principal"
"""The key of `config["configurable"]` that names whose task a call creates."""

Runtime = Annotated[Any, InjectedToolArg, PlainSerializer(lambda _: None)]
"""LangGraph's `ToolRuntime` in a graph, else None. LangChain dumps what it validates, and this is large."""

_Input = str | dict[str, Any] | ToolCall

_call_id: ContextVar[str | None] = ContextVar("agentlin_call_id", default=None)


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
    its address and its key come from the environment, unless they are given here.

    Cancelling a call cancels its task. The end of the timeout does not: the content then says that the task
    goes on, and its client tools are still run while this process lives (async ones: while the loop of the
    call does).

    A host tool that the remote agent calls does not pass through the agent's middleware, so LangChain's
    human-in-the-loop middleware never sees it: `interrupt_on` is the same mapping, honoured here. A call that
    a person has to decide, or that nothing here executes, interrupts the graph with a `HITLRequest` whose
    actions carry `task_id` and `call_id`; each decision repeats them, as positions are understood only where
    no other call runs in the same task of the graph (as in `create_agent`). That needs a graph with a
    checkpointer. A graph that runs the call again, even in another process, finds its task again.

    Args:
        client_tools: what the remote agent may call: LangChain tools, `ClientTool`s, typed functions.
        interrupt_on: by the tool's name, True or an `InterruptOnConfig` of LangChain's.
        base_url: the deployment, in place of `AGENTLIN_BASE_URL`.
        api_key: its key, in place of `AGENTLIN_API_KEY`. It is in no pickle of the tool.
        backend: who runs the tasks, in place of `AGENTLIN_BRIDGE_BACKEND`.
        agent: an agent profile of the configuration file; another backend's, if it says so.
        ledger: where tasks are on record, in place of `AGENTLIN_BRIDGE_LEDGER`.
        bridge: builds the bridge from whatever else; called with `principal`.
        principal: whose tasks these are; the key `agentlin_principal` of a call's
            `config["configurable"]` goes before it.
        timeout: seconds to wait for an answer; None waits as long as it takes.
        streaming: whether to follow tasks by event stream, where the backend can.

    Raises:
        InvalidRequestError: the client tools or `interrupt_on` cannot be used.
        ConfigurationError: by a call: the client tools may need a person, and there is no checkpointer.
    """

    name: str = "agentlin_task"
    description: str = DESCRIPTION
    args_schema: type[BaseModel] = TaskArguments
    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    handle_tool_error: Any = True
    handle_validation_error: Any = explained

    client_tools: Sequence[Any] = Field(default=(), frozen=True)
    interrupt_on: InterruptOn = Field(default={}, frozen=True)
    base_url: str | None = Field(default=None, frozen=True)
    api_key: SecretStr | None = Field(default=None, frozen=True)
    backend: str | None = Field(default=None, frozen=True)
    agent: str | None = Field(default=None, frozen=True)
    ledger: str | None = Field(default=None, frozen=True)
    bridge: Callable[..., TaskBridge] | None = Field(default=None, frozen=True, repr=False, exclude=True)
    principal: str = Field(default="local", frozen=True)
    timeout: float | None = Field(default=None, gt=0)
    streaming: bool | None = None

    _keeper: BridgeKeeper = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        if any(isinstance(tool, AgentlinTaskTool) for tool in self.client_tools):
            raise InvalidRequestError(
                "An AgentlinTaskTool among the client tools would let tasks delegate tasks without end.",
                next_step="leave it out",
            )
        Reviews(self.interrupt_on, as_offered(self.client_tools))
        self._keeper = self._keeping(self.api_key)

    def _keeping(self, api_key: SecretStr | None) -> BridgeKeeper:
        given = {"base_url": self.base_url, "api_key": api_key, "backend": self.backend, "ledger": self.ledger}
        overrides: Any = {name: value for name, value in given.items() if value is not None}
        if self.bridge is not None and overrides:
            raise InvalidRequestError(
                f"Both `bridge` and {', '.join(overrides)} say how to reach the remote.",
                next_step="give the one or the other",
            )
        build = self.bridge or partial(TaskBridge.from_env, **overrides)
        return BridgeKeeper(partial(build, principal=self.principal))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy the tool; a copy with another principal or bridge opens its own."""
        copied = super().model_copy(update=update, deep=deep)
        if update:
            copied.model_post_init(None)
        return copied

    def __getstate__(self) -> dict[Any, Any]:
        # A key in a pickle travels where nobody expects it; the copy takes its own from the environment.
        state = super().__getstate__()
        return {
            **state,
            "__dict__": {**state["__dict__"], "api_key": None},
            "__pydantic_private__": {**(state["__pydantic_private__"] or {}), "_keeper": self._keeping(None)},
        }

    def close(self) -> None:
        """Close the tool's bridge now rather than at the interpreter's exit. Its tasks go on."""
        self._keeper.close()

    def invoke(self, input: _Input, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run the tool, in sync code."""
        with _called(input):
            return super().invoke(input, config, **kwargs)

    async def ainvoke(self, input: _Input, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Run the tool."""
        with _called(input):
            return await super().ainvoke(input, config, **kwargs)

    def _run(
        self,
        instructions: str,
        runtime: Any = None,
        *,
        config: RunnableConfig,
        run_manager: CallbackManagerForToolRun | None = None,
    ) -> tuple[Any, Task]:
        order = self._order(instructions, runtime, config, run_manager, loop=None)
        try:
            return self._told(self._keeper.call_at_once(delegate, order), runtime)
        except BridgeError as error:
            raise ToolException(str(error)) from error

    async def _arun(
        self,
        instructions: str,
        runtime: Any = None,
        *,
        config: RunnableConfig,
        run_manager: AsyncCallbackManagerForToolRun | None = None,
    ) -> tuple[Any, Task]:
        order = self._order(instructions, runtime, config, run_manager, loop=asyncio.get_running_loop())
        try:
            return self._told(await self._keeper.acall_at_once(delegate, order), runtime)
        except BridgeError as error:
            raise ToolException(str(error)) from error

    def _order(
        self,
        instructions: str,
        runtime: Any,
        config: RunnableConfig,
        run_manager: CallbackManagerForToolRun | AsyncCallbackManagerForToolRun | None,
        *,
        loop: asyncio.AbstractEventLoop | None,
    ) -> Order:
        config = ensure_config(config)
        handlers = run_manager.handlers if run_manager is not None else []
        children = run_manager.get_child() if run_manager is not None else None
        caller = Caller(patch_config(config, callbacks=children), runtime, loop)
        reviews = Reviews(self.interrupt_on, as_offered(self.client_tools, caller))
        standing = standing_of(config, runtime, _call_id.get())
        _check_that_it_can_ask(reviews, standing)
        return Order(
            instructions=instructions,
            reviews=reviews,
            caller=caller,
            reporter=Reporter(caller, is_watched=bool(handlers) or runtime is not None),
            agent=self.agent,
            principal=(config.get("configurable") or {}).get(PRINCIPAL_KEY),
            timeout=self.timeout,
            stream=self.streaming,
            standing=standing,
        )

    def _told(self, task: Task, runtime: Any) -> tuple[Any, Task]:
        content = content_of(task, self.timeout)
        call_id = _call_id.get()
        if isinstance(content, str) or call_id is None:
            return content, task
        # LangChain would write content of some types as text.
        shown = content if runtime is None else for_tool_node(content)
        return ToolMessage(content=shown, artifact=task, tool_call_id=call_id, name=self.name), task


@contextmanager
def _called(input_: object) -> Iterator[None]:
    """Remember the id of the tool call: LangChain tells it only to tools that cannot be called without one."""
    is_call = isinstance(input_, Mapping) and input_.get("type") == "tool_call"
    token = _call_id.set(input_.get("id") if is_call and isinstance(input_, Mapping) else None)
    try:
        yield
    finally:
        _call_id.reset(token)


def _check_that_it_can_ask(reviews: Reviews, standing: Standing | None) -> None:
    if not reviews.may_ask or (standing is not None and standing.can_wait):
        return
    raise ConfigurationError(
        f"A person may have to decide about {', '.join(reviews.may_ask)}, and this call cannot wait for that: it is "
        "not a tool call with an id in a LangGraph graph with a checkpointer. Nothing was delegated.",
        next_step="compile the graph with a checkpointer and call the tool with a ToolCall, or give each client tool "
        "a handler that may run unasked",
    )
