"""Names that the kernel was given, where they lead, and which inodes it may have reached by names that are no more.

The kernel walks along the names that it has. When others change one, a program may have passed it already, or pass it
until the kernel has dropped it. Suspect is what that name led to, and all that lies below; nothing else is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from dfslib.model import ROOT, InodeId

_SETTLING_S: Final = 1.0
"""A program may be on its way through a name that was dropped this short a time ago."""
_KEPT: Final = 1 << 16
"""Some 350 bytes each."""

_Name = tuple[InodeId, bytes]


class _Suspicion:
    __slots__ = ("dropping", "until_s")

    def __init__(self) -> None:
        self.dropping = 0
        self.until_s = 0.0


class Names:
    """`monotonic`: seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._leads_to: OrderedDict[_Name, InodeId] = OrderedDict()
        self._names: dict[InodeId, tuple[_Name, ...]] = {}
        self._evicted = False
        """The kernel may know names that are not here."""
        self._suspicions: dict[InodeId | None, _Suspicion] = {}
        """Under None: of what a name led to that is not here."""
        self._all_until_s = 0.0

    # What the kernel knows.

    def learn(self, parent: InodeId, name: bytes, ino: InodeId) -> None:
        """The kernel is given this name, or has made it itself."""
        key = (parent, name)
        if self._leads_to.get(key) != ino:
            self.remove(parent, name)
            self._leads_to[key] = ino
            self._names[ino] = (*self._names.get(ino, ()), key)
            if len(self._leads_to) > _KEPT:
                self.remove(*next(iter(self._leads_to)))
                self._evicted = True
        self._leads_to.move_to_end(key)

    def remove(self, parent: InodeId, name: bytes) -> InodeId | None:
        """The kernel knows this name no more; where it led."""
        ino = self._leads_to.pop((parent, name), None)
        if ino is not None:
            left = tuple(one for one in self._names[ino] if one != (parent, name))
            if left:
                self._names[ino] = left
            else:
                del self._names[ino]
        return ino

    def move(self, old: _Name, new: _Name, *, exchange: bool) -> None:
        """This mount has renamed something, and the kernel knows."""
        moved, replaced = self.remove(*old), self.remove(*new)
        if moved is not None:
            self.learn(*new, moved)
        if exchange and replaced is not None:
            self.learn(*old, replaced)

    def forget(self, ino: InodeId) -> None:
        """The kernel knows the inode no more, nor any of its names."""
        for key in self._names.pop(ino, ()):
            del self._leads_to[key]

    # What others have changed.

    def changed(self, parent: InodeId, name: bytes) -> InodeId | None:
        """Others have changed the name. What it led to is suspect until `dropped` is told the same, and a moment
        longer."""
        ino = self.remove(parent, name)
        if ino is not None or self._evicted:
            self._suspicions.setdefault(ino, _Suspicion()).dropping += 1
        return ino

    def dropped(self, ino: InodeId | None) -> None:
        """The kernel has dropped a name that led there."""
        if (suspicion := self._suspicions.get(ino)) is not None and suspicion.dropping:
            suspicion.dropping -= 1
            suspicion.until_s = self._monotonic() + _SETTLING_S

    def everything_changed(self, until_s: float) -> None:
        """Until then, on the monotonic clock, nothing that the kernel knows can be trusted."""
        self._all_until_s = until_s

    @property
    def nothing_is_known(self) -> bool:
        """Whether that is so for as long as nobody says otherwise."""
        return self._all_until_s == float("inf")

    def are_suspect(self, ino: InodeId, links: int = 1) -> bool:
        """Whether a program may have come to this inode, which has so many links, by a name that others have changed:
        its own, or one of a directory on the way."""
        now_s = self._monotonic()
        if now_s < self._all_until_s:
            return ino != ROOT
        for old in [one for one, why in self._suspicions.items() if not why.dropping and why.until_s <= now_s]:
            del self._suspicions[old]
        if not self._suspicions:
            return False
        seen = {ROOT}
        pending = [ino]
        while pending:
            one = pending.pop()
            if one in seen:
                continue
            seen.add(one)
            names = self._names.get(one, ())
            if one in self._suspicions or (None in self._suspicions and len(names) < (links if one == ino else 1)):
                return True
            pending += [parent for parent, _ in names]
        return False
