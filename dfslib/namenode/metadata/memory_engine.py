"""The engine for tests: nothing survives the process. It holds to the same contract as the others."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from dfslib.errors import Unavailable
from dfslib.namenode.metadata.engine import ReadTxn, Txn
from dfslib.namenode.metadata.write_buffer import WriteBuffer

T = TypeVar("T")


class _State:
    """All keys and values at one time."""

    def __init__(self, values: Mapping[bytes, bytes]) -> None:
        self._values = dict(values)
        self._keys = sorted(values)

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        keys = self._keys[bisect_left(self._keys, start) : bisect_left(self._keys, end)]
        return iter([(key, self._values[key]) for key in keys])

    def copy(self) -> _State:
        return _State(self._values)

    def apply(self, key: bytes, value: bytes | None) -> None:
        known = key in self._values
        if value is None:
            if known:
                del self._values[key]
                del self._keys[bisect_left(self._keys, key)]
            return
        self._values[key] = value
        if not known:
            insort(self._keys, key)


class MemoryEngine:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        """Guards the fields below. The state is changed in place unless someone reads it."""
        self._state = _State({})
        self._readers = 0
        self._closed = False

    def read(self, fn: Callable[[ReadTxn], T]) -> T:
        with self._lock:
            if self._closed:
                raise Unavailable("the namenode is stopping")
            state = self._state
            self._readers += 1
        try:
            return fn(state)
        finally:
            with self._lock:
                self._readers -= 1

    async def transact(self, fn: Callable[[Txn], T]) -> T:
        with self._lock:
            if self._closed:
                raise Unavailable("the namenode is stopping")
            buffer = WriteBuffer(self._state)
            result = fn(buffer)
            if self._readers:
                self._state = self._state.copy()
            for key, value in buffer.writes.items():
                self._state.apply(key, value)
            return result

    def close(self) -> None:
        with self._lock:
            self._closed = True
