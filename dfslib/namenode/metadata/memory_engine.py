"""The engine for tests: nothing survives the process. It holds to the same contract as the others."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from typing import TypeVar

from dfslib.errors import Unavailable
from dfslib.namenode.metadata.engine import ReadTxn, Txn
from dfslib.namenode.metadata.write_buffer import WriteBuffer

T = TypeVar("T")


class MemoryEngine:
    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        self._keys: list[bytes] = []
        self._closed = False

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        keys = self._keys[bisect_left(self._keys, start) : bisect_left(self._keys, end)]
        return iter([(key, self._values[key]) for key in keys])

    def read(self, fn: Callable[[ReadTxn], T]) -> T:
        return fn(self)

    async def transact(self, fn: Callable[[Txn], T]) -> T:
        if self._closed:
            raise Unavailable("the namenode is stopping")
        buffer = WriteBuffer(self)
        result = fn(buffer)
        for key, value in buffer.writes.items():
            self._apply(key, value)
        return result

    def _apply(self, key: bytes, value: bytes | None) -> None:
        known = key in self._values
        if value is None:
            if known:
                del self._values[key]
                del self._keys[bisect_left(self._keys, key)]
            return
        self._values[key] = value
        if not known:
            insort(self._keys, key)

    def close(self) -> None:
        self._closed = True
