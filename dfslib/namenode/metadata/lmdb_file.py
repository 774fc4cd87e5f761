"""The engine's files, read without the engine: whether their structure is sound, and what they hold.

The structure is checked by py-lmdb's own verifier, which walks the bytes of a file that nobody has open, and never maps
them: no damage of the file can end this process. What follows is read through LMDB, as the engine does.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import lmdb
import lmdb.verify

from dfslib.namenode.metadata.engine import KEY_MAX, ReadTxn
from dfslib.namenode.metadata.lmdb_engine import DATA, MAP_BYTES, LmdbTxn

LOCKS: Final = "lock.mdb"
"""Who reads which snapshot; made anew by whoever opens the store first, so that it holds nothing of worth."""

_META: Final = struct.Struct("=II16xIH42xIH50xQ")
"""Of a meta page, behind its header: magic and version; the page's size and the flags of the tree of free pages; the
same of the other tree, which has no size; the number of its commit."""
_MAGIC: Final = 0xBEEFC0DE
_VERSION: Final = 1
_META_AT: Final = 16
_FREE_FLAGS: Final = 8
"""MDB_INTEGERKEY. The other tree has no flags: with any, keys would be sorted or values kept in another way."""
_READ_BYTES: Final = 1 << 20


class DamagedStore(Exception):
    """The store is not what was written; says in what respect."""


def read_through(path: Path) -> None:
    """Read a file in its order, so that what reads it in another one finds it in memory; raises OSError where the disk
    does not give it."""
    with path.open("rb", buffering=0) as file:
        while file.read(_READ_BYTES):
            pass


def verify_at_rest(folder: Path) -> None:
    """Raise DamagedStore unless the structure of a store that nobody has open is sound: pages, trees, free pages. Some
    seven seconds for a million files. Raises OSError."""
    try:
        problems = lmdb.verify.verify(str(folder / DATA))  # type: ignore[no-untyped-call]
        if not problems:
            _check_metas(folder / DATA)
    except lmdb.verify.VerifyError as error:
        raise DamagedStore(str(error)) from None
    except (ValueError, ArithmeticError, LookupError, RecursionError, MemoryError, struct.error) as error:
        raise DamagedStore(f"its pages cannot be followed: {error!r}") from error
    if problems:
        raise DamagedStore(f"{problems[0]}" + (f", and {len(problems) - 1} more" if len(problems) > 1 else ""))


def _check_metas(path: Path) -> None:
    """Each commit writes the meta page that the one before did not: the two follow one another. Where one of them does
    not, LMDB would quietly go on from the other, without the last commit. (Of another version nothing is known.)"""
    with path.open("rb") as file:
        numbers = []
        page_size = 0
        for page in (0, 1):
            file.seek(page * page_size + _META_AT)
            magic, version, page_size, free_flags, no_size, flags, number = _META.unpack(file.read(_META.size))
            if (magic, version) != (_MAGIC, _VERSION):
                return
            if (free_flags, no_size, flags) != (_FREE_FLAGS, 0, 0):
                raise DamagedStore(f"meta page {page} has flags that the store does not have")
            numbers.append(number)
    if abs(numbers[0] - numbers[1]) != 1 and numbers != [0, 0]:
        raise DamagedStore(
            f"its meta pages are of commits {numbers[0]} and {numbers[1]}, which do not follow one another"
        )


@contextmanager
def reading(folder: Path) -> Iterator[ReadTxn]:
    """The last commit of a store, while others may go on with it. Not in a process that has the store open (lmdb.open).

    Raises DamagedStore for what LMDB finds wrong, also while the snapshot is read. Where the file is cut off, or a
    page leads nowhere, the process may end instead, by SIGBUS or SIGSEGV.
    """
    try:
        env = lmdb.open(str(folder), map_size=MAP_BYTES, readonly=True, create=False, max_spare_txns=1)
        try:
            with env.begin() as txn:
                yield LmdbTxn(txn)
        finally:
            env.close()
    except lmdb.Error as error:
        raise DamagedStore(f"LMDB cannot read it: {error}") from error


def scan_checked(txn: ReadTxn) -> Iterator[tuple[bytes, bytes]]:
    """Every key and value, in order. Raises DamagedStore where a key is out of order, or is not found where it is
    looked for: no scan shows that a page on the way to it has changed."""
    last = b""
    for key, value in txn.scan(b"", b"\xff" * KEY_MAX):
        if key <= last:
            raise DamagedStore(f"key {key!r} comes behind {last!r}")
        if txn.get(key) != value:
            raise DamagedStore(f"key {key!r} is not found where it is looked for")
        last = key
        yield key, value
