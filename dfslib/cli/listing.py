"""Lines about files as `ls` prints them."""

from __future__ import annotations

import functools
import grp
import pwd
import stat
import time
from collections.abc import Sequence
from typing import Any, Final

from dfslib.cli.sizes import human
from dfslib.cli.tables import align
from dfslib.client.results import FileInfo

_HALF_A_YEAR_S: Final = 31556952 // 2
"""Older, and future, times are shown with their year in place of the hour, as ls does."""


@functools.cache
def user_name(uid: int) -> str:
    """The local name of a user id, or its digits."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


@functools.cache
def group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OverflowError):
        return str(gid)


def when(mtime_ns: int, now_s: float) -> str:
    """`Jan  5 12:34`, or `Jan  5  2020`, in local time."""
    seconds = mtime_ns // 1_000_000_000
    local = time.localtime(seconds)
    recent = now_s - _HALF_A_YEAR_S < seconds <= now_s
    return time.strftime("%b %e %H:%M" if recent else "%b %e  %Y", local)


def long_lines(
    files: Sequence[tuple[str, FileInfo]], now_s: float, *, human_sizes: bool = False, numeric: bool = False
) -> list[str]:
    """`ls -l`: one line a file, its columns aligned. The names come ready for printing."""
    rows = []
    for name, info in files:
        owner = str(info.uid) if numeric else user_name(info.uid)
        group = str(info.gid) if numeric else group_name(info.gid)
        size = human(info.size) if human_sizes else str(info.size)
        rows.append([mode_text(info), str(info.nlink), owner, group, size, when(info.mtime_ns, now_s), name])
    return align(rows, "lrllrl")


def mode_text(info: FileInfo) -> str:
    """`drwxr-xr-x`."""
    return stat.filemode(info.st_mode)


def as_json(path: str, info: FileInfo, name: str | None = None) -> dict[str, Any]:
    """A file for `--json`."""
    return {"path": path, **({} if name is None else {"name": name}), **info.as_json()}
