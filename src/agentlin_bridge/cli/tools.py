"""Client tools named on the command line, as `module:function`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from agentlin_bridge.delegation.client_tools import ClientTool, as_client_tools
from agentlin_bridge.errors import ConfigurationError


def load_tools(names: Iterable[str], approval: str) -> list[ClientTool]:
    """Client tools that run `always` with a person's approval, or `never`; a tool's own approval stands.

    Raises:
        ConfigurationError: one cannot be loaded, or the approval is neither.
    """
    if approval not in ("always", "never"):
        raise ConfigurationError(f"--approval is {approval!r}.", next_step="use always or never")
    loaded = [load_tool(name) for name in names]
    if approval == "never":
        return loaded
    return [tool if tool.approval is not None else replace(tool, approval="required") for tool in loaded]


def load_tool(name: str) -> ClientTool:
    """A client tool from `module:function`; the working directory is searched first.

    Raises:
        ConfigurationError: there is no such module or function.
    """
    module_name, _, attribute = name.partition(":")
    if not attribute:
        raise ConfigurationError(f"{name!r} names no function.", next_step="write it as module:function")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"The tool {name!r} cannot be loaded: {error}.", next_step="check the module's and the function's name"
        ) from error
    (tool,) = as_client_tools([found]).values()
    return tool
