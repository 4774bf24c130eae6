"""`agentlin-bridge serve`."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
from pydantic import SecretStr

from agentlin_bridge.server.agent import Agents
from agentlin_bridge.server.model_agent.agents import configured_agents
from agentlin_bridge.server.process import ServeOptions, serve
from agentlin_bridge.settings import data_directory, load_settings


@dataclass(frozen=True)
class ServeArguments:
    """What the command line says.

    Attributes:
        on_demand: as a bridge starts it: a free loopback port, a random key, and both in a file beside the
            database that only the user can read.
        idle_exit: seconds of idleness after which it leaves.
    """

    host: str
    port: int
    database: str | None
    workers: int
    on_demand: bool
    idle_exit: float | None


def run_server(arguments: ServeArguments) -> None:
    """Serve until a signal, or until idle.

    Raises:
        ConfigurationError: the settings or the configuration file cannot be used.
    """
    logging.getLogger("agentlin_bridge").setLevel(logging.INFO)
    settings = load_settings()
    config = settings.load_config()
    options = ServeOptions(
        database=arguments.database or data_directory() / "serve.sqlite3",
        host=arguments.host,
        port=arguments.port,
        api_key=settings.api_key,
        keys=settings.server_keys,
        idle_exit=arguments.idle_exit,
        workers=arguments.workers,
        agents=_configured if settings.model is not None or config.server.agents else None,
        expires_in=config.server.expires_in,
        retention=config.server.retention,
    )
    if arguments.on_demand:
        where = arguments.database or settings.database_path(settings.model or config.default_model)
        options = replace(
            options,
            database=where,
            host="127.0.0.1",
            port=0,
            api_key=SecretStr(secrets.token_urlsafe(32)),
            keys=None,
            state_file=Path(f"{where}.server.json"),
        )
    anyio.run(serve, options)


def _configured() -> Agents:
    """The agents of the environment and the configuration file; each worker reads them itself."""
    settings = load_settings()
    return configured_agents(settings.model, settings.load_config().server.agents)
