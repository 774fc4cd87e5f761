"""Files and names that a power cut cannot take back once they are said to be there.

A sync that fails is not to be tried again: the kernel tells an error once and takes what could not be written for
written from then on, so that the next sync may succeed for nothing. What it was to make durable has to be written anew.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from pathlib import Path
from typing import Final


def replace_file(path: Path, data: bytes) -> None:
    """Make a small file hold this, durably, and the old or the new content at any moment. Raises OSError."""
    temporary = path.with_name(f"{path.name}.new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        # Before the rename: else the name could point to an empty file after a power cut.
        os.fsync(file.fileno())
    # After the sync, for another reason, too: it fails where the file system has given up since (`FilesystemSync`).
    temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(path: Path | str) -> None:
    """Make the names in a directory durable: fsync of a file does not (fsync(2))."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class FilesystemSync:
    """Makes all that was written to a file system durable: syncfs(2), whose errors are told since Linux 5.8.

    They are told to each open file description once, so one is kept: what fails between two calls is told by the
    second one. Not for several threads at once.
    """

    def __init__(self, folder: Path) -> None:
        """`folder` is on it, and this may make files there. Raises OSError."""
        self._probe = folder / "sync-probe"
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def sync(self) -> None:
        """Raises OSError where not all that was written before is surely on disk."""
        if _libc_syncfs is None:
            os.sync()
        elif _libc_syncfs(self._fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(self._probe.parent))
        # ext4 answers 0 although nothing was written once its journal has failed. A change of names tells.
        self._probe.unlink(missing_ok=True)
        os.close(os.open(self._probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        self._probe.unlink()

    def close(self) -> None:
        """Does nothing the second time."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class DirectorySync:
    """Makes names in a directory durable, those of several writers together. For any thread.

    A failure is one of all names that were given before it: who comes later with one of these is not told that it
    is durable because the next fsync finds nothing left to write.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn = threading.Lock()
        self._counting = threading.Lock()
        self._changes = 0
        self._synced = 0
        """Changes up to this one are durable."""
        self._failed = 0
        """Of those after `_synced`, the ones up to this are not known to be."""

    def changed(self) -> int:
        """A name has been given or taken away; the number by which `sync` knows it."""
        with self._counting:
            self._changes += 1
            return self._changes

    def sync(self, change: int) -> None:
        """Raises OSError where the change is not surely on disk; it has to be made anew then."""
        with self._turn:
            if change <= self._synced:
                return
            if change <= self._failed:
                raise OSError(errno.EIO, "a sync of the directory has failed", str(self._path))
            before = self._changes
            try:
                sync_directory(self._path)
            except OSError:
                with self._counting:
                    self._failed = self._changes
                raise
            self._synced = before


_libc_syncfs: Final = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
