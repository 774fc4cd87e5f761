"""What uploads and downloads of trees have in common: their options and how errors go on."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dfslib.client.parallel import Progress

JOBS: Final = 8
"""Transfers at once: enough to hide the round trips of small files."""


def raise_error(error: OSError) -> None:
    raise error


@dataclass(frozen=True)
class TransferOptions:
    """`recursive`: take directories, and keep symbolic links as such, the named sources included; otherwise
    a directory is an error and a link named as a source is followed. `follow_sources`: follow it even so.
    `skip_equal`: leave out files whose size and time of change are equal on both sides. `on_error(error)`:
    called for each file or directory that failed, before going on with the others; may raise to end it all.
    Of uploads: `keep_modes`: modes as they are, else as cp(1) does without -p: permissions less the umask.
    `keep_owners`: owners as they are, for root; else what is put belongs to who puts it.
    """

    recursive: bool = True
    follow_sources: bool = False
    skip_equal: bool = False
    jobs: int = JOBS
    progress: Progress | None = None
    on_error: Callable[[OSError], None] = raise_error
    keep_modes: bool = True
    keep_owners: bool = False


def not_copied(what: str, path: str) -> OSError:
    return OSError(errno.EOPNOTSUPP, f"not copied, it is a {what}", path)


def is_a_directory(path: str) -> IsADirectoryError:
    return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)


def kind_of_mode(mode: int) -> str:
    """What a local file is, for messages."""
    if stat.S_ISFIFO(mode):
        return "fifo"
    if stat.S_ISSOCK(mode):
        return "socket"
    return "device"
