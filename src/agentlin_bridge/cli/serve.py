"""`agentlin-bridge serve`."""

from __future__ import annotations

import logging
import secrets
from pathlib import Path

import anyio
from pydantic import SecretStr

from agentlin_bridge.errors import ConfigurationError
from agentlin_bridge.server.process import ServeOptions, serve
from agentlin_bridge.settings import Settings, data_directory


def run_server(host: str, port: int, database: str | None, *, on_demand: bool, idle_exit: float | None) -> None:
    """Serve until a signal, or until idle.

    With `on_demand`, as a bridge starts it: a free loopback port, a random key, and both in a file beside
    the database that only the user can read.
    """
    logging.getLogger("agentlin_bridge").setLevel(logging.INFO)
    settings = Settings()
    if settings.model is not None:
        raise ConfigurationError(
            "AGENTLIN_BRIDGE_MODEL is set, but the embedded server of this version runs no models.",
            next_step="unset it",
        )
    if on_demand:
        where = Path(database) if database else settings.database_path
        options = ServeOptions(
            database=where,
            port=0,
            api_key=SecretStr(secrets.token_urlsafe(32)),
            state_file=Path(f"{where}.server.json"),
            idle_exit=idle_exit,
        )
    else:
        options = ServeOptions(
            database=database or data_directory() / "serve.sqlite3",
            host=host,
            port=port,
            api_key=settings.api_key,
            idle_exit=idle_exit,
        )
    anyio.run(serve, options)
