"""The blocks of a volume: find, share, list, delete, quarantine, count and miss them.

Making new ones is `block_writer`'s, the format of their files `block_file`'s. All methods block on the disk
unless they say otherwise, and may be called from any thread.

Locks: `_names` is held while a name below blocks/ changes (rename, unlink), so that "is it there" and
"put it there" are one step. `_tables` guards the dictionaries below, never during a system call that waits
for the disk, so that the event loop may take it. `_names` is taken before `_tables`, never after.
"""

from __future__ import annotations

import enum
import logging
import mmap
import os
import threading
import time
from array import array
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dfslib.datanode.store.block_check import BlockCheck
from dfslib.datanode.store.block_file import BadBlock
from dfslib.datanode.store.block_index import DIRECTORIES, BlockIndex, directory_number
from dfslib.datanode.store.listing import Listing
from dfslib.datanode.store.open_block import OpenBlock
from dfslib.datanode.store.unsynced import Unsynced
from dfslib.errors import DfsError, InputOutput, NoSpace, NotFound, Unavailable
from dfslib.model import BlockId, format_block, parse_block
from dfslib.runtime.durable_files import DirectorySync, sync_directory
from dfslib.runtime.logs import event

log = logging.getLogger("dfs.store")

_OPEN_MAX: Final = 256
"""Blocks kept open for the next reader; below the usual limit of 1,024 file descriptors, with sockets."""


@dataclass(frozen=True)
class Usage:
    """Bytes, and a number of blocks. `free` leaves out what is reserved."""

    capacity: int
    used: int
    free: int
    blocks: int


class Finding(enum.Enum):
    """What turned out to be other than it should be."""

    BAD = "bad"
    """A block's file does not hold what it should; it is in the quarantine."""
    MISSING = "missing"
    """A block's file has vanished."""
    UNEXPECTED = "unexpected"
    """A file with a block's name has appeared that was not written here; it may be a good block."""
    UNSYNCED = "unsynced"
    """The disk failed before a block was surely on it."""


class WriteIntent:
    """A block that is being received or copied. `cancelled`: it was deleted meanwhile, or nobody waits for it any
    more; then it must not appear."""

    def __init__(self, block: BlockId) -> None:
        self.block = block
        self.cancelled = False


