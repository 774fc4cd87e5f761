"""What the kernel may have cached of this mount, and how it hears that it is wrong."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from dfslib.model import InodeId
from dfslib.mount.filesystem import Notifier
from dfslib.mount.invalidations import Invalidations
from dfslib.runtime.tasks import Tasks
from dfslib.wire.session import Invalidate

CACHE_S: Final = 60.0
"""Attributes and names are kept for so long, because changes of others are pushed. Bounds for how long a name that
changed while the namenode was away may live on, in kernels that cannot be told to drop all names."""
_SETTLING_S: Final = 1.0
"""A program may be on its way through names that were dropped this short a time ago."""
_RETRY_S: Final = 0.1
_TAKEN_S: Final = (0.05, 1.0)
"""By then a program has taken the answer to its lookup: mostly, and as good as surely."""
_LOOKUPS_KEPT: Final = 4096


class KernelCache:
    """`monotonic`: seconds."""

    def __init__(self, invalidations: Invalidations, tasks: Tasks, monotonic: Callable[[], float]) -> None:
        self._invalidations = invalidations
        self._tasks = tasks
        self._monotonic = monotonic
        self._notifier: Notifier | None = None
        self._pages: dict[InodeId, int] = {}
        """The version of which the kernel's pages of an inode are, where that is known."""
        self._names_dropping = 0
        self._names_changed_s = -_SETTLING_S
        self._names_suspect_until_s = 0.0
        self._lookups: OrderedDict[InodeId, int] = OrderedDict()
        """Inodes that a lookup led to lately, with the mark from before it."""
        self._refused = 0
        self._refused_s = -_RETRY_S
        self._retry_expected = False

    def attach(self, notifier: Notifier) -> None:
        self._notifier = notifier

    # Changes of others.

    def others_changed(self, push: Invalidate) -> None:
        for ino in push.contents:
            self._pages.pop(ino, None)
            self.drop_inode(ino)
        for ino in push.attributes:
            if self._notifier is not None:
                self._notify(self._notifier.invalidate_inode(ino, attributes_only=True))
        for parent, name in push.names:
            self._names_changed_s = self._monotonic()
            if self._notifier is not None:
                self._names_dropping += 1
                self._notify(self._drop_name(self._notifier, parent, name))

    def attributes_are_old(self, ino: InodeId) -> None:
        """An answer that the kernel is being given now has attributes from before a change. When it has taken them it
        does not say; so it is told twice."""
        self._tasks.spawn(self._drop_attributes_soon(ino), "drop attributes")

    async def _drop_attributes_soon(self, ino: InodeId) -> None:
        for delay_s in _TAKEN_S:
            await asyncio.sleep(delay_s)
            if self._notifier is not None:
                await self._notifier.invalidate_inode(ino, attributes_only=True)

    def drop_inode(self, ino: InodeId) -> None:
        """Its attributes and pages are not what it is."""
        self._pages.pop(ino, None)
        if self._notifier is not None:
            self._notify(self._notifier.invalidate_inode(ino))

    def drop_all(self) -> None:
        """From here on nobody tells of changes. Names, where they cannot be dropped, are suspect until the kernel
        asks for them again by itself."""
        self._pages.clear()
        self._names_suspect_until_s = float("inf")
        if self._notifier is not None:
            self._notify(self._notifier.invalidate_all())

    def connected(self) -> None:
        """Changes are told of again."""
        if self._names_suspect_until_s == float("inf"):
            self._names_suspect_until_s = self._monotonic() + CACHE_S

    async def _drop_name(self, notifier: Notifier, parent: InodeId, name: bytes) -> None:
        try:
            await notifier.invalidate_entry(parent, name)
        finally:
            self._names_dropping -= 1

    def _notify(self, notification: Awaitable[None]) -> None:
        async def wait() -> None:
            await notification

        self._tasks.spawn(wait(), "notify kernel")

    # Pages.

    def opened(self, ino: InodeId, version: int) -> bool:
        """Whether the pages that the kernel has are those of this version; from now on it has no others."""
        known = self._pages.get(ino)
        self._pages[ino] = version
        return known == version

    def changed_here(self, ino: InodeId, version: int) -> None:
        """This mount made the version; the kernel's pages went along."""
        if ino in self._pages:
            self._pages[ino] = version

    def forget(self, ino: InodeId) -> None:
        self._pages.pop(ino, None)
        self._lookups.pop(ino, None)

    # Names that led to an open(2).

    def looked_up(self, ino: InodeId, mark: int) -> None:
        """A name was looked up, after the mark was taken, and led to this inode."""
        self._lookups[ino] = mark
        self._lookups.move_to_end(ino)
        if len(self._lookups) > _LOOKUPS_KEPT:
            self._lookups.popitem(last=False)

    def not_found(self) -> None:
        """A name was looked up and is not there: the open that it was for does not come."""
        self._retry_expected = False

    def now_s(self) -> float:
        return self._monotonic()

    def refuse_open(self, ino: InodeId, asked_s: float) -> bool:
        """Whether the name that led a program to this inode may have been changed by others before it came here,
        at `asked_s`.

        If so, the caller answers ESTALE, and the kernel looks the whole path up again, and opens again, once. So the
        one that follows a refusal, after a lookup, is not refused.
        """
        now = self._monotonic()
        suspect = (
            self._names_dropping > 0
            or now - self._names_changed_s < _SETTLING_S
            or now < self._names_suspect_until_s
        )
        if not suspect:
            return False
        looked_up = self._lookups.get(ino, -1)
        if looked_up >= self._invalidations.last_name:
            return False
        if self._retry_expected and asked_s - self._refused_s < _RETRY_S and looked_up >= self._refused:
            self._retry_expected = False
            return False
        self._refused, self._refused_s, self._retry_expected = self._invalidations.now(), now, True
        return True

