"""Driving tasks through servers that die, and checking afterwards what was done how often."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.support.processes import subprocess_environment

from .agents import eventually, result

ROOT = Path(__file__).parents[2]
GIVE_UP = 300.0
"""Seconds in which a task has to end, whatever happens to the servers."""


_given: set[int] = set()


def _unused_port() -> int:
    """A port that no other server of these tests has: one that was only looked at may be given out again."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port: int = taken.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


class CrashServer:
    """One place where a server runs, dies and is started again, always on the same port."""

    def __init__(self, database: str, journal: Path, workers: int = 1) -> None:
        self.port = _unused_port()
        self._arguments = [database, str(self.port), str(journal), str(workers)]
        self._log = journal.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx.Client()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: tuple[type[BaseException] | None, BaseException | None, TracebackType | None]) -> None:
        self.kill()
        self._client.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/tasks"

    def start(self, kill_at: str = "", version: str = "", entered_after: float = 0.0) -> None:
        """Start it, perhaps with another version of its engine, and wait until it answers.

        Args:
            entered_after: seconds after which its rounds are entered in the engine.
        """
        command = [sys.executable, "-m", "tests.server.crash_server", *self._arguments]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=subprocess_environment(KILL_AT=kill_at, ENGINE_VERSION=version, ENTERED_AFTER=str(entered_after)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        eventually(lambda: self.answers() or not self.is_alive, seconds=30)

    def answers(self) -> bool:
        try:
            return self._client.get(self.url.replace("/v1/tasks", "/healthz"), timeout=5).status_code < 500
        except httpx.TransportError:
            return False

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def wait_for_end(self) -> int:
        assert self._process is not None
        return self._process.wait(30)

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def wait_for_death(self, seconds: float = 30) -> None:
        eventually(lambda: not self.is_alive, seconds)
        assert self._process is not None
        assert self._process.returncode == -signal.SIGKILL, self.log()

    def kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait(30)

    def stop(self) -> None:
        """Let it leave in good order."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(30) == 0, self.log()

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-5000:]


def drive(urls: list[str], key: str) -> dict[str, str]:
    """Take one task to its end through whatever servers answer; returns its answer by its key."""
    with httpx.Client(timeout=GIVE_UP) as client:
        return {key: _drive(client, urls, key)}


def drive_two(urls: list[str], key: str) -> dict[str, str]:
    """Take two tasks of one session to their ends; one of them has to wait for the other."""

    def one(name: str) -> str:
        with httpx.Client(timeout=GIVE_UP) as client:
            task = _create(client, urls, {"user_message_content": name, "task_id": name, "session_id": key})
        content: str = task["output"][-1]["content"]
        return content

    names = [f"{key}-1", f"{key}-2"]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(names, pool.map(one, names), strict=True))


def _drive(client: httpx.Client, urls: list[str], key: str) -> str:
    body: dict[str, Any] = {"user_message_content": key, "task_id": f"{key}-1", "session_id": key}
    asked = _create(client, urls, body)
    assert asked["status"] == "input-required", asked
    (call_id,) = asked["input_required_call_ids"]
    (call,) = [item for item in asked["output"] if item.get("call_id") == call_id]
    assert json.loads(call["arguments"]) == {"key": key, "sum": ["2", "4"]}
    results = {"session_id": key, "task_id": f"{key}-2", "thought_messages": [result(call_id, f"yes {key}")]}
    done = _create(client, urls, {"user_message_content": [], **results})
    assert done["status"] == "completed", done
    content: str = done["output"][-1]["content"]
    return content


def _create(client: httpx.Client, urls: list[str], body: dict[str, Any]) -> dict[str, Any]:
    """Post until it is answered. Posting again is safe: the id makes it one task."""
    deadline = time.monotonic() + GIVE_UP
    for attempt in itertools.count():
        assert time.monotonic() < deadline, f"{body['task_id']} did not end"
        try:
            response = client.post(urls[attempt % len(urls)], json=body)
        except httpx.TransportError:
            time.sleep(0.1)  # between two looks at another process
            continue
        if response.status_code == 503:
            continue
        assert response.status_code == 200, response.text
        task: dict[str, Any] = response.json()["result"]
        return task
    raise AssertionError


def read_journal(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


ORDER = {"model 1": 1, "tool 1": 2, "tool 2": 2, "model 2": 3, "model 3": 4}


def check_journal(lines: list[dict[str, Any]], answers: dict[str, str]) -> Counter[str]:
    """Whether each task did what it had to do, and nothing that was done was done again.

    That the next step has begun shows that a step was recorded; from then on it must not begin again.

    Returns:
        How often a step was cut off, or had ended without having been recorded, and was taken again.
    """
    repeated: Counter[str] = Counter()
    for key, text in answers.items():
        own = [line for line in lines if line.get("key") == key]
        ends = Counter(line["step"] for line in own if line["what"] == "end")
        if key.startswith("q"):
            assert text == f"{key} done"
            assert set(ends) == {"model 1"}
        else:
            assert text == f"{key}: 2 4 yes {key}"
            assert set(ends) == set(ORDER), f"{key}: only {set(ends)} were done"
        reached = 0
        for line in own:
            if line["what"] == "begin":
                assert ORDER[line["step"]] >= reached, f"{key}: {line['step']} was recorded and ran again"
                reached = max(reached, ORDER[line["step"]])
        repeated.update({step: count - 1 for step, count in ends.items()})
    check_turns(lines)
    return repeated


def check_turns(lines: list[dict[str, Any]]) -> None:
    """Of two tasks in one session one was over before the other began."""
    places: dict[str, dict[str, list[int]]] = {}
    for place, line in enumerate(lines):
        key = line.get("key", "")
        if key.startswith("q"):
            places.setdefault(key.rpartition("-")[0], {}).setdefault(key, []).append(place)
    for session in places.values():
        one, other = session.values()
        assert max(one) < min(other) or max(other) < min(one), session
