"""The engine for tests: nothing survives the process. It holds to the same contract as the others."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from dfslib.errors import Unavailable
from dfslib.namenode.metadata.engine import Journal, ReadTxn, Txn, Watch
from dfslib.namenode.metadata.history import History
from dfslib.namenode.metadata.lineage import Recorder
from dfslib.namenode.metadata.listeners import Listeners
from dfslib.namenode.metadata.write_buffer import WriteBuffer

T = TypeVar("T")


class _State:
    """All keys and values at one time."""

    def __init__(self, values: Mapping[bytes, bytes], number: int = 0) -> None:
        self.number = number
        self._values = dict(values)
        self._keys = sorted(values)

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        keys = self._keys[bisect_left(self._keys, start) : bisect_left(self._keys, end)]
        return iter([(key, self._values[key]) for key in keys])

    def copy(self) -> _State:
        return _State(self._values, self.number)

    def apply(self, key: bytes, value: bytes | None) -> bool:
        """Whether it changed anything: a key that is deleted may have been missing."""
        known = key in self._values
        if value is None:
            if known:
                del self._values[key]
                del self._keys[bisect_left(self._keys, key)]
            return known
        self._values[key] = value
        if not known:
            insort(self._keys, key)
        return True


class MemoryEngine:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        """Guards the fields below. The state is changed in place unless someone reads it."""
        self._state = _State({})
        self._recorder = Recorder.load(self._state)
        self._readers = 0
        self._closed = False
        self._listeners = Listeners()

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

    async def transact(self, fn: Callable[[Txn], T], by: object = None) -> T:
        with self._lock:
            if self._closed:
                raise Unavailable("the namenode is stopping")
            before = self._state
            before.number += 1
            buffer = WriteBuffer(before)
            try:
                result = fn(buffer)
            finally:
                before.number -= 1
            if self._readers:
                self._state = before.copy()
            state = self._state
            old = {key: state.get(key) for key in buffer.writes}
            if sum([state.apply(key, value) for key, value in buffer.writes.items()]):
                state.number += 1
                step = self._recorder.step(state.number, buffer.writes, old)
                for key, record in step.records.items():
                    state.apply(key, record)
                self._recorder.adopted(step)
                self._listeners.tell(state.number, {**buffer.writes, **step.records}, [(by, buffer.writes)])
            return result

    def journal(self, listener: Journal | None) -> None:
        with self._lock:
            self._listeners.journal = listener

    def watch(self, listener: Watch) -> None:
        with self._lock:
            self._listeners.watch = listener

    @property
    def history(self) -> History:
        return self._recorder.history

    def close(self) -> None:
        with self._lock:
            self._closed = True
