"""Files and names that a power cut cannot take back once they are said to be there."""

from __future__ import annotations

import ctypes
import os
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
    temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(path: Path | str) -> None:
    """Make the names in a directory durable: fsync of a file does not (fsync(2))."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_filesystem(path: Path | str) -> None:
    """Make all that was written to a file system durable: syncfs(2), whose errors are told since Linux 5.8."""
    if _libc_syncfs is None:
        os.sync()
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc_syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(fd)


_libc_syncfs: Final = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
