"""A directory of the mounted tree at a place of its own: the one that was opened, whatever becomes of its path.

Who can write to the tree can put symbolic links into it, at any moment. A path of the tree is therefore never given to
the kernel as one, nor to Docker: it would lead out of the tree, to the host's disk.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from pathlib import Path
from typing import Final

from dfslib.errors import Unavailable
from dfslib.mount.beneath import open_beneath
from dfslib.mount.fuse_mounting import unmount
from dfslib.mount.mounted import is_mounted, mounted

_MS_BIND: Final = 4096
_PLACES_MAX: Final = 64
"""One, and another for each time that the volume's directory was a different one while containers used it."""

_ATTEMPTS: Final = 20


def bind(tree: Path, subdir: str, places: Path) -> Path:
    """Have the directory `subdir` of the tree at a place in `places`; all of these are made where they are missing.
    Where it is there already that is it. A place that somebody may be using is never taken for another directory.

    Raises InvalidArgument where `subdir` is no directory or leads over a symbolic link or another mount; Unavailable.
    """
    with mounted(tree) as root:
        if root is None:
            raise Unavailable("the tree is not mounted")
        for attempts_left in reversed(range(_ATTEMPTS)):
            try:
                directory = open_beneath(root.descriptor, subdir, make=True)
                try:
                    return _place(directory, places)
                finally:
                    os.close(directory)
            except OSError as error:
                # ENOENT: its name has changed since it was opened, and the kernel binds no directory without a name
                if error.errno != errno.ENOENT or not attempts_left:
                    raise Unavailable(f"{subdir}: {error.strerror}") from error
    raise AssertionError("the last attempt returns or raises")


def current(places: Path) -> Path:
    """The place where the volume was bound last."""
    every = range(1, _PLACES_MAX + 1)
    numbers = [number for number in every if is_mounted(places / str(number))]
    return places / str(max(numbers, default=1))


def release(places: Path) -> None:
    """Take off what `bind` has put there, although it may be in use. Raises InputOutput."""
    for number in range(1, _PLACES_MAX + 1):
        place = places / str(number)
        if is_mounted(place):
            unmount(place, lazy=True)
        with contextlib.suppress(OSError):  # an empty directory more or less
            place.rmdir()
    with contextlib.suppress(OSError):
        places.rmdir()


def _place(directory: int, places: Path) -> Path:
    """Raises OSError."""
    wanted = os.fstat(directory)
    free = None
    for number in range(1, _PLACES_MAX + 1):
        place = places / str(number)
        with mounted(place) as found:
            if found is None:
                free = free or place
            elif _same(wanted, found.descriptor):
                return place
    if free is None:
        raise OSError(errno.EBUSY, "too many other directories are in use for this volume")
    places.mkdir(parents=True, exist_ok=True)
    free.mkdir(exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    source = f"/proc/self/fd/{directory}".encode()
    if libc.mount(source, os.fsencode(free), None, ctypes.c_ulong(_MS_BIND), None) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return free


def _same(wanted: os.stat_result, descriptor: int) -> bool:
    try:
        there = os.fstat(descriptor)
    except OSError:  # of a mount that has died, or a directory that was removed
        return False
    return (wanted.st_dev, wanted.st_ino) == (there.st_dev, there.st_ino)
