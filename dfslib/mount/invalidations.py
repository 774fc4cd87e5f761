"""What has changed lately, so that an answer that was on its way meanwhile is not taken for fresh.

The namenode says what others changed before it answers whatever it sees after the change; an answer that was made
before may still come behind. So whoever wants to keep an answer takes a mark before it asks, and looks here after.
"""

from __future__ import annotations

from typing import Final

from dfslib.model import InodeId

_KEPT: Final = 8192


class Invalidations:
    def __init__(self) -> None:
        self._count = 0
        self._inodes: dict[InodeId, int] = {}
        self._by_others: dict[InodeId, int] = {}
        self._floor = 0
        """Of changes up to this one nothing is known any more."""
        self._names: dict[tuple[InodeId, bytes], int] = {}
        self._names_floor = 0

    def now(self) -> int:
        """A mark: changes from here on are behind it."""
        return self._count

    def changed(self, ino: InodeId) -> None:
        """Somebody, perhaps this mount, has changed the inode."""
        self._count += 1
        self._inodes.pop(ino, None)
        self._inodes[ino] = self._count
        if len(self._inodes) > _KEPT:
            self._floor = self._inodes.pop(next(iter(self._inodes)))

    def changed_by_others(self, ino: InodeId) -> None:
        """The namenode said so; or it was told that this inode is not cached here any more, and says nothing."""
        self.changed(ino)
        self._by_others.pop(ino, None)
        self._by_others[ino] = self._count
        if len(self._by_others) > _KEPT:
            del self._by_others[next(iter(self._by_others))]

    def name_changed(self, parent: InodeId, name: bytes) -> None:
        """By others."""
        self._count += 1
        self._names.pop((parent, name), None)
        self._names[parent, name] = self._count
        if len(self._names) > _KEPT:
            self._names_floor = self._names.pop(next(iter(self._names)))

    def all_changed(self) -> None:
        """Nothing is known for a while."""
        self._count += 1
        self._floor = self._names_floor = self._count
        self._names.clear()
        self._inodes.clear()
        self._by_others.clear()

    def has_changed(self, ino: InodeId, mark: int) -> bool:
        """Whether it may have changed since the mark was taken."""
        return self._floor > mark or self._inodes.get(ino, 0) > mark

    def name_has_changed(self, parent: InodeId, name: bytes, mark: int) -> bool:
        """Whether others may have changed where it leads since the mark was taken."""
        return self._names_floor > mark or self._names.get((parent, name), 0) > mark

    def others_have_changed(self, ino: InodeId, mark: int) -> bool:
        """Whether others may have, as far as that is known."""
        return self._by_others.get(ino, 0) > mark
