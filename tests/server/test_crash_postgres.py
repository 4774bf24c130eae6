"""kill -9 of one of two servers on one PostgreSQL: the other goes on with what it left."""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.postgres import Postgres

from .crash_server import KILL_POINTS, QUEUE_KILL_POINTS
from .crashing import CrashServer, check_journal, drive, drive_two, read_journal
from .test_crash import AT_ONCE, ENTERED, SECONDS


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def pair(postgres: Postgres, journal: Path) -> Iterator[tuple[CrashServer, CrashServer]]:
    database = postgres.new_database()
    with CrashServer(database, journal) as one, CrashServer(database, journal) as other:
        yield one, other


def test_killed_at_every_point_while_another_lives(
    pair: tuple[CrashServer, CrashServer], journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deadly, survivor = pair
    survivor.start()
    slowest = 0.0
    answers: dict[str, str] = {}
    points = KILL_POINTS + QUEUE_KILL_POINTS
    with ThreadPoolExecutor(1) as pool:
        for number, point in enumerate(points):
            deadly.start(kill_at=point, entered_after=ENTERED[(number + 1) % 2])
            # The first request goes to the one that dies; what is tried again goes to both in turn.
            urls = [deadly.url, survivor.url]
            if point in KILL_POINTS:
                task = pool.submit(drive, urls, f"k{number}")
            else:
                task = pool.submit(drive_two, urls, f"q{number}")
            if not _dies(deadly):
                pytest.fail(f"{point} was not reached")
            died = time.monotonic()
            answers.update(task.result())
            slowest = max(slowest, time.monotonic() - died)
    lines = read_journal(journal)
    assert {line["at"] for line in lines if line["what"] == "killed"} == set(points)
    repeated = check_journal(lines, answers)
    assert repeated.total() <= len(points) * 2, "only what was cut off is done again"
    survivor.stop()
    with capsys.disabled():
        sys.stdout.write(
            f"\n{len(points)} kill points, each hit; {repeated.total()} unrecorded steps were repeated; "
            f"every task done at most {slowest:.1f} s after the death\n"
        )


def _dies(server: CrashServer) -> bool:
    until = time.monotonic() + 30
    while server.is_alive:
        if time.monotonic() > until:
            return False
        time.sleep(0.01)  # between two looks at another process
    return True


def test_two_servers_killed_at_random(
    pair: tuple[CrashServer, CrashServer], journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moments = random.Random(11)
    answers: dict[str, str] = {}
    kills = 0

    def keep_driving(lane: int) -> None:
        urls = [server.url for server in (pair if lane % 2 else pair[::-1])]
        for number in itertools.count():
            answers.update(drive(urls, f"lane{lane}-{number}"))
            if time.monotonic() > until:
                return

    for server in pair:
        server.start()
    until = time.monotonic() + SECONDS
    with ThreadPoolExecutor(AT_ONCE) as pool:
        lanes = [pool.submit(keep_driving, lane) for lane in range(AT_ONCE)]
        while time.monotonic() < until:
            time.sleep(moments.uniform(0.3, 2.5))  # the moment is what is tested
            victim = moments.choice(pair)
            victim.kill()
            kills += 1
            victim.start(entered_after=ENTERED[kills % 2])
        for lane in lanes:
            lane.result()
    repeated = check_journal(read_journal(journal), answers)
    for server in pair:
        server.stop()
    with capsys.disabled():
        sys.stdout.write(
            f"\n{kills} kills, {len(answers)} tasks, each done; {repeated.total()} unrecorded steps were repeated\n"
        )
