"""A project with a configuration file whose tools the bridge runs, and remote agents that ask for them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.processes import subprocess_environment
from tests.support.remote import Json, Turn, call, message, results_of

ROOT = Path(__file__).parents[2]


class Project:
    """A directory with a configuration file.

    Attributes:
        notes: where the tests' tool server notes what it does.
        config: the configuration file.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.notes = directory / "notes"
        self.config = directory / "bridge.toml"

    def write(self, **sections: Any) -> None:
        """Write the configuration file: what stands under `[client_tools]`."""
        lines = [f"client_tools.{name} = {_toml(value)}" for name, value in sections.items()]
        self.config.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def server(self, **fields: Any) -> dict[str, Any]:
        """The tests' tool server, as the configuration describes it."""
        env = {**subprocess_environment(), **fields.pop("env", {})}
        arguments = ["-m", "tests.tool_servers.program", str(self.notes)]
        started = {"command": sys.executable, "args": arguments, "cwd": str(ROOT), "env": env, "start_timeout": 60}
        return {**started, **fields}

    def settings(self, base_url: str) -> dict[str, str]:
        """The environment of a bridge."""
        return {
            "AGENTLIN_BASE_URL": base_url,
            "AGENTLIN_BRIDGE_LEDGER": str(self.directory / "ledger"),
            "AGENTLIN_BRIDGE_CONFIG": str(self.config),
        }

    @property
    def acts(self) -> list[str]:
        """What the tool server noted, but its starts and ends."""
        return [line for line in self._lines if line.split()[0] not in ("start", "end")]

    @property
    def pids(self) -> list[int]:
        """The process ids of the tool server's starts."""
        return [int(line.split()[1]) for line in self._lines if line.startswith("start")]

    def wait_until_noted(self, line: str, seconds: float = 30) -> None:
        """Wait until the tool server has noted something."""
        deadline = time.monotonic() + seconds
        while line not in self._lines:
            assert time.monotonic() < deadline, self._lines
            time.sleep(0.02)

    @property
    def _lines(self) -> list[str]:
        return self.notes.read_text(encoding="utf-8").splitlines() if self.notes.exists() else []


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def asking(*calls: tuple[str, Json]) -> Callable[[Json], Turn]:
    """A remote agent that calls these tools, one a round, and answers with all they returned."""

    def turn(body: Json) -> Turn:
        told = results_of(body)
        done = max((int(call_id.removeprefix("c")) + 1 for call_id in told), default=0)
        heard.extend(told.values())
        if done < len(calls):
            name, arguments = calls[done]
            return Turn([call(f"c{done}", name, arguments)])
        return Turn([message("\n".join(heard))])

    heard: list[str] = []
    return turn


def offered(body: Json) -> list[str]:
    """The names of the client tools that a request offers."""
    return [str(tool.get("name") or tool["function"]["name"]) for tool in body.get("client_tools") or []]
