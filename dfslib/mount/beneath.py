"""A directory of a mounted tree, opened so that nothing in the tree leads out of it; and a mount of it alone."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from pathlib import Path
from typing import Final

from dfslib.errors import InputOutput, InvalidArgument, NotFound, NotSupported
from dfslib.mount.fuse_mounting import unmount
from dfslib.mount.mounted import mount_id, mounted

_OPEN_TREE: Final = 428
_MOVE_MOUNT: Final = 429
"""System calls, by the numbers that they have on all machines but Alpha; glibc has names for them since 2.36."""
_OPEN_TREE_CLONE: Final = 1
_AT_EMPTY_PATH: Final = 0x1000
_AT_FDCWD: Final = -100
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4


def narrow(mountpoint: Path, subdir: str) -> None:
    """Have the directory `subdir` of the tree that is mounted at `mountpoint` there, instead of the whole. As root.

    Raises NotFound, InvalidArgument where it is no directory or leads over a symbolic link, NotSupported, InputOutput.
    The whole may be there still after an error.
    """
    with mounted(mountpoint) as root:
        if root is None:
            raise InputOutput("the tree is not mounted", str(mountpoint))
        try:
            directory = open_beneath(root.descriptor, subdir, make=False)
        except FileNotFoundError:
            raise NotFound(f"there is no directory {subdir} in the tree") from None
        except OSError as error:
            raise InputOutput(f"{subdir}: {error.strerror}") from error
        try:
            part = _system_call(_OPEN_TREE, directory, b"", _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH)
        finally:
            os.close(directory)
    try:
        unmount(mountpoint, lazy=True)
        _system_call(_MOVE_MOUNT, part, b"", _AT_FDCWD, os.fsencode(mountpoint), _MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(part)


def _system_call(number: int, *arguments: int | bytes) -> int:
    """Raises NotSupported, InputOutput."""
    libc = ctypes.CDLL(None, use_errno=True)
    words = [ctypes.c_long(word) if isinstance(word, int) else ctypes.c_char_p(word) for word in arguments]
    result = int(libc.syscall(ctypes.c_long(number), *words))
    if result < 0:
        code = ctypes.get_errno()
        if code == errno.ENOSYS:
            raise NotSupported("a directory of the tree cannot be mounted alone: it needs Linux 5.2")
        raise InputOutput(f"a directory of the tree cannot be mounted alone: {os.strerror(code)}")
    return result


def open_beneath(root: int, subdir: str, *, make: bool) -> int:
    """A descriptor (O_PATH) of a directory below `root`; if `make`, what is missing of it is made.

    Goes name by name, each in the directory that was opened before and none over a link, so that nothing that is
    moved or replaced meanwhile leads elsewhere. `subdir` has no `..`. Raises InvalidArgument and OSError.
    """
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    try:
        for name in [part for part in subdir.split("/") if part]:
            below = _enter(here, name, subdir, make=make)
            os.close(here)
            here = below
            if mount_id(here) != mount_id(root):
                raise InvalidArgument(f"{subdir}: something else is mounted at {name}")
    except BaseException:
        os.close(here)
        raise
    return here


def _enter(directory: int, name: str, subdir: str, *, make: bool) -> int:
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        try:
            return os.open(name, flags, dir_fd=directory)
        except FileNotFoundError:
            if not make:
                raise
            with contextlib.suppress(FileExistsError):  # another host was faster
                os.mkdir(name, dir_fd=directory)  # in the directory that is open, not at a path
            return os.open(name, flags, dir_fd=directory)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        kind = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
        what = "is a symbolic link: name the directory itself" if stat.S_ISLNK(kind) else "is no directory"
        raise InvalidArgument(f"{subdir}: {name} {what}") from None
