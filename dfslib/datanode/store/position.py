"""The newest position of the namenode's metadata that this volume was ever brought (wire/positions.py).

It is the name of an empty file in the volume's folder, and so outlives whatever becomes of the copies themselves: every
datanode that was told can tell a namenode that has gone back in time. A copy that is younger than that file was stored
by a release that keeps no positions; then nothing is known.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Final

from dfslib.errors import InvalidArgument
from dfslib.runtime.durable_files import sync_directory
from dfslib.runtime.logs import event
from dfslib.wire.positions import parse_position

log = logging.getLogger("dfs.store")

_PREFIX: Final = "position-"


class KeptPosition:
    """For any thread. Raises OSError where the folder cannot be read or written."""

    def __init__(self, root: Path, copies: Path) -> None:
        """`copies` is the folder of the copies."""
        self._root = root
        self._turn = threading.Lock()
        names = sorted(entry.name for entry in root.iterdir() if _is_ours(entry.name))
        self._name = names.pop() if names else ""
        if self._name and _youngest_ns(copies) > (root / self._name).stat().st_mtime_ns:
            log.info(event("position of the copies is not known", reason="one was stored without", was=self._name))
            names.append(self._name)
            self._name = ""
        for name in names:
            (root / name).unlink()

    @property
    def value(self) -> str:
        """Empty where there is none."""
        return self._name.removeprefix(_PREFIX)

    def brought(self, position: str) -> None:
        """Durably: a copy that leads to `position` has been stored, or one of which that is not known (empty)."""
        with self._turn:
            name = f"{_PREFIX}{position}" if position else ""
            if name and self._name >= name:
                os.utime(self._root / self._name)  # younger than the copy again; a power cut may undo it
                return
            if name:  # a new file, not the old one renamed, and so a younger one; nor one whose sync failed
                (self._root / name).unlink(missing_ok=True)
                os.close(os.open(self._root / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
            if self._name:
                (self._root / self._name).unlink(missing_ok=True)
            sync_directory(self._root)
            self._name = name


def _is_ours(name: str) -> bool:
    try:
        parse_position(name.removeprefix(_PREFIX))
    except InvalidArgument:
        return False
    return name.startswith(_PREFIX)


def _youngest_ns(folder: Path) -> int:
    return max((entry.stat().st_mtime_ns for entry in folder.iterdir()), default=0)
