"""Clients that do not read what is sent to them are dropped; slow ones are not."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import httpx
import pytest

from agentlin_bridge.server.agent import Conversation, Item, answer
from agentlin_bridge.server.web import sending

from .agents import Scripted, eventually
from .conftest import Server, Serving

SIZE = 4 * 1024 * 1024
SECONDS = 1.0


def long(_: Conversation) -> Sequence[Item]:
    return [answer("x" * SIZE)]


@pytest.fixture
def server(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server with one long task and little patience."""
    monkeypatch.setattr(sending, "SEND_TIMEOUT", SECONDS)
    server = serving(Scripted(long))
    server.make("go", task_id="task_1")
    return server


@contextmanager
def asking(server: Server, path: str, buffer: int) -> Iterator[socket.socket]:
    """A connection on which something was asked for, and nothing of the answer read."""
    url = httpx.URL(server.url)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        connection.settimeout(10)
        connection.connect((url.host, url.port))
        connection.sendall(f"GET /v1/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        yield connection


def read_all(connection: socket.socket, pause: float = 0, pauses: int = 0) -> int:
    """How many bytes come until the end."""
    count = 0
    while chunk := connection.recv(128 * 1024):
        count += len(chunk)
        if pauses:
            pauses -= 1
            time.sleep(pause)
    return count


def open_streams(server: Server) -> float:
    found = re.search(r"^agentlin_event_streams (\S+)$", server.get(f"{server.url[:-3]}/metrics").text, re.MULTILINE)
    assert found
    return float(found[1])


@pytest.mark.parametrize("path", ["tasks/task_1/events", "tasks/task_1", "tasks"])
def test_a_client_that_does_not_read_is_dropped(server: Server, path: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with asking(server, path, 4096) as connection:
        eventually(lambda: "took nothing of its answer" in caplog.text)
        eventually(lambda: open_streams(server) == 0)
        with suppress(ConnectionResetError):
            assert read_all(connection) < SIZE


def test_a_client_that_reads_slowly_is_not(server: Server) -> None:
    with asking(server, "tasks/task_1/events", 64 * 1024) as connection:
        assert read_all(connection, pause=SECONDS / 10, pauses=20) > SIZE
