"""Reading of open files: from what was written here, from the cache of blocks, and ahead of those who read in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from dfslib.errors import DfsError, InputOutput, NotFound
from dfslib.model import Extent
from dfslib.mount.block_cache import PAGE, UNIT, BlockCache, Piece
from dfslib.mount.file import File, OpenFile
from dfslib.mount.filesystem import Buffer, ReadDone
from dfslib.mount.invalidations import Invalidations
from dfslib.mount.layout import WINDOW, Layout, window_of
from dfslib.mount.session import Session
from dfslib.mount.writer import Writer
from dfslib.wire import session as wire

_NEAR: Final = 1 << 20
"""The kernel reads ahead itself, several requests at a time and in any order: this far off is still in order."""
_NEAR_FIRST: Final = 128 << 10
"""As long as a reader is not in order, it takes more to be: reads all over a file come near one another at times."""
_WINDOW_FIRST: Final = 512 << 10
_WINDOW_MOST: Final = 16 << 20
_FETCH: Final = 2 << 20
"""Bytes of one request to a datanode for those who read in order."""
_ATTEMPTS: Final = 5
_ZEROS: Final = memoryview(bytes(1 << 20))


class Reader:
    def __init__(self, session: Session, invalidations: Invalidations, cache: BlockCache, limit_bytes: int) -> None:
        self._session = session
        self._invalidations = invalidations
        self._cache = cache
        self._window_most = min(_WINDOW_MOST, limit_bytes // 4)

    async def read(self, handle: OpenFile, writer: Writer | None, offset: int, size: int) -> list[Buffer]:
        """Up to `size` bytes from `offset`, fewer only at the end of the file.

        Raises InputOutput where no datanode gives them, Unavailable without a namenode.
        """
        window = self._read_ahead(handle, offset, size)
        parts: list[Buffer] = []
        position = offset
        while position < offset + size:  # a part ends where the layout that is known here does
            part = await self._read_part(handle.file, writer, position, offset + size, window)
            if not part:
                break
            parts += part
            position += sum(map(len, part))
        return parts

    def begin(self, handle: OpenFile, offset: int, size: int, done: ReadDone) -> bool:
        """As `FileSystem.begin_read`, of a file of which nothing is still to be written. Only for reads all over a
        file: for those in order there is reading ahead to be done."""
        file = handle.file
        end = min(offset + size, file.attr.size)
        known = file.layouts.find(offset)
        if known is None or not offset < end <= known[1] or _is_in_order(handle, offset):
            return False
        layout = known[0]
        extent = next(layout.find(offset, end), None)
        if extent is None or extent.length < end - offset or layout.deferred(extent.block) is not None:
            return False
        start, stop = extent.block_offset, extent.block_offset + extent.length
        piece = self._cache.find(extent.block, start)
        if piece is None and start // PAGE == (stop - 1) // PAGE:
            piece = self._cache.start(extent.block, start, stop, layout.holders(extent.block), PAGE)
        if piece is None or piece.start + piece.length < stop:
            return False
        handle.window, handle.next_offset = 0, offset + size
        if piece.data is None:
            piece.when_settled(partial(_tell, piece, start, stop, file, done))
        else:
            _tell(piece, start, stop, file, done)
        return True

    async def _read_part(
        self, file: File, writer: Writer | None, start: int, end: int, window: int
    ) -> list[Buffer]:
        """Bytes from `start` on, at most up to `end`; none at the end of the file."""
        for attempt in range(_ATTEMPTS):
            if start >= (writer.size if writer is not None else file.attr.size):
                return []
            layout, known_to = await self._layout(file, start)
            # Nothing awaits from here until all is collected: layout and overlay are of one moment.
            stop = min(end, known_to, writer.size if writer is not None else file.attr.size)
            written = list(writer.find(start, stop)) if writer is not None else []
            wanted = [(gap, list(layout.find(*gap))) for gap in _gaps(written, start, stop)]
            try:
                found = await self._fetch(layout, wanted, window)
            except NotFound:
                # The block went, because somebody has written over it: the layout is an old one.
                file.layouts.forget()
                if attempt == _ATTEMPTS - 1:
                    raise InputOutput("a block of this file is on no datanode") from None
                continue
            self._prefetch(file, stop, min(file.attr.size, stop + window))
            return [data for _, data in sorted([*written, *found], key=lambda part: part[0])]
        raise AssertionError("unreachable")

    def fetch_small(self, file: File) -> None:
        """Have all of a small file on its way."""
        self._prefetch(file, 0, file.attr.size)

    def _read_ahead(self, handle: OpenFile, offset: int, size: int) -> int:
        """How much to fetch beyond what is asked for."""
        if _is_in_order(handle, offset):
            handle.window = min(max(handle.window * 2, _WINDOW_FIRST), self._window_most)
            handle.next_offset = max(handle.next_offset, offset + size)
        else:
            handle.window, handle.next_offset = 0, offset + size
        return handle.window

    async def _layout(self, file: File, position: int) -> tuple[Layout, int]:
        if (known := file.layouts.find(position)) is not None:
            return known
        start = window_of(position)
        for _ in range(_ATTEMPTS):
            mark = self._invalidations.now()
            answer = await self._session.call(wire.GetLayout(file.ino, start, start + WINDOW))
            assert isinstance(answer, wire.Layout)
            layout = Layout(answer.extents, answer.holders, answer.deferred)
            if not self._invalidations.has_changed(file.ino, mark):
                if answer.size <= WINDOW:
                    file.layouts.learn_whole(layout)
                else:
                    file.layouts.learn_window(start, layout)
                break  # else it may lack what was committed here, and is not in the overlay any more
        return layout, start + WINDOW

    async def _fetch(
        self, layout: Layout, wanted: Sequence[tuple[tuple[int, int], list[Extent]]], window: int
    ) -> list[tuple[int, Buffer]]:
        """The bytes of the gaps, holes as zeros; by offset."""
        parts: list[tuple[int, Buffer | tuple[Piece, int, int]]] = []
        for (start, end), extents in wanted:
            position = start
            for extent in extents:
                parts += _zeros(position, extent.offset)
                if (deferred := layout.deferred(extent.block)) is None:
                    parts += self._pieces(layout, extent, window)
                else:
                    parts.append((extent.offset, await self._deferred(extent, deferred)))
                position = extent.end
            parts += _zeros(position, end)
        return [(at, part if not isinstance(part, tuple) else await _slice(*part)) for at, part in parts]

    async def _deferred(self, extent: Extent, data: bytes) -> memoryview:
        """The extent's bytes of a block that is `data`, or that the namenode has. Raises NotFound where it has not."""
        if not data:
            answer = await self._session.call(wire.ReadDeferred(extent.block))
            assert isinstance(answer, wire.Value)
            data = answer.value
        return memoryview(data)[extent.block_offset : extent.block_offset + extent.length]

    def _pieces(
        self, layout: Layout, extent: Extent, window: int
    ) -> Iterator[tuple[int, tuple[Piece, int, int]]]:
        """The pieces of blocks that make up an extent, asked for where they are not here."""
        position, end = extent.block_offset, extent.block_offset + extent.length
        while position < end:
            piece = self._cache.find(extent.block, position)
            if piece is None:
                upto = min(max(end, position + window), position + _FETCH)
                grain = UNIT if window or upto - position >= UNIT else PAGE
                piece = self._cache.start(extent.block, position, upto, layout.holders(extent.block), grain)
            upto = min(end, piece.start + piece.length)
            yield extent.offset + position - extent.block_offset, (piece, position, upto)
            position = upto

    def _prefetch(self, file: File, start: int, end: int) -> None:
        """Have what follows on its way, as far as it is known where it lies; in requests of full length."""
        if end < file.attr.size:
            end = end // _FETCH * _FETCH
        known = file.layouts.find(start) if start < end else None
        if known is None:
            return
        layout, known_to = known
        for extent in layout.find(start, min(end, known_to)):
            if layout.deferred(extent.block) is not None:
                continue
            position, block_end = extent.block_offset, extent.block_offset + extent.length
            while position < block_end:
                piece = self._cache.find(extent.block, position)
                if piece is None:
                    upto = min(block_end, position + _FETCH)
                    piece = self._cache.start(extent.block, position, upto, layout.holders(extent.block), UNIT)
                position = piece.start + piece.length


