"""A damaged store is moved out of the way, whole and under a name, and never deleted.

The files that metadata was to be shipped in go with it: they were made of what was committed, not of what the store
holds now, and may have commits that no datanode has.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from dfslib.namenode.metadata.lmdb_engine import DATA
from dfslib.namenode.metadata.lmdb_file import LOCKS
from dfslib.runtime.durable_files import replace_file, sync_directory

PREFIX: Final = "damaged-"
REASON: Final = "reason.txt"


def set_aside(folder: Path, reason: str, time_ns: int, others: tuple[str, ...] = ()) -> Path:
    """Move the store, and the folders named `others`, into a folder of their own; that one. Durable when it returns.

    The store is moved last: where this is broken off, it is found to be damaged once more. Raises OSError.
    """
    aside = _make(folder, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time_ns / 1e9)))
    replace_file(aside / REASON, f"{reason}\n".encode())
    for name in (*others, LOCKS, DATA):
        if (folder / name).exists():
            (folder / name).rename(aside / name)
    sync_directory(aside)
    sync_directory(folder)
    return aside


def _make(folder: Path, stamp: str) -> Path:
    number = 1
    while True:
        path = folder / (f"{PREFIX}{stamp}" if number == 1 else f"{PREFIX}{stamp}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path
