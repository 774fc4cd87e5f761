"""The whole check of a store: its structure, and everything in it against what its commits added up to.

One scan finds any change of any key or value, also one that can be decoded: each commit keeps the sum of the hashes
of all keys with their values (metadata/lineage.py). A store whose sum is right and that breaks an invariant was not
damaged: we have written it so. Then its copies are alike, and it is told and served. Of a store that an older release
has written, and that has no such sum, the invariants are all that is known.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from dfslib.errors import DfsError
from dfslib.model import ROOT
from dfslib.namenode.checkpoint.format import Header
from dfslib.namenode.checkpoint.snapshot import write_snapshot
from dfslib.namenode.metadata.engine import KEY_MAX, ReadTxn, prefix_end
from dfslib.namenode.metadata.lineage import LINEAGE, Digest, decode_lineage, runs_of
from dfslib.namenode.metadata.lmdb_engine import DATA
from dfslib.namenode.metadata.lmdb_file import DamagedStore, read_through, reading, scan_checked, verify_at_rest
from dfslib.namenode.namespace import keys, records
from dfslib.namenode.namespace.check import Problem, check
from dfslib.wire.features import NEWEST_LEVEL

PROGRESS_KEYS: Final = 100_000
_FAULTS_SHOWN: Final = 10
_FAULTS_LOOKED_FOR_KEYS: Final = 200_000
"""The invariants take seven times as long as the digest: where that is right, only small stores are asked."""

_UNREADABLE: Final = frozenset({errno.EIO, errno.EBADMSG, getattr(errno, "EUCLEAN", errno.EIO)})
"""What a disk or a file system answers that has lost what it was given."""

_UNREADABLE_RECORD: Final = (msgspec.MsgspecError, struct.error, ArithmeticError, LookupError, ValueError, DfsError)
"""What reading records of any bytes raises."""

Progress = Callable[[int], None]
"""Is told how many keys were read, now and then."""


class Verdict(msgspec.Struct, frozen=True):
    """`damage` says what is wrong with the store; empty where nothing is. `epoch` is its cluster's where it is whole,
    `number` that of its last commit, `keys` how many it has; `is_summed`: they add up to what the commits say, rather
    than that nothing is known of it. `faults` are invariants that the commits themselves have broken. `header` is that
    of the checkpoint that was written."""

    damage: str = ""
    cluster_id: str = ""
    epoch: int | None = None
    number: int = 0
    keys: int = 0
    is_summed: bool = False
    faults: tuple[str, ...] = ()
    header: Header | None = None


class _Summed:
    """A snapshot whose scan checks what it reads, and adds it up."""

    def __init__(self, txn: ReadTxn, progress: Progress) -> None:
        self._txn = txn
        self._progress = progress
        self.digest = Digest()
        self.keys = 0
        self.get = txn.get

    @property
    def number(self) -> int:
        return self._txn.number

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All of it, whatever is asked for."""
        for key, value in scan_checked(self._txn):
            self.digest.change(key, None, value)
            self.keys += 1
            if self.keys % PROGRESS_KEYS == 0:
                self._progress(self.keys)
            yield key, value


def check_store(
    folder: Path,
    progress: Progress = lambda _: None,
    *,
    at_rest: bool,
    checkpoint: tuple[Header, Path] | None = None,
) -> Verdict:
    """Check all of a store's last commit; `at_rest`: nobody has it open, so that its pages are checked, too.

    `checkpoint` asks for a file of it, about which the header tells: durable when this returns, and there only where
    the verdict names no damage. Some 13 s for a million files. Raises OSError for what the disk refuses, but for
    reading; no damage of a store at rest ends the process, for others see `reading`.
    """
    try:
        read_through(folder / DATA)
    except OSError as error:
        if error.errno not in _UNREADABLE:
            raise
        return Verdict(f"{DATA} cannot be read: {error.strerror}")
    try:
        if at_rest:
            verify_at_rest(folder)
        with reading(folder) as txn:
            return _check(txn, progress, checkpoint)
    except DamagedStore as error:
        return Verdict(str(error))


def look_at_store(folder: Path) -> Verdict:
    """Read what opening a store reads. No more is known of the rest afterwards than before; for the process, see
    `reading`."""
    try:
        with reading(folder) as txn:
            record, restoring = records.get_cluster(txn), records.get_restoring(txn)
            _expected(txn)
            runs_of(txn)
            records.get_restored(txn)
            records.get_totals(txn)
            records.last_inode(txn)
            if record is not None and record.level > NEWEST_LEVEL:
                return Verdict("", record.cluster_id, record.epoch, txn.number)
            if record is not None and restoring is None:
                records.get_directory(txn, ROOT)
            for prefix in (keys.NODES, keys.SESSIONS, keys.REQUEST_TIMES):
                for _ in txn.scan(prefix, prefix_end(prefix)):
                    pass
            if restoring is not None:
                return Verdict("", restoring.cluster_id, None, txn.number)
            if record is not None:
                return Verdict("", record.cluster_id, record.epoch, txn.number)
            return Verdict("", number=txn.number)
    except (DamagedStore, *_UNREADABLE_RECORD) as error:
        return Verdict(f"it cannot be opened: {error}")


def _check(txn: ReadTxn, progress: Progress, checkpoint: tuple[Header, Path] | None) -> Verdict:
    summed = _Summed(txn, progress)
    expected = _expected(txn)
    header = None
    if checkpoint is None:
        for _ in summed.scan(b"", b"\xff" * KEY_MAX):
            pass
    else:
        about, path = checkpoint
        header = write_snapshot(summed, about, path)
    try:
        if expected is not None and summed.digest.value != expected:
            raise DamagedStore(
                "its keys and values are not what its commits made them: something has changed them since"
            )
        return _judged(txn, summed, header, is_summed=expected is not None)
    except DamagedStore:
        if checkpoint is not None:
            checkpoint[1].unlink(missing_ok=True)
        raise


def _expected(txn: ReadTxn) -> bytes | None:
    """What the last commit says that everything adds up to; None where the store does not know."""
    data = txn.get(LINEAGE)
    if data is None:
        return None
    try:
        lineage = decode_lineage(data)
    except DfsError as error:
        raise DamagedStore(str(error)) from error
    return lineage.digest if lineage.number == txn.number else None


def _judged(txn: ReadTxn, summed: _Summed, header: Header | None, *, is_summed: bool) -> Verdict:
    cluster_id, epoch, faults = "", None, []
    try:
        record, restoring = records.get_cluster(txn), records.get_restoring(txn)
        if restoring is not None:
            cluster_id = restoring.cluster_id
        elif record is not None:
            cluster_id, epoch = record.cluster_id, record.epoch
            is_known = record.level <= NEWEST_LEVEL  # else it is not opened, and its rules may be others
            if is_known and (not is_summed or summed.keys <= _FAULTS_LOOKED_FOR_KEYS):
                faults = [_text(fault) for fault in islice(check(txn), _FAULTS_SHOWN)]
        elif summed.keys:
            faults = ["it names no cluster"]
    except _UNREADABLE_RECORD as error:
        faults = [f"a record cannot be read: {error}"]
    if faults and not is_summed:
        raise DamagedStore(faults[0])
    return Verdict("", cluster_id, epoch, txn.number, summed.keys, is_summed, tuple(faults), header)


def _text(problem: Problem) -> str:
    where = "" if problem.ino is None else f"inode {problem.ino}: "
    return f"{where}{problem.detail}"
