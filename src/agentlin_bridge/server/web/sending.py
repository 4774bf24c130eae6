"""Answers to clients that do not read them: little of one is kept, and the connection is closed in the end."""

from __future__ import annotations

import asyncio
import logging
import socket

from uvicorn.protocols.http.h11_impl import H11Protocol

logger = logging.getLogger(__name__)

SEND_TIMEOUT = 60.0
"""Seconds without a client taking any of what is sent to it, after which its connection is closed."""
UNSENT = 64 * 1024
"""Bytes of an answer that the operating system keeps for a client, where it can be told so."""


def limit_unsent(listener: socket.socket) -> None:
    """Let connections of a listening socket take no more than a client reads: only so is it seen to read."""
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)


class SendingProtocol(H11Protocol):
    """HTTP on one connection, closed when the client takes nothing of an answer any more.

    One message of an answer at a time is held for the client; the next waits until that is gone. So the memory a
    client costs does not grow, and after `SEND_TIMEOUT` it is freed.
    """

    _look: asyncio.TimerHandle | None = None
    _left = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        transport.set_write_buffer_limits(high=0)
        super().connection_made(transport)

    def pause_writing(self) -> None:
        """The client has yet to take what was sent."""
        super().pause_writing()
        self._wait()

    def resume_writing(self) -> None:
        """The client has taken everything."""
        self._stop_waiting()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._left = self.transport.get_write_buffer_size()
        self._look = asyncio.get_running_loop().call_later(SEND_TIMEOUT, self._give_up_unless_read)

    def _stop_waiting(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _give_up_unless_read(self) -> None:
        if self.transport.get_write_buffer_size() < self._left:
            self._wait()
            return
        logger.info("a client took nothing of its answer for %g seconds: closing its connection", SEND_TIMEOUT)
        self.transport.abort()
