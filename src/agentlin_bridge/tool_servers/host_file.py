"""The MCP servers of a host's own configuration file."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from pydantic import ValidationError

from agentlin_bridge.errors import ConfigurationError
from agentlin_bridge.tool_servers.description import Reach

logger = logging.getLogger(__name__)

_KEYS = ("mcpServers", "servers", "context_servers")
"""Under which hosts keep their servers."""
_READ = ("command", "args", "env", "cwd", "url", "headers")
_URLS = ("serverUrl", "httpUrl")
"""What some hosts call the url."""
_BRIDGE = re.compile(r"agentlin[-_]bridge(\[[\w,-]*\])?([=<>~!@].*)?(\.exe)?", re.IGNORECASE)
_RUNNERS = re.compile(r"(uvx|uv|pipx|pip-run|rye|hatch|poetry|pdm|pyw?|python[\d.]*w?)(\.exe)?", re.IGNORECASE)


def read_host_file(path: Path, wanted: Collection[str] | None, named: Collection[str] = ()) -> dict[str, Reach]:
    """The servers of a host's file, as far as they can be used, by their names.

    The bridge's own entry is never among them: a remote agent could delegate to itself without end.

    Args:
        path: the file, JSON.
        wanted: which of its servers; None for all. Of all, those that cannot be used are left out.
        named: further ones that are wanted.

    Raises:
        ConfigurationError: it cannot be read, or a server that is asked for by its name is not in it or cannot be used.
    """
    servers = _servers(path)
    asked_for = {*(wanted or ()), *named}
    if missing := sorted(asked_for - servers.keys()):
        raise ConfigurationError(
            f"{path} has no MCP server {missing[0]!r} (it has {', '.join(sorted(servers)) or 'none'}).",
            next_step="correct the name under [client_tools]",
        )
    found: dict[str, Reach] = {}
    for name, entry in servers.items():
        if wanted is not None and name not in asked_for:
            continue
        if problem := _why_not(entry):
            if name in asked_for and not is_the_bridge(entry):
                raise ConfigurationError(
                    f"The MCP server {name!r} of {path} cannot be used: {problem}.",
                    next_step="leave it out, or describe it under [client_tools.servers]",
                )
            logger.warning("the MCP server %r of %s is left out: %s", name, path, problem)
        else:
            found[name] = _reach(entry)
    return found


def is_the_bridge(entry: Mapping[str, Any]) -> bool:
    """Whether an entry starts this very program, by itself or through a runner such as uvx."""
    command = entry.get("command")
    if not isinstance(command, str):
        return False
    program = _base(command)
    if _BRIDGE.fullmatch(program):
        return True
    arguments = entry.get("args")
    if not _RUNNERS.fullmatch(program) or not isinstance(arguments, list):
        return False
    return any(_names_the_bridge(argument) for argument in arguments if isinstance(argument, str))


def _names_the_bridge(argument: str) -> bool:
    # A directory that has this name may well be an argument of another server.
    plain = argument.partition("--from=")[2] or argument
    is_program = re.search(r"(bin|scripts)[/\\][^/\\]+$", plain, re.IGNORECASE) is not None
    return _BRIDGE.fullmatch(_base(plain) if is_program else plain) is not None


def _base(path: str) -> str:
    return PureWindowsPath(PurePosixPath(path).name).name


def _servers(path: Path) -> dict[str, Mapping[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigurationError(
            f"The host file {path} cannot be read: {error.strerror or type(error).__name__}.",
            next_step="correct host_file under [client_tools]",
        ) from None
    except ValueError as error:
        # Its text may hold secrets, so no more than the place is told.
        where = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "it is not UTF-8"
        raise ConfigurationError(
            f"The host file {path} is no JSON: {where}.", next_step="correct the file, or write one without comments"
        ) from None
    if isinstance(content, Mapping):
        for key in _KEYS:
            if isinstance(servers := content.get(key), Mapping):
                return {name: entry for name, entry in servers.items() if isinstance(entry, Mapping)}
    raise ConfigurationError(
        f"The host file {path} has no mcpServers.", next_step="name a file that has, such as claude_desktop_config.json"
    )


def _why_not(entry: Mapping[str, Any]) -> str:
    if is_the_bridge(entry):
        return "it is this bridge, and a remote agent must not delegate to itself"
    if entry.get("disabled") is True or entry.get("enabled") is False:
        return "it is switched off there"
    if str(entry.get("type", "")).lower() == "sse":
        return "it speaks SSE, which is no longer MCP"
    try:
        reach = _reach(entry)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return f"{where}: {first['msg']}".removeprefix(": ").replace("Value error, ", "")
    return "" if reach.is_given else "it has neither command nor url"


def _reach(entry: Mapping[str, Any]) -> Reach:
    given = {name: entry[name] for name in _READ if entry.get(name) is not None}
    for name in _URLS:
        if isinstance(entry.get(name), str):
            given["url"] = entry[name]
    return Reach.model_validate(given)
