"""The server's process: it owns its database, listens, and leaves in good order."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import anyio
import uvicorn
from anyio import to_thread
from anyio.abc import TaskStatus
from pydantic import SecretStr
from uvicorn.server import HANDLED_SIGNALS

from agentlin_bridge.database import database_url
from agentlin_bridge.errors import ConfigurationError, LedgerError
from agentlin_bridge.listening import bound, url_of
from agentlin_bridge.server.agent import Agent, Agents, OneAgent
from agentlin_bridge.server.demo_agent import DemoAgent
from agentlin_bridge.server.execution.runs import RunOptions, Runs
from agentlin_bridge.server.ownership import owning
from agentlin_bridge.server.records.store import Store
from agentlin_bridge.server.state_file import remove_state, write_state
from agentlin_bridge.server.web.app import VERSION, create_app
from agentlin_bridge.server.web.sending import SendingProtocol, limit_unsent
from agentlin_bridge.server.workers import run_workers

logger = logging.getLogger(__name__)

KEEP_ALIVE = 75
"""Seconds an unused connection stays open: longer than clients keep theirs (httpx: 5), or a request on a
connection that is just being closed is lost."""
GRACE = 5
"""Seconds that open requests get to end when the server stops."""


@dataclass(frozen=True)
class ServeOptions:
    """How to serve.

    Attributes:
        database: the path or `sqlite://` URL of the server's own database.
        host: the address to listen on; anything but a loopback address needs a key.
        port: the port to listen on; 0 picks a free one.
        api_key: what clients have to send as a bearer token; it opens all tasks. Without any key everybody is
            let in.
        keys: the key of each user; it opens what is that user's.
        state_file: where to write the base URL and the key for local clients, while the server listens.
        idle_exit: seconds without open request or running task after which the server leaves by itself;
            None stays for ever.
        agent: the only agent; None is the demo agent.
        agents: makes all agents there are; comes before `agent`. With several workers each of them calls it, so
            that it has to be something that can be pickled.
        workers: processes that share port and work; more than one needs PostgreSQL.
        expires_in: seconds a task has unless its request says otherwise; None is for ever.
        retention: seconds for which ended tasks are kept; None is for ever.
        output_limit: bytes that the output items of one task may have.
    """

    database: str | Path
    host: str = "127.0.0.1"
    port: int = 0
    api_key: SecretStr | None = None
    keys: Mapping[str, SecretStr] | None = None
    state_file: Path | None = None
    idle_exit: float | None = None
    agent: Agent | None = None
    agents: Callable[[], Agents] | None = None
    workers: int = 1
    expires_in: float | None = None
    retention: float | None = None
    output_limit: int = RunOptions.output_limit

    def all_agents(self) -> Agents:
        """The agents to serve with."""
        return self.agents() if self.agents is not None else OneAgent(self.agent or DemoAgent())


async def serve(options: ServeOptions, *, task_status: TaskStatus[str] = anyio.TASK_STATUS_IGNORED) -> None:
    """Serve until SIGTERM, SIGINT, cancellation or idleness. What runs then goes on at the next start.

    Args:
        options: how.
        task_status: told the base URL (ending in `/v1`) once the server listens.

    Raises:
        ConfigurationError: another server owns the database, the address cannot be listened on, it is not a
            loopback address and there is no key, or the database cannot be shared by workers.
        LedgerError: the database cannot be opened.
    """
    if options.api_key is not None and not options.api_key.get_secret_value():
        raise ConfigurationError("The server's key is empty.", next_step="set one, or none at all")
    listener = await to_thread.run_sync(_listen, options)
    with listener:
        if options.workers > 1:
            _refuse_workers(options.database)
            # One for all finds out whether it can be used, and brings its schema up to date.
            store = await Store.open(options.database)
            await store.close()
            listener.listen()
            one = replace(options, workers=1, state_file=None, idle_exit=None)
            url = _base_url(listener)
            await run_workers(partial(serve_on, one), listener, options.workers, partial(task_status.started, url))
        else:
            await serve_on(options, listener, task_status=task_status)


def _refuse_workers(database: str | Path) -> None:
    kind = database_url(database).get_backend_name()
    if kind != "postgresql":
        raise ConfigurationError(
            f"Several workers cannot share a database of the kind {kind!r}.",
            next_step="use one worker, or a postgresql:// database",
        )


async def serve_on(
    options: ServeOptions, listener: socket.socket, *, task_status: TaskStatus[str] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Serve in this process, on a socket that is bound already; see `serve`."""
    async with owning(options.database) as peers:
        store = await Store.open(options.database, executor=peers.executor)
        try:
            _announce(options, listener)
            run_options = RunOptions(options.expires_in, options.retention, options.output_limit)
            async with Runs(store, options.all_agents(), peers=peers, options=run_options) as runs:
                await _answer_clients(options, runs, listener, task_status)
        except BaseExceptionGroup as errors:
            lost = errors.subgroup(LedgerError)
            if lost is None:
                raise
            raise _leaf(lost) from None
        finally:
            _withdraw(options)
            with anyio.CancelScope(shield=True):
                await store.close()


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _answer_clients(
    options: ServeOptions, runs: Runs, listener: socket.socket, task_status: TaskStatus[str]
) -> None:
    config = uvicorn.Config(
        create_app(runs, api_key=options.api_key, keys=options.keys),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        http=SendingProtocol,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
    )
    server = _Server(config, options, runs, listener, task_status)
    async with anyio.create_task_group() as group:
        if options.idle_exit is not None:
            group.start_soon(server.exit_when_idle, options.idle_exit)
        try:
            await server.serve(sockets=[listener])
        except BaseException:
            with anyio.CancelScope(shield=True):
                if server.started:
                    await server.shutdown(sockets=[listener])
            raise
        group.cancel_scope.cancel()


class _Server(uvicorn.Server):
    def __init__(
        self,
        config: uvicorn.Config,
        options: ServeOptions,
        runs: Runs,
        listener: socket.socket,
        task_status: TaskStatus[str],
    ) -> None:
        super().__init__(config)
        self._listener = listener
        self._options = options
        self._runs = runs
        self._task_status = task_status

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        url = _base_url(self._listener)
        names = ", ".join(agent.name for agent in self._runs.agents)
        logger.info("serving %s at %s", names, url)
        self._task_status.started(url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        _withdraw(self._options)
        self._runs.stop()
        await super().shutdown(sockets)

    async def exit_when_idle(self, seconds: float) -> None:
        await self._runs.activity.idle(seconds)
        logger.info("leaving after %g idle seconds", seconds)
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own would raise the signal again after a clean stop, which turns it into a crash.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _announce(options: ServeOptions, listener: socket.socket) -> None:
    """From here on connections are accepted, and answered as soon as the runs are up."""
    listener.listen()
    if options.state_file is None:
        return
    try:
        write_state(options.state_file, base_url=_base_url(listener), api_key=options.api_key, version=VERSION)
    except OSError as error:
        raise ConfigurationError(
            f"The state file {options.state_file} cannot be written: {error.strerror}.",
            next_step="check that its directory is writable",
        ) from error


def _withdraw(options: ServeOptions) -> None:
    if options.state_file is not None:
        remove_state(options.state_file)


def _listen(options: ServeOptions) -> socket.socket:
    is_guarded = options.api_key is not None or bool(options.keys)
    listener = bound(options.host, options.port, guard="a key", is_guarded=is_guarded, next_step="set a key")
    limit_unsent(listener)
    return listener


def _base_url(listener: socket.socket) -> str:
    return f"{url_of(listener)}/v1"
