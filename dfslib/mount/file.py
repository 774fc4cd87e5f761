"""An inode that this mount has open: what is known of it, and who has it open."""

from __future__ import annotations

from dfslib.errors import DfsError
from dfslib.model import Attr, InodeId
from dfslib.mount.layout import Layouts


class OpenFile:
    """What one open(2) made. `error`: what became of writes that had been taken, told once."""

    def __init__(self, file: File, *, append: bool) -> None:
        self.file = file
        self.append = append
        self.error: DfsError | None = None
        self.read_from = False
        self.next_offset = 0
        self.window = 0
        """Bytes to read ahead; grows while it is read in order."""

    def raise_error(self) -> None:
        if self.error is not None:
            error, self.error = self.error, None
            raise error


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
        self.unsynced = True
        """Something of it may be in the datanodes' memory only."""

    def learn(self, attr: Attr, *, fresh: bool) -> None:
        """`fresh` False: others have changed it while the answer was on its way."""
        self.attr = attr
        self.fresh = fresh

    def fail(self, error: DfsError) -> None:
        """Something that had been taken is lost: everybody who has the file open is to hear of it."""
        for handle in self.handles:
            handle.error = error