class BlockStore:
    def __init__(
        self,
        root: Path,
        reserved_bytes: int,
        *,
        clock: Callable[[], int] = time.time_ns,
        on_finding: Callable[[BlockId, Finding], None] = lambda block, finding: None,
    ) -> None:
        """Open the store of a volume: remove half-written blocks, count the whole ones.

        `on_finding` is told what is found, once, from whichever thread found it.
        """
        self.clock = clock
        self.tmp: Final = root / "tmp"
        self._root: Final = root
        self._directories: Final = [root / "blocks" / f"{number:02x}" for number in range(DIRECTORIES)]
        self._quarantine: Final = root / "quarantine"
        self._reserved: Final = reserved_bytes
        self._on_finding = on_finding
        self._names = threading.Lock()
        self._tables = threading.Lock()
        self._open: OrderedDict[BlockId, OpenBlock] = OrderedDict()
        self._pins: Counter[BlockId] = Counter()
        self._doomed: set[BlockId] = set()
        self._intents: dict[BlockId, set[WriteIntent]] = {}
        self._removals = 0
        """Counts names taken away: a block opened while one was is not kept open, it may be that one."""
        self._listings: list[Listing] = []
        self.unsynced: Final = Unsynced()
        self._index = BlockIndex()
        for entry in self.tmp.iterdir():
            entry.unlink()  # not renamed, so nobody was told that it is stored
        for directory in self._directories:
            directory.mkdir(exist_ok=True)
        sync_directory(root / "blocks")
        self._directory_syncs: Final = [DirectorySync(directory) for directory in self._directories]
        for number in range(DIRECTORIES):
            self._index.fill(number, self._scan(number, with_sizes=True))

    # Finding and sharing

    def path(self, block: BlockId) -> Path:
        return self.directory(block) / format_block(block)

    def directory(self, block: BlockId) -> Path:
        """Where the block's name stands."""
        return self._directories[directory_number(block)]

    def __contains__(self, block: BlockId) -> bool:
        """Whether the block is here, as far as anyone has noticed. Never waits for the disk."""
        with self._tables:
            return block in self._index

    def acquire(self, block: BlockId) -> OpenBlock:
        """The block, open and pinned until `release`. Raises NotFound, or BadBlock after quarantining it."""
        opened = self.acquire_if_open(block)
        if opened is not None:
            return opened
        removals = self._removals
        path = self.path(block)
        try:
            opened = OpenBlock(block, path)
        except FileNotFoundError:
            self._miss(block)
            raise NotFound(f"block {format_block(block)} is not on this datanode") from None
        except BadBlock as error:
            self._to_quarantine(block, error, None)
            raise
        except OSError as error:  # too many open files, no permission: the block may be good
            raise InputOutput(f"block {format_block(block)} cannot be opened: {error}") from error
        with self._tables:
            other = self._open.get(block)
            if other is not None:
                opened.close()
                opened = other
            elif removals == self._removals:
                self._open[block] = opened
                opened.cached = True
                self._close_oldest()
            opened.references += 1
            self._pins[block] += 1
        return opened

    def acquire_if_open(self, block: BlockId) -> OpenBlock | None:
        """As `acquire` where the block is open already, and its file as it was; never waits for the disk."""
        with self._tables:
            opened = self._open.get(block)
            if opened is None:
                return None
            if not opened.is_whole():
                self._forget(block)  # `acquire` is going to find out what has happened to it
                return None
            self._open.move_to_end(block)
            opened.references += 1
            self._pins[block] += 1
            return opened

    def release(self, opened: OpenBlock) -> None:
        with self._tables:
            opened.references -= 1
            if not opened.references and not opened.cached:
                opened.close()
        self._unpin([opened.block])

    @contextmanager
    def opened(self, block: BlockId) -> Iterator[OpenBlock]:
        """`acquire` and `release`; a BadBlock raised inside quarantines the block."""
        opened = self.acquire(block)
        try:
            yield opened
        except BadBlock as error:
            self.quarantine(opened, error)
            raise
        finally:
            self.release(opened)

    @contextmanager
    def pinned(self, blocks: set[BlockId]) -> Iterator[None]:
        """Keep these from being deleted meanwhile, whether they are here or not. Does not wait for the disk
        unless one of them was to be deleted."""
        with self._tables:
            self._pins.update(blocks)
        try:
            yield
        finally:
            self._unpin(blocks)

    def _unpin(self, blocks: set[BlockId] | list[BlockId]) -> None:
        free: list[BlockId] = []
        with self._tables:
            for block in blocks:
                if self._pins[block] > 1:
                    self._pins[block] -= 1
                    continue
                del self._pins[block]
                if block in self._doomed:
                    free.append(block)
        for block in free:
            self._delete(block, only_doomed=True)

    def _close_oldest(self) -> None:
        """Under `_tables`."""
        for block in list(self._open):
            if len(self._open) <= _OPEN_MAX:
                break
            self._forget(block)

    def _forget(self, block: BlockId) -> None:
        """Under `_tables`: do not give this open file to anyone else; close it when nobody has it."""
        opened = self._open.pop(block, None)
        if opened is not None:
            opened.cached = False
            if not opened.references:
                opened.close()

    # Taking away

    def delete(self, block: BlockId) -> bool:
        """Delete a block, now or as soon as nobody is being served it. False where it is not here.

        Not synced: a name that comes back after a power cut is reported, and deleted again.
        """
        return self._delete(block, only_doomed=False)

    def _delete(self, block: BlockId, *, only_doomed: bool) -> bool:
        """`only_doomed`: not where that was taken back meanwhile, or somebody is served it again."""
        with self._names:
            path = self.path(block)
            with self._tables:
                if only_doomed and (block not in self._doomed or self._pins[block]):
                    return False
                for intent in self._intents.get(block, ()):
                    intent.cancelled = True
                if self._pins[block] and path.exists():
                    self._doomed.add(block)
                    return True
                self._pins.pop(block, None)  # Counter keeps a zero that was looked at
                self._doomed.discard(block)
                self._removals += 1
                self._forget(block)
            try:
                path.unlink()
                found = True
            except FileNotFoundError:
                found = False
            with self._tables:
                self._index.remove(block)
            self.unsynced.gone(block)
            return found

    def quarantine(self, opened: OpenBlock | BlockCheck, error: BadBlock) -> None:
        """Take an open block that turned out bad out of use; its file is kept for a person to look at."""
        self._to_quarantine(opened.block, error, opened.inode())

    def give_up(self, block: BlockId, error: DfsError) -> None:
        """Take a block out of use that cannot be made durable; its file is kept, as long as the memory has it."""
        self._to_quarantine(block, error, None, Finding.UNSYNCED)

    def _to_quarantine(
        self, block: BlockId, error: BadBlock | DfsError, inode: int | None, finding: Finding = Finding.BAD
    ) -> None:
        path = self.path(block)
        kept = self._quarantine / f"{format_block(block)}.{self.clock()}"
        with self._names:
            with self._tables:
                self._removals += 1
                self._forget(block)
            try:
                if inode is not None and path.stat().st_ino != inode:
                    return  # a good copy has taken its place already
                path.rename(kept)
                # Else a power cut brings the bad block back, after its repair was thought unneeded.
                sync_directory(self._quarantine)
                self._sync_names(block)
            except FileNotFoundError:
                return  # another reader has found it first
            except OSError as failure:
                # It is not served all the same, and the namenode has to know.
                log.error(event("bad block cannot be moved", block=format_block(block), reason=failure))  # noqa: TRY400
            with self._tables:
                self._index.remove(block)
            self.unsynced.lost(block)
        log.error(event(f"{finding.value} block quarantined", block=format_block(block), reason=error, kept=kept))
        self._on_finding(block, finding)

    def _miss(self, block: BlockId) -> None:
        """Note that a block's file is not there, if it should be."""
        with self._names:  # nobody is deleting or publishing it now
            if self.path(block).exists():
                return
            with self._tables:
                if not self._index.remove(block):
                    return
                self._doomed.discard(block)
                self._forget(block)
            self.unsynced.lost(block)
        log.error(event("block has vanished", block=format_block(block), path=self.path(block)))
        self._on_finding(block, Finding.MISSING)

    def _take_up(self, block: BlockId) -> None:
        """Note a file that is there, if nobody knows of it."""
        with self._names:
            try:
                size = self.path(block).stat().st_size
            except FileNotFoundError:
                return  # deleted since
            with self._tables:
                if not self._index.add(block, size):
                    return  # published since
        log.warning(event("unexpected block", block=format_block(block), path=self.path(block)))
        self._on_finding(block, Finding.UNEXPECTED)

    def compare(self, number: int) -> list[BlockId]:
        """Look which blocks are in a directory, and note those that are missing or unexpected; sorted."""
        try:
            found = {block for block, _ in self._scan(number, with_sizes=False)}
        except FileNotFoundError:
            self._make_directory(number)
            found = set()
        with self._tables:
            known = self._index.in_directory(number)
        for block in known:
            if block not in found:
                self._miss(block)
        for block in found.difference(known):
            self._take_up(block)
        return sorted(found)

    @contextmanager
    def checking(self, block: BlockId, buffer: mmap.mmap) -> Iterator[BlockCheck]:
        """The block's file for a check of all of it, opened anew. Raises NotFound; a BadBlock, from here or raised
        inside, quarantines the block. A block that is deleted meanwhile can be checked to its end."""
        try:
            check = BlockCheck(block, self.path(block), buffer)
        except FileNotFoundError:
            self._miss(block)
            raise NotFound(f"block {format_block(block)} is not on this datanode") from None
        except BadBlock as error:
            self._to_quarantine(block, error, None)
            raise
        except OSError as error:
            raise InputOutput(f"block {format_block(block)} cannot be opened: {error}") from error
        try:
            yield check
        except BadBlock as error:
            self.quarantine(check, error)
            raise
        finally:
            check.close()

    # Making (called by block_writer)

    def require_space(self, size: int) -> None:
        """Raise NoSpace unless `size` more bytes leave the reserve untouched."""
        free = self._free(os.statvfs(self._root))
        if free <= 0 or free < size:
            raise NoSpace(f"the datanode has {max(0, free)} bytes left for blocks")

    @contextmanager
    def writing(self, block: BlockId) -> Iterator[WriteIntent]:
        """Let deletions know of a write from its very beginning. One that is left by an exception is cancelled."""
        intent = WriteIntent(block)
        with self._tables:
            self._intents.setdefault(block, set()).add(intent)
        try:
            yield intent
        except BaseException:
            intent.cancelled = True
            raise
        finally:
            with self._tables:
                self._intents[block].discard(intent)
                if not self._intents[block]:
                    del self._intents[block]

    def publish(
        self, block: BlockId, temporary: Path, size: int, intent: WriteIntent | None = None, *, over_unsynced: bool
    ) -> int | None:
        """Give a whole file its block's name; the number of that change, for `confirm`. None where the name is taken;
        `over_unsynced`: unless by a file that is not known to be on disk. `size` is the file's.

        Raises Unavailable where the intent was cancelled.
        """
        with self._names:
            if intent is not None and intent.cancelled:
                raise Unavailable(f"block {format_block(block)} was deleted while it was being stored")
            path = self.path(block)
            if path.exists() and not (over_unsynced and not self.unsynced.is_synced(block)):
                return None
            if not path.parent.exists():  # deleted by hand; no reason to refuse what comes now
                self._make_directory(directory_number(block))
            temporary.rename(path)
            change = self._sync_of(block).changed()
            with self._tables:
                if self._index.remove(block):  # whose file has vanished, or is another one now
                    self._removals += 1
                    self._forget(block)
                self._index.add(block, size)
                for listing in self._listings:
                    listing.recent.add(block)
            self.unsynced.published(block)
        return change

    def confirm(self, block: BlockId, inode: int, change: int, *, was_here: bool) -> None:
        """Make the name durable of a file that is. Raises OSError where that fails; then the block is not here, but for
        one that was here before, unsynced, and is still."""
        try:
            with self.unsynced.syncing():
                self._sync_of(block).sync(change)
        except OSError:
            if not was_here:
                self._withdraw(block, inode)
            raise
        self.unsynced.confirmed(block)

    def _withdraw(self, block: BlockId, inode: int) -> None:
        """Take back a file that was given its name for nothing: nobody has been told that the block is stored."""
        path = self.path(block)
        with self._names:
            try:
                if path.stat().st_ino != inode:
                    return  # somebody else's, who is told what becomes of that
                path.unlink()
                self.unsynced.gone(block)
            except FileNotFoundError:
                return
            except OSError as error:
                # It stays among the unsynced: nobody is going to be told that it is stored.
                log.error(event("unsynced block cannot be removed", block=format_block(block), reason=error))  # noqa: TRY400
            with self._tables:
                self._removals += 1
                self._forget(block)
                self._index.remove(block)
        self._on_finding(block, Finding.UNSYNCED)  # a report may have told of it

    def keep(self, block: BlockId) -> None:
        """Take back a deletion that has not happened yet: the block was written again."""
        with self._tables:
            self._doomed.discard(block)

    def recent(self, since_ns: int) -> list[BlockId]:
        """Blocks whose files have changed since then (seconds since the epoch, in ns)."""
        found: list[BlockId] = []
        for number in range(DIRECTORIES):
            for block, _ in self._scan(number, with_sizes=False):
                try:
                    if self.path(block).stat().st_mtime_ns >= since_ns:
                        found.append(block)
                except FileNotFoundError:
                    continue  # deleted while we look
        return found

    def _sync_of(self, block: BlockId) -> DirectorySync:
        return self._directory_syncs[directory_number(block)]

    def _sync_names(self, block: BlockId) -> None:
        """Make a change in the block's directory durable that has just been made."""
        names = self._sync_of(block)
        names.sync(names.changed())

    def _make_directory(self, number: int) -> None:
        self._directories[number].mkdir(parents=True, exist_ok=True)
        sync_directory(self._root / "blocks")

    # Counting and listing

    def usage(self) -> Usage:
        """Does not wait for the disk."""
        disk = os.statvfs(self._root)
        index = self._index
        return Usage(disk.f_blocks * disk.f_frsize, index.used_bytes, max(0, self._free(disk)), index.count)

    def _free(self, disk: os.statvfs_result) -> int:
        """Nothing, where the volume has become read-only: file systems do that to themselves after errors."""
        return 0 if disk.f_flag & os.ST_RDONLY else disk.f_bavail * disk.f_frsize - self._reserved

    def start_listing(self) -> Listing:
        """All blocks but those that are going to be deleted, sorted; those that come until `end_listing` are in its
        later pages too."""
        listing = Listing()
        with self._tables:
            self._listings.append(listing)
        try:
            found = array("Q")
            for number in range(DIRECTORIES):
                found.extend(self.compare(number))
            with self._tables:
                doomed = set(self._doomed)
            listing.found = array("Q", sorted(block for block in found if block not in doomed))
        except BaseException:
            self.end_listing(listing)
            raise
        return listing

    def end_listing(self, listing: Listing) -> None:
        """Never waits for the disk."""
        with self._tables:
            self._listings.remove(listing)

    def close(self) -> None:
        """Close what is kept open for readers."""
        with self._tables:
            for block in list(self._open):
                self._forget(block)

    def _scan(self, number: int, *, with_sizes: bool) -> Iterator[tuple[BlockId, int]]:
        with os.scandir(self._directories[number]) as entries:
            for entry in entries:
                try:
                    block = parse_block(entry.name)
                    size = entry.stat(follow_symlinks=False).st_size if with_sizes else 0
                except ValueError:
                    log.warning(event("not a block", path=entry.path, action="ignored"))
                    continue
                except FileNotFoundError:
                    continue  # deleted while we look
                if directory_number(block) != number:
                    log.warning(event("block in a wrong directory", path=entry.path, action="ignored"))
                    continue
                yield block, size
