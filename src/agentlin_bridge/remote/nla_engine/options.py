"""What a task for NLA Engine can say beside its instructions, and the request that makes a run of it.

Source: the engine's public repository for the body of a run; nothing else of it is documented.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from agentlin_bridge.errors import InvalidRequestError
from agentlin_bridge.remote.nla_engine.secrets import Secrets

PROMPT_KEY = "prompt"
"""The input that the instructions go into, unless an agent calls it otherwise."""

_AGENT_ID = re.compile(r"(?!\.+$)[A-Za-z0-9_.~-]{1,200}")


@with_config(ConfigDict(extra="forbid", strict=True))
class RunOptions(TypedDict, total=False):
    """`options` of a task, or an agent profile.

    Attributes:
        agent_id: which of the engine's agents runs.
        input: further inputs; they go before the agent's own variables. A value `${NAME}` is a secret of the
            bridge and put in at sending.
        prompt_key: the input that the instructions go into; `prompt` by default.
        callback: the URL the engine tells every update to; may be `${NAME}`.
    """

    agent_id: str
    input: dict[str, str]
    prompt_key: str
    callback: str


_ADAPTER: TypeAdapter[RunOptions] = TypeAdapter(RunOptions)


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it is asked for. Its inputs may be keys."""

    agent_id: str
    input: Mapping[str, str] = field(repr=False)
    callback: str | None = field(default=None, repr=False)

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body of the request."""
        return {"input": dict(self.input), **({} if self.callback is None else {"callback": self.callback})}


def check_options(options: Mapping[str, Any], secrets: Secrets, default_agent: str | None) -> RunOptions:
    """Check options before anything is created.

    Raises:
        InvalidRequestError: naming the option, never its value.
    """
    try:
        found = _ADAPTER.validate_python(dict(options))
    except ValidationError as error:
        # The input is left out: it may hold keys.
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise InvalidRequestError(
            f"The option {where} cannot be used: {problem['msg']}.",
            next_step=f"NLA Engine takes {', '.join(sorted(RunOptions.__annotations__))}",
        ) from None
    agent_id = found.get("agent_id", default_agent)
    if agent_id is None:
        raise InvalidRequestError(
            "No agent of NLA Engine is named.", next_step="give an agent profile, or the option agent_id"
        )
    if not _AGENT_ID.fullmatch(agent_id):
        raise InvalidRequestError("The option agent_id is no id of an agent.", next_step="list the agents")
    _check_input(found.get("input", {}), found.get("prompt_key", PROMPT_KEY), secrets)
    if "callback" in found:
        secrets.check("callback", found["callback"])
        _check_callback(secrets.resolve(found["callback"]))
    return found


def _check_input(given: Mapping[str, str], prompt_key: str, secrets: Secrets) -> None:
    if not prompt_key:
        raise InvalidRequestError("The option prompt_key is empty.", next_step="name the input for the instructions")
    if prompt_key in given:
        raise InvalidRequestError(
            f"The option input.{prompt_key} would go where the instructions go.",
            next_step="leave it out, or set prompt_key",
        )
    for key, value in given.items():
        secrets.check(f"input.{key}", value)


def _check_callback(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidRequestError(
            "The option callback is no http(s) URL without a fragment.", next_step="correct it, or leave it out"
        )


def run_of(
    options: Mapping[str, Any],
    texts: Sequence[str],
    secrets: Secrets,
    *,
    default_agent: str | None,
    mark: str | None,
) -> Run:
    """The run that a task asks for.

    Args:
        options: the task's.
        texts: its instructions and whatever else was said, in order.
        secrets: for the references in the options.
        default_agent: who runs where the options name nobody.
        mark: put into the callback as its fragment. A fragment is never sent to the URL's host, but it is
            kept with the run, which can be told by it.

    Raises:
        InvalidRequestError: the options cannot be used, or no longer: a secret may be gone.
    """
    found = check_options(options, secrets, default_agent)
    inputs = {key: secrets.resolve(value) for key, value in found.get("input", {}).items()}
    callback = secrets.resolve(found["callback"]) if "callback" in found else None
    return Run(
        agent_id=found.get("agent_id") or str(default_agent),
        input={**inputs, found.get("prompt_key", PROMPT_KEY): "\n\n".join(texts)},
        callback=callback if callback is None or mark is None else f"{callback}#{mark}",
    )