def _is_in_order(handle: OpenFile, offset: int) -> bool:
    near = _NEAR if handle.window else _NEAR_FIRST
    return -near <= offset - handle.next_offset <= near


def _tell(piece: Piece, start: int, end: int, file: File, done: ReadDone) -> None:
    """The piece is settled."""
    found: Buffer | DfsError | None = None
    if piece.error is None:
        try:
            found = piece.part(start, end)
        except InputOutput as short:
            found = short
    elif isinstance(piece.error, DfsError) and not isinstance(piece.error, NotFound):
        found = piece.error
    else:
        file.layouts.forget()  # the block went, because somebody has written over it: the layout is an old one
    done(found)


async def _slice(piece: Piece, start: int, end: int) -> memoryview:
    """Bytes [start, end) of the block. Raises what fetching them raised."""
    if piece.data is None:
        await piece.arrival()
        if (error := piece.error) is not None:
            raise error if not isinstance(error, DfsError) else error.again()
    return piece.part(start, end)


def _zeros(start: int, end: int) -> Iterator[tuple[int, Buffer]]:
    while start < end:
        length = min(end - start, len(_ZEROS))
        yield start, _ZEROS[:length]
        start += length


def _gaps(written: Sequence[tuple[int, Buffer]], start: int, end: int) -> Iterator[tuple[int, int]]:
    for offset, data in written:
        if start < offset:
            yield start, offset
        start = offset + len(data)
    if start < end:
        yield start, end
