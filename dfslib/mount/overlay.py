"""Bytes that were written and are not on the datanodes yet: pieces by offset, none over another."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from dfslib.mount.filesystem import Buffer

_JOIN_BELOW = 64 << 10
"""Pieces this small are joined with the one before: who writes line by line makes one piece, not thousands."""


class Overlay:
    def __init__(self) -> None:
        self._starts: list[int] = []
        self._pieces: list[Buffer] = []
        self.size_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __len__(self) -> int:
        """How many pieces."""
        return len(self._starts)

    @property
    def start(self) -> int:
        return self._starts[0] if self._starts else 0

    @property
    def end(self) -> int:
        """Behind the last byte; 0 without any."""
        return self._starts[-1] + len(self._pieces[-1]) if self._starts else 0

    def write(self, offset: int, data: Buffer) -> None:
        """Lay bytes over whatever was there. `data` is kept, not copied, unless it is small."""
        if offset < self.end:
            self.cut(offset, offset + len(data))
        index = bisect_right(self._starts, offset)
        self.size_bytes += len(data)
        if index and self._join(index - 1, offset, data):
            return
        self._starts.insert(index, offset)
        self._pieces.insert(index, data)

    def _join(self, index: int, offset: int, data: Buffer) -> bool:
        piece = self._pieces[index]
        if len(piece) + len(data) > _JOIN_BELOW or self._starts[index] + len(piece) != offset:
            return False
        if not isinstance(piece, bytearray):
            piece = self._pieces[index] = bytearray(piece)
        try:
            piece += data
        except BufferError:  # somebody reads it right now
            self._pieces[index] = bytearray(piece) + data
        return True

    def cut(self, start: int, end: int) -> None:
        """Forget the bytes [start, end)."""
        if start >= end or not self._starts:
            return
        first = max(0, bisect_right(self._starts, start) - 1)
        if self._starts[first] + len(self._pieces[first]) <= start:
            first += 1
        last = first
        starts: list[int] = []
        pieces: list[Buffer] = []
        while last < len(self._starts) and self._starts[last] < end:
            offset, piece = self._starts[last], self._pieces[last]
            self.size_bytes -= len(piece)
            if offset < start:
                starts.append(offset)
                pieces.append(memoryview(piece)[: start - offset])
            if offset + len(piece) > end:
                starts.append(end)
                pieces.append(memoryview(piece)[end - offset :])
            last += 1
        self.size_bytes += sum(map(len, pieces))
        self._starts[first:last] = starts
        self._pieces[first:last] = pieces

    def find(self, start: int, end: int) -> Iterator[tuple[int, memoryview]]:
        """The parts of [start, end) that are here, in order."""
        index = max(0, bisect_right(self._starts, start) - 1)
        while index < len(self._starts) and self._starts[index] < end:
            offset, piece = self._starts[index], self._pieces[index]
            low, high = max(start, offset), min(end, offset + len(piece))
            if low < high:
                yield low, memoryview(piece)[low - offset : high - offset]
            index += 1

    def runs(self) -> Iterator[tuple[int, int, list[Buffer]]]:
        """Pieces that touch one another together: (offset, length, pieces), in order."""
        offset = length = 0
        run: list[Buffer] = []
        for start, piece in zip(self._starts, self._pieces, strict=True):
            if run and start != offset + length:
                yield offset, length, run
                run = []
            if not run:
                offset, length, run = start, 0, []
            run.append(piece)
            length += len(piece)
        if run:
            yield offset, length, run

    def shift(self, by: int) -> None:
        """Move everything by so many bytes."""
        self._starts = [start + by for start in self._starts]
