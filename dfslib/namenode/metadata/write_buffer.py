"""The writes of one transaction, held back until it has run to its end. Every engine uses it, so that a
function that raises leaves no trace, and so that a transaction's writes can be had as a value."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from heapq import merge
from operator import itemgetter

from dfslib.namenode.metadata.engine import KEY_MAX, ReadTxn
from dfslib.namenode.metadata.lineage import OWN_KEYS


class WriteBuffer:
    """A Txn over a snapshot: reads see the snapshot with the buffered writes laid over it."""

    def __init__(self, base: ReadTxn) -> None:
        self._base = base
        self._sorted: list[bytes] | None = None  # the written keys in order, kept from the first scan on
        self.writes: dict[bytes, bytes | None] = {}
        """New values by key; None for a key that is deleted."""

    @property
    def number(self) -> int:
        return self._base.number

    def get(self, key: bytes) -> bytes | None:
        if key in self.writes:
            return self.writes[key]
        return self._base.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self._write(key, value)

    def delete(self, key: bytes) -> None:
        self._write(key, None)

    def _write(self, key: bytes, value: bytes | None) -> None:
        if not 0 < len(key) <= KEY_MAX:  # here, where one function fails, not in the commit, where its whole group does
            raise ValueError(f"a key has 1 to {KEY_MAX} bytes, not {len(key)}")
        if key in OWN_KEYS:
            raise ValueError(f"the engine alone writes {key!r}")
        if self._sorted is not None and key not in self.writes:
            insort(self._sorted, key)
        self.writes[key] = value

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        if self._sorted is None:
            self._sorted = sorted(self.writes)
        keys = self._sorted[bisect_left(self._sorted, start) : bisect_left(self._sorted, end)]
        if not keys:
            return self._base.scan(start, end)
        return self._merged({key: self.writes[key] for key in keys}, start, end)

    def _merged(self, ours: dict[bytes, bytes | None], start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        theirs = (item for item in self._base.scan(start, end) if item[0] not in ours)
        kept = ((key, value) for key, value in ours.items() if value is not None)
        return merge(theirs, kept, key=itemgetter(0))
