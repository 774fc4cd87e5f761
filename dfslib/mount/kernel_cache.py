"""What the kernel may have cached of this mount, and how it hears that it is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from dfslib.model import InodeId
from dfslib.mount.filesystem import Notifier
from dfslib.mount.names import Names
from dfslib.runtime.tasks import Tasks
from dfslib.wire.session import Invalidate

CACHE_S: Final = 60.0
"""Attributes and names are kept for so long, because changes of others are pushed. Bounds for how long a name that
changed while the namenode was away may live on, in kernels that cannot be told to drop all names."""
_TELLING_S: Final = 60.0
"""A notification waits for reads of the same pages, and these for datanodes."""
_TAKEN_S: Final = (0.05, 1.0)
"""By then a program has taken the answer to its lookup: mostly, and as good as surely."""


class KernelCache:
    """`monotonic`: seconds."""

    def __init__(self, tasks: Tasks, monotonic: Callable[[], float]) -> None:
        self.names = Names(monotonic)
        self._tasks = tasks
        self._monotonic = monotonic
        self._notifier: Notifier | None = None
        self._pages: dict[InodeId, int] = {}
        """The version of which the kernel's pages of an inode are, where that is known."""
        self._telling: dict[InodeId, asyncio.Task[None]] = {}
        """The last notification of each inode that is under way; they are written in order."""

    def attach(self, notifier: Notifier) -> None:
        self._notifier = notifier

    # Changes of others.

    def others_changed(self, push: Invalidate) -> None:
        for ino in push.contents:
            self.drop_inode(ino)
        for ino in push.attributes:
            self.drop_attributes(ino)
        for parent, name in push.names:
            led_to = self.names.changed(parent, name)
            if self._notifier is None:
                self.names.dropped(led_to)
            else:
                self._tasks.spawn(self._drop_name(self._notifier.invalidate_entry(parent, name), led_to), "drop name")

    def drop_attributes(self, ino: InodeId) -> None:
        if self._notifier is not None:
            self._tell(ino, self._notifier.invalidate_inode(ino, attributes_only=True))

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
            self._tell(ino, self._notifier.invalidate_inode(ino))

    def drop_all(self) -> None:
        """From here on nobody tells of changes. Names, where they cannot be dropped, are suspect until the kernel
        asks for them again by itself."""
        self._pages.clear()
        self.names.everything_changed(float("inf"))
        if self._notifier is not None:
            self._tasks.spawn(_until_done(self._notifier.invalidate_all()), "notify kernel")

    def connected(self) -> None:
        """Changes are told of again."""
        if self.names.nothing_is_known:
            self.names.everything_changed(self._monotonic() + CACHE_S)

    async def _drop_name(self, dropping: Awaitable[None], led_to: InodeId | None) -> None:
        try:
            await dropping
        finally:
            self.names.dropped(led_to)

    def name_is_old(self, parent: InodeId, name: bytes) -> None:
        """An answer that the kernel is being given now has a name from before a change: as `attributes_are_old`."""
        self._tasks.spawn(self._drop_name_soon(parent, name, self.names.changed(parent, name)), "drop old name")

    async def _drop_name_soon(self, parent: InodeId, name: bytes, led_to: InodeId | None) -> None:
        try:
            for delay_s in _TAKEN_S:
                await asyncio.sleep(delay_s)
                if self._notifier is not None:
                    await self._notifier.invalidate_entry(parent, name)
        finally:
            self.names.dropped(led_to)

    def _tell(self, ino: InodeId, telling: Awaitable[None]) -> None:
        task = self._tasks.spawn(_until_done(telling), "notify kernel")
        self._telling[ino] = task
        task.add_done_callback(lambda _: self._told(ino, task))

    def _told(self, ino: InodeId, task: asyncio.Task[None]) -> None:
        if self._telling.get(ino) is task:
            del self._telling[ino]

    async def has_been_told(self, ino: InodeId) -> bool:
        """Return when the kernel has dropped what it was told to drop of the inode: what it asks of it after this is
        fresh. False where that takes too long. Not to be waited for while the kernel holds a directory, of which it may
        have to drop a name first."""
        if (task := self._telling.get(ino)) is None:
            return True
        done, _ = await asyncio.wait([task], timeout=_TELLING_S)
        return bool(done)

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
        self.names.forget(ino)


async def _until_done(telling: Awaitable[None]) -> None:
    await telling
