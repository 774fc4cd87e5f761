"""A download's local file: filled under the name `.NAME.dfs-part`, then renamed into place.

A large part that is left behind by a crash or a failure is taken up again, if it is known to be of the
same content: its ETag lies beside it. Does not read from the network.
"""
# Names are any bytes and are kept exactly as given; Path rewrites them.
# ruff: noqa: PTH104, PTH108, PTH116, PTH118

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from dfslib.model import NAME_MAX

RESUME_FROM_BYTES: Final = 4 << 20
"""Smaller files are sooner fetched anew than looked after."""
_SAFE_BITS: Final = 0o1777
"""Set-user-id and set-group-id stay behind: the owner does too (as `cp -p` does where it cannot chown)."""


def part_name(name: bytes, suffix: bytes = b".dfs-part") -> bytes:
    """`.NAME.dfs-part`; a name too long for that is shortened and told apart by its hash."""
    whole = b"." + name + suffix
    if len(whole) <= NAME_MAX:
        return whole
    return b"." + name[:150] + hashlib.sha256(name).hexdigest()[:32].encode() + suffix


class PartFile:
    """The part of `path`, locked for as long as it is open.

    Where another process fills the same one, this is a file of its own that cannot be resumed. `offset`
    is the number of bytes that are there already, of the content `etag`.
    """

    def __init__(self, path: str, size: int, etag: str) -> None:
        folder, name = os.path.split(os.fsencode(path))
        self._path = os.fsencode(path)
        self._part = os.path.join(folder, part_name(name))
        self._tag: bytes | None = None
        self._descriptor = self._lock_part()
        if self._descriptor is None:
            self._descriptor, self._part = tempfile.mkstemp(b".dfs-part", b".", folder or b".")
        elif size >= RESUME_FROM_BYTES and etag:
            self._tag = os.path.join(folder, part_name(name, b".dfs-etag"))
        self.offset = self._resume(size, etag)
        os.ftruncate(self._descriptor, self.offset)
        os.lseek(self._descriptor, self.offset, os.SEEK_SET)

    @property
    def resumable(self) -> bool:
        """Whether the part is of use to a later attempt."""
        return self._tag is not None

    def write(self, piece: bytes) -> None:
        view = memoryview(piece)
        while view:
            view = view[os.write(self._fd, view) :]

    def restart(self) -> None:
        """Forget what was written: it was other content."""
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self.offset = 0

    def finish(self, mode: int, mtime_ns: int) -> None:
        """Give the file its mode, its time and its name, replacing what has that name."""
        os.fchmod(self._fd, mode & _SAFE_BITS)
        os.utime(self._fd, ns=(mtime_ns, mtime_ns))
        os.rename(self._part, self._path)
        self._forget_tag()
        self.close()

    def remove(self) -> None:
        """Leave nothing behind."""
        self.unlink()
        self.close()

    def unlink(self) -> None:
        """Remove the part by its name alone: whoever still writes to it does no harm."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._part)
        self._forget_tag()

    def close(self) -> None:
        """Let go of the part, and leave it as it is."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @property
    def _fd(self) -> int:
        if self._descriptor is None:
            raise ValueError("I/O operation on closed file")
        return self._descriptor

    def _lock_part(self) -> int | None:
        """The part's descriptor, locked, or None where another process has it."""
        while True:
            descriptor = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                opened = os.fstat(descriptor)
                present = os.stat(self._part, follow_symlinks=False)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except FileNotFoundError:  # the one who held it has just renamed it
                os.close(descriptor)
                continue
            except BaseException:
                os.close(descriptor)
                raise
            if (opened.st_dev, opened.st_ino) == (present.st_dev, present.st_ino) and stat.S_ISREG(opened.st_mode):
                return descriptor
            os.close(descriptor)

    def _resume(self, size: int, etag: str) -> int:
        if self._tag is None:
            return 0
        tag = Path(os.fsdecode(self._tag))
        if not tag.is_symlink() and tag.is_file() and tag.read_text("ascii", "replace") == etag:
            return min(os.fstat(self._fd).st_size, size)
        os.ftruncate(self._fd, 0)  # before the tag says that these bytes are of this content
        tag.unlink(missing_ok=True)
        tag.write_text(etag, "ascii")
        return 0

    def _forget_tag(self) -> None:
        if self._tag is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._tag)
