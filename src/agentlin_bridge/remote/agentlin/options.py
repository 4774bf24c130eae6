"""Parameters of the create request that are passed through, with their types.

Source: `TaskCreateParams` of `agentlin_client` 1.14.0; meanings from its docstrings. What is not listed here
is passed on as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from agentlin_bridge.errors import InvalidRequestError

RESERVED = frozenset(
    {
        "client_tools",
        "previous_task_id",
        "request_id",
        "session_id",
        "stream",
        "structured_output",
        "task_id",
        "thought_messages",
        "user_id",
        "user_message_content",
    }
)
"""Parameters the bridge sets itself."""


@with_config(ConfigDict(extra="allow", strict=True))
class CreateOptions(TypedDict, total=False):
    """The create request's own parameters, as `options` takes them.

    Attributes:
        agent_config: the main agent's configuration; without it the server picks one by `client_id`. It
            counts only when a session begins.
        client_id: the calling client.
        allowed_tools: the tools the agent may use, client tools included. On the published server 0.0.27 an
            empty list means all of them.
        disallowed_tools: tools it may not use.
        allowed_subagents: subagents it may use; an empty list forbids all.
        stop_tools: server-side tools that end the run instead of being executed.
        history_messages: earlier dialogue.
        inference_args: model parameters.
        env: environment variables of the run.
        workspace_dir: the run's working directory, on the server.
        log_dir: where the server logs the run.
        return_rollout: whether the task comes back with its trace, in `rollouts`.
        include_subagent_rollout: whether subagents' traces are part of it.
        include_compress_model_rollout: whether context compression's are.
        rollout_save_dir: where the server keeps traces.
    """

    agent_config: dict[str, Any]
    client_id: str
    allowed_tools: list[str]
    disallowed_tools: list[str]
    allowed_subagents: list[str]
    stop_tools: list[str]
    history_messages: list[dict[str, Any]]
    inference_args: dict[str, Any]
    env: dict[str, str]
    workspace_dir: str
    log_dir: str
    return_rollout: bool
    include_subagent_rollout: bool
    include_compress_model_rollout: bool
    rollout_save_dir: str


_ADAPTER: TypeAdapter[CreateOptions] = TypeAdapter(CreateOptions)


def check_options(options: Mapping[str, Any]) -> None:
    """Check options before anything is created.

    Raises:
        InvalidRequestError: the bridge sets one of them itself, or one has the wrong type.
    """
    if reserved := sorted(RESERVED & options.keys()):
        raise InvalidRequestError(
            f"The bridge sets {', '.join(reserved)} itself; as options they cannot be used.",
            next_step="use the arguments of create",
        )
    try:
        _ADAPTER.validate_python(dict(options))
    except ValidationError as error:
        # The input is left out: it may hold keys.
        found = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in found["loc"])
        raise InvalidRequestError(
            f"The option {where} cannot be used: {found['msg']}.", next_step="correct it"
        ) from error


def server_tools_off(client_tools: Sequence[str]) -> list[str]:
    """`allowed_tools` that leave the agent no tool of its server's.

    The list filters client tools, too, so they are in it; and it is never empty, because on the published
    server an empty list means all tools.
    """
    return [*client_tools] or ["none"]
