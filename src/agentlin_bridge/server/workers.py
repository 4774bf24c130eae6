"""Several processes behind one port: started, watched, started again when one dies, and ended together."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import anyio
from anyio.abc import TaskStatus

from agentlin_bridge.errors import BridgeError, ConfigurationError

logger = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds a worker gets to leave in good order."""
FAST = 5.0
"""Seconds between two starts of a worker, at least."""

_context = multiprocessing.get_context("spawn")


class Serve(Protocol):
    """What a worker does on the socket all of them share. It can be pickled."""

    async def __call__(self, listener: socket.socket, *, task_status: TaskStatus[Any]) -> None:
        """Serve until told to leave; `task_status` is told once that goes on."""
        ...


async def run_workers(serve: Serve, listener: socket.socket, count: int, started: Callable[[], None]) -> None:
    """Run so many workers until SIGTERM, SIGINT or cancellation.

    Args:
        started: called once all of them serve.

    Raises:
        BridgeError: a worker cannot serve. One that could is started again whatever it ends with.
    """
    failed: list[BridgeError] = []
    async with anyio.create_task_group() as group, _told_to_leave() as leave:
        served = [anyio.Event() for _ in range(count)]

        async def keep(number: int) -> None:
            try:
                await _keep_running(serve, listener, number, served[number])
            except BridgeError as error:
                failed.append(error)
                leave.set()

        async def tell() -> None:
            for each in served:
                await each.wait()
            started()

        group.start_soon(tell)
        for number in range(count):
            group.start_soon(keep, number)
        await leave.wait()
        logger.info("leaving")
        group.cancel_scope.cancel()
    if failed:
        raise failed[0]


async def _keep_running(serve: Serve, listener: socket.socket, number: int, served: anyio.Event) -> None:
    while True:
        since = anyio.current_time()
        await _run_once(serve, listener, number, served)
        await anyio.sleep(max(0.0, since + FAST - anyio.current_time()))


async def _run_once(serve: Serve, listener: socket.socket, number: int, served: anyio.Event) -> None:
    # The worker sees the end of this pipe if we die without a word, and leaves as well.
    theirs, ours = _context.Pipe(duplex=False)
    heard, said = _context.Pipe(duplex=False)
    arguments = (serve, listener, theirs, said, _log_level())
    process = _context.Process(target=_work, args=arguments, name=f"worker-{number}")
    with ours, heard:
        with theirs, said:
            process.start()
        try:
            problem = await _first_word(heard)
            if problem is None:
                served.set()
            await _ended(process)
        finally:
            with anyio.CancelScope(shield=True):
                await _end(process)
        status = process.exitcode
        logger.warning("worker %d (process %s) ended with status %s", number, process.pid, status)
        process.close()
    if problem is not None and served.is_set():
        logger.error("worker %d cannot serve: %s", number, problem)
    elif isinstance(problem, BridgeError):
        raise problem
    elif problem is not None and status is not None and status > 0:
        raise ConfigurationError(
            f"A worker ended with status {status} before it served.", next_step="look at what it logged before"
        )


async def _first_word(heard: Connection) -> Exception | None:
    """Why a worker cannot serve; None if it does."""
    await anyio.wait_readable(heard.fileno())
    try:
        problem: BridgeError | None = heard.recv()
    except EOFError as silence:
        return silence
    return problem


async def _ended(process: BaseProcess) -> None:
    await anyio.wait_readable(process.sentinel)
    process.join()


async def _end(process: BaseProcess) -> None:
    if process.is_alive():
        process.terminate()
        with anyio.move_on_after(PATIENCE):
            await _ended(process)
    if process.is_alive():
        process.kill()
        await _ended(process)


@asynccontextmanager
async def _told_to_leave() -> AsyncIterator[anyio.Event]:
    leave = anyio.Event()
    if threading.current_thread() is not threading.main_thread():
        yield leave
        return
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:

        async def receive() -> None:
            async for _ in signals:
                leave.set()

        async with anyio.create_task_group() as group:
            group.start_soon(receive)
            yield leave
            group.cancel_scope.cancel()


def _log_level() -> int:
    return logging.getLogger("agentlin_bridge").getEffectiveLevel()


class _Telling(TaskStatus[Any]):
    """Tells the process that started this one whether this one serves."""

    def __init__(self, said: Connection) -> None:
        self._said = said
        self._has_told = False

    def started(self, value: Any = None) -> None:
        """It does."""
        self._tell(None)

    def failed(self, error: BridgeError) -> bool:
        """It does not; returns whether that can be told."""
        return self._tell(error)

    def _tell(self, problem: BridgeError | None) -> bool:
        if self._has_told:
            return False
        self._has_told = True
        self._said.send(problem)
        self._said.close()
        return True


def _work(serve: Serve, listener: socket.socket, parent: Connection, said: Connection, log_level: int) -> None:
    """The main function of a worker."""
    logging.basicConfig(stream=sys.stderr, format=f"%(levelname)s %(name)s[{os.getpid()}]: %(message)s")
    logging.getLogger("agentlin_bridge").setLevel(log_level)
    telling = _Telling(said)
    try:
        anyio.run(_work_until_alone, serve, listener, parent, telling)
    except BridgeError as error:
        if not telling.failed(error):
            logger.error("%s", error)
        sys.exit(1)
    except Exception:
        logger.exception("this worker failed")
        sys.exit(1)


async def _work_until_alone(serve: Serve, listener: socket.socket, parent: Connection, telling: _Telling) -> None:
    failed: list[BridgeError] = []

    async def watch() -> None:
        await anyio.wait_readable(parent.fileno())
        logger.warning("the process that started this one is gone: leaving")
        signal.raise_signal(signal.SIGTERM)

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        try:
            await serve(listener, task_status=telling)
        except BridgeError as error:
            failed.append(error)  # raised in here, it would come out in a group
        group.cancel_scope.cancel()
    if failed:
        raise failed[0]
