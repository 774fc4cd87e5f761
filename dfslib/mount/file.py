"""An inode that this mount has open: what is known of it, and who has it open."""

from __future__ import annotations

from dfslib.errors import DfsError
from dfslib.model import Attr, InodeId
from dfslib.mount.layout import Layouts


class OpenFile:
    """What one open(2) made. `may_map`: it can be mapped into memory and written there. `error`: what became of writes
    that had been taken, told once. `wrote`: whether some of them came through this. `fenced`: why nothing goes through
    it any more, told each time."""

    def __init__(self, file: File, *, may_map: bool = False) -> None:
        self.file = file
        self.may_map = may_map
        self.error: DfsError | None = None
        self.fenced: DfsError | None = None
        self.wrote = False
        self.read_from = False
        self.next_offset = 0
        self.window = 0
        """Bytes to read ahead; grows while it is read in order."""

    def check(self) -> None:
        """Raise why nothing goes through it any more, where that is so."""
        if self.fenced is not None:
            self.raise_error()

    def raise_error(self, waited_for: DfsError | None = None) -> None:
        """Raise what is to be told, and has been told then; else what was lost while the caller waited for it, which
        another call through this handle may have been told."""
        error, self.error = self.fenced or self.error or waited_for, None
        if error is not None:
            raise error.again()


class File:
    """`attr`: as the namenode had it last; `fresh` False where others have changed it since. `opens`: how often
    the namenode counts it as open for us."""

    def __init__(self, ino: InodeId, attr: Attr) -> None:
        self.ino = ino
        self.attr = attr
        self.fresh = True
        self.layouts = Layouts()
        self.handles: set[OpenFile] = set()
        self.opens = 0
        self._unsynced = 1
        self._synced = 0
        self.losses = 0
        """How often something that had been taken was lost."""
        self.last_loss: DfsError | None = None
        self.was_fenced = False

    def learn(self, attr: Attr, *, fresh: bool) -> None:
        """`fresh` False: others have changed it while the answer was on its way."""
        self.attr = attr
        self.fresh = fresh

    @property
    def unsynced(self) -> bool:
        """Whether something of it may be in the datanodes' memory only."""
        return self._synced < self._unsynced

    def committed_unsynced(self) -> None:
        self._unsynced += 1

    def begin_sync(self) -> int:
        """What `synced` is to be told when all that is committed now is on disks."""
        return self._unsynced

    def synced(self, begun: int) -> None:
        self._synced = max(self._synced, begun)

    def fail(self, error: DfsError) -> None:
        """Something that had been taken is lost: everybody who has the file open is to hear of it. What the namenode
        has is all there is."""
        self.losses += 1
        self.last_loss = error
        self.fresh = False
        self.layouts.forget()
        for handle in self.handles:
            handle.error = error

    def fence(self, error: DfsError) -> None:
        """Nothing goes through those who have it open now any more."""
        self.fail(error)
        self.was_fenced = True
        for handle in self.handles:
            handle.fenced = error

    @property
    def untold(self) -> DfsError | None:
        """What was lost, as long as somebody who wrote has not heard of it."""
        return next((handle.error for handle in self.handles if handle.wrote and handle.error is not None), None)
