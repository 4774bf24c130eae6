"""kill -9 at every point of a task's way, and at random moments: SQLite."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from .crash_server import KILL_POINTS, QUEUE_KILL_POINTS
from .crashing import CrashServer, check_journal, drive, drive_two, read_journal

SECONDS = float(os.environ.get("AGENTLIN_BRIDGE_CRASH_SECONDS", "6"))
AT_ONCE = 6
ENTERED = (0.0, 60.0)
"""Every round is entered in the engine at once; none is before it is over. On PostgreSQL it is the other way round."""


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def server(tmp_path: Path, journal: Path) -> Iterator[CrashServer]:
    with CrashServer(str(tmp_path / "server.sqlite"), journal) as server:
        yield server


def test_killed_at_every_point(server: CrashServer, journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks: list[Future[dict[str, str]]] = []
    points = KILL_POINTS + QUEUE_KILL_POINTS
    with ThreadPoolExecutor(len(points)) as pool:
        for number, point in enumerate(points):
            server.start(kill_at=point, entered_after=ENTERED[number % 2])
            if point in KILL_POINTS:
                tasks.append(pool.submit(drive, [server.url], f"k{number}"))
            else:
                tasks.append(pool.submit(drive_two, [server.url], f"q{number}"))
            server.wait_for_death()
        server.start()  # and what is left is taken up
        answers = {key: text for task in tasks for key, text in task.result().items()}
    lines = read_journal(journal)
    assert {line["at"] for line in lines if line["what"] == "killed"} == set(points)
    repeated = check_journal(lines, answers)
    assert repeated.total() <= len(points) * 2, "only what was cut off is done again"
    server.stop()
    with capsys.disabled():
        sys.stdout.write(f"\n{len(points)} kill points, each hit; {repeated.total()} unrecorded steps were repeated\n")


def test_another_version_of_the_engine_goes_on_with_what_is_recorded(server: CrashServer, journal: Path) -> None:
    server.start(kill_at="model.begin#2")
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(drive, [server.url], "k")
        server.wait_for_death()
        server.start(version="another")
        answers = task.result()
    assert check_journal(read_journal(journal), answers).total() == 0
    server.stop()


def test_killed_at_random(server: CrashServer, journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moments = random.Random(7)
    until = time.monotonic() + SECONDS
    answers: dict[str, str] = {}
    kills = 0

    def keep_driving(lane: int) -> None:
        number = 0
        while time.monotonic() < until or number == 0:
            answers.update(drive([server.url], f"lane{lane}-{number}"))
            number += 1

    with ThreadPoolExecutor(AT_ONCE) as pool:
        lanes = [pool.submit(keep_driving, lane) for lane in range(AT_ONCE)]
        while time.monotonic() < until:
            server.start(entered_after=ENTERED[kills % 2])
            time.sleep(moments.uniform(0.3, 2.5))  # the moment is what is tested
            server.kill()
            kills += 1
        server.start()
        for lane in lanes:
            lane.result()
    repeated = check_journal(read_journal(journal), answers)
    server.stop()
    with capsys.disabled():
        sys.stdout.write(
            f"\n{kills} kills, {len(answers)} tasks, each done; {repeated.total()} unrecorded steps were repeated\n"
        )
