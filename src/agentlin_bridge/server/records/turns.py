"""Completed turns, kept from one step of a session to the next: what is completed stays as it is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Pool, Row

from agentlin_bridge.server.agent import Turn

MOST = 32 * 1024 * 1024
"""Bytes that are kept for one database: of JSON from which the turns were read, and so much more for each turn."""
OVERHEAD = 4096

Chain = Sequence[Row[Any]]
"""The tasks of one turn, in order."""

Read = Callable[[Connection, Sequence[Chain]], Iterable[tuple[tuple[Turn, ...], int]]]
"""Reads what each of some chains tells, and how many bytes that is."""

_kept: WeakKeyDictionary[Pool, _Turns] = WeakKeyDictionary()


def known_turns(connection: Connection, chains: Sequence[Chain], read: Read) -> list[Turn]:
    """What completed chains tell, in order; read are only those that are not known yet."""
    kept = _kept.setdefault(connection.engine.pool, _Turns())
    keys = [tuple(row.seq for row in chain) for chain in chains]
    found = {key: kept.get(key) for key in keys}
    missing = [(key, chain) for key, chain in zip(keys, chains, strict=True) if found[key] is None]
    told = read(connection, [chain for _, chain in missing])
    for (key, _), (turns, size) in zip(missing, told, strict=True):
        found[key] = turns
        if _is_reader(connection):
            kept.put(key, turns, size)
    return [turn for key in keys for turn in found[key] or ()]


def _is_reader(connection: Connection) -> bool:
    """Whether all it sees is committed. A transaction that writes shares its commit with others, or may be undone."""
    options = connection.get_execution_options()
    return bool(options.get("reading") or options.get("postgresql_readonly"))


class _Turns:
    """Turns by the numbers of their tasks, which are never used again. May be called from any thread."""

    def __init__(self) -> None:
        self._turns: OrderedDict[tuple[int, ...], tuple[tuple[Turn, ...], int]] = OrderedDict()
        self._size = 0
        self._lock = Lock()

    def get(self, key: tuple[int, ...]) -> tuple[Turn, ...] | None:
        with self._lock:
            if key not in self._turns:
                return None
            self._turns.move_to_end(key)
            return self._turns[key][0]

    def put(self, key: tuple[int, ...], turns: tuple[Turn, ...], size: int) -> None:
        with self._lock:
            if key in self._turns:
                return
            size += OVERHEAD
            self._turns[key] = turns, size
            self._size += size
            while self._size > MOST:
                _, (_, freed) = self._turns.popitem(last=False)
                self._size -= freed
