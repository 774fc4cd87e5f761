"""Open directories: listings that go on where they were, whatever happens to the directory meanwhile."""

from __future__ import annotations

import asyncio
from array import array
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from dfslib.errors import InvalidArgument
from dfslib.model import Attr, Entry, FileType, InodeId
from dfslib.mount.filesystem import DirectoryEntry
from dfslib.mount.invalidations import Invalidations

_PAGE_FIRST: Final = 64
_PAGE_MOST: Final = 2048
_ANSWER: Final = 512
"""Entries given to the kernel at a time; it takes as many as fit."""
_DOTS: Final = 2
_KNOWN_MAX: Final = 1024

Fetch = Callable[[InodeId, bytes, int], Awaitable[tuple[list[Entry], bool]]]
"""(directory, behind this name, how many) -> entries sorted by name, and whether more follow"""


class _Names:
    """Names in the order in which they were given, in one piece of memory: a cookie is a place here."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._ends = array("Q")

    def __len__(self) -> int:
        return len(self._ends)

    def append(self, name: bytes) -> None:
        self._text += name
        self._ends.append(len(self._text))

    def last_before(self, count: int) -> bytes:
        """The last of the first `count` names; b"" of none."""
        if not count:
            return b""
        start = self._ends[count - 2] if count > 1 else 0
        return bytes(self._text[start : self._ends[count - 1]])

    def cut(self, count: int) -> None:
        del self._ends[count:]
        del self._text[self._ends[-1] if self._ends else 0 :]


class Directories:
    """Attributes of directories that were changed here, as the answers told: the kernel asks for them after each
    change."""

    def __init__(self, invalidations: Invalidations) -> None:
        self._invalidations = invalidations
        self._known: OrderedDict[InodeId, tuple[Attr, int]] = OrderedDict()

    def learn(self, attrs: Sequence[Attr], mark: int) -> None:
        """Told in an answer; the mark was taken before it was asked for."""
        for attr in attrs:
            self._known[attr.ino] = (attr, mark)
            self._known.move_to_end(attr.ino)
        while len(self._known) > _KNOWN_MAX:
            self._known.popitem(last=False)

    def find(self, ino: InodeId) -> Attr | None:
        """None where it may have changed since."""
        known = self._known.get(ino)
        return None if known is None or self._invalidations.has_changed(ino, known[1]) else known[0]

    def forget(self) -> None:
        self._known.clear()


class OpenDirectory:
    """`changes`: counts what may make fetched entries wrong; entries from before a change are fetched again."""

    def __init__(self, ino: InodeId, fetch: Fetch, changes: Callable[[], int]) -> None:
        self.ino = ino
        self._fetch = fetch
        self._changes = changes
        self._names = _Names()
        self._page: list[Entry] = []
        self._page_at = 0
        """The place of the page's first entry."""
        self._more = True
        self._fetched_at = -1
        self._limit = _PAGE_FIRST
        self._turn = asyncio.Lock()

    async def begin(self) -> None:
        """Fetch the first entries, of which the first `read` makes use."""
        await self._entries(0)

    async def read(self, cookie: int, own: Attr) -> list[DirectoryEntry]:
        """Some entries behind the cookie, none at the end. `own`: the directory's attributes. Raises
        InvalidArgument for a cookie that was never given."""
        async with self._turn:  # two that read the same open directory would mix the places of its names
            return await self._read(cookie, own)

    async def _read(self, cookie: int, own: Attr) -> list[DirectoryEntry]:
        if not 0 <= cookie <= len(self._names) + _DOTS:
            raise InvalidArgument(f"no entry of this directory has the place {cookie}")
        found = [DirectoryEntry(name, attr, place) for name, attr, place in _dots(own) if place > cookie]
        place = max(0, cookie - _DOTS)
        if place != len(self._names):
            self._names.cut(place)
        if place == 0:
            self._limit = _PAGE_FIRST
        entries = await self._entries(place)
        for entry in entries[:_ANSWER]:
            self._names.append(entry.name)
            found.append(DirectoryEntry(entry.name, entry.attr, len(self._names) + _DOTS))
        return found

    async def _entries(self, place: int) -> list[Entry]:
        """Those from `place` on, as fresh as the last change."""
        offset = place - self._page_at
        current = self._fetched_at == self._changes()
        if current and offset >= 0 and (offset < len(self._page) or not self._more):
            return self._page[offset:]
        self._limit = min(_PAGE_MOST, self._limit * 4) if current else _PAGE_FIRST
        changes = self._changes()
        after = self._names.last_before(place)
        entries, more = await self._fetch(self.ino, after, self._limit)
        self._page, self._page_at, self._more, self._fetched_at = entries, place, more, changes
        return entries


def _dots(own: Attr) -> list[tuple[bytes, Attr, int]]:
    parent = Attr(own.parent or own.ino, FileType.DIRECTORY, 0o755)
    return [(b".", own, 1), (b"..", parent, 2)]
