"""Several processes behind one port: started, watched, started again when one dies, and ended together."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import anyio

logger = logging.getLogger(__name__)

Serve = Callable[[socket.socket], Awaitable[None]]
"""What a worker does on the socket all of them share. It can be pickled."""

PATIENCE = 30.0
"""Seconds a worker gets to leave in good order."""
FAST = 5.0
"""Seconds between two starts of a worker, at least."""

_context = multiprocessing.get_context("spawn")


async def run_workers(serve: Serve, listener: socket.socket, count: int, started: Callable[[], None]) -> None:
    """Run so many workers until SIGTERM, SIGINT or cancellation.

    Args:
        started: called once all of them have been started.
    """
    async with anyio.create_task_group() as group, _told_to_leave() as leave:
        for number in range(count):
            group.start_soon(_keep_running, serve, listener, number)
        started()
        await leave.wait()
        logger.info("leaving")
        group.cancel_scope.cancel()


async def _keep_running(serve: Serve, listener: socket.socket, number: int) -> None:
    while True:
        since = anyio.current_time()
        # The worker sees the end of this pipe if we die without a word, and leaves as well.
        theirs, ours = _context.Pipe(duplex=False)
        process = _context.Process(target=_work, args=(serve, listener, theirs, _log_level()), name=f"worker-{number}")
        process.start()
        theirs.close()
        try:
            await _ended(process)
        finally:
            with anyio.CancelScope(shield=True):
                await _end(process)
            ours.close()
        logger.warning("worker %d (process %s) ended with status %s", number, process.pid, process.exitcode)
        process.close()
        await anyio.sleep(max(0.0, since + FAST - anyio.current_time()))


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


def _work(serve: Serve, listener: socket.socket, parent: Connection, log_level: int) -> None:
    """The main function of a worker."""
    logging.basicConfig(stream=sys.stderr, format=f"%(levelname)s %(name)s[{os.getpid()}]: %(message)s")
    logging.getLogger("agentlin_bridge").setLevel(log_level)
    try:
        anyio.run(_work_until_alone, serve, listener, parent)
    except Exception as error:
        logger.error("%s", error)
        sys.exit(1)


async def _work_until_alone(serve: Serve, listener: socket.socket, parent: Connection) -> None:
    async def watch() -> None:
        await anyio.wait_readable(parent.fileno())
        logger.warning("the process that started this one is gone: leaving")
        signal.raise_signal(signal.SIGTERM)

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await serve(listener)
        group.cancel_scope.cancel()
