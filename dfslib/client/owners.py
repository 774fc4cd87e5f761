"""To whom what a program puts is to belong: to its user, as with cp(1)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Owner(NamedTuple):
    """None leaves it to the namenode: what is new is root's, what is replaced stays whose it is."""

    uid: int | None = None
    gid: int | None = None

    @property
    def is_given(self) -> bool:
        return self != Owner()


def own_user() -> Owner:
    """Whose this process is. Root's is left to the namenode, and so are those of systems that have none."""
    if not hasattr(os, "geteuid") or os.geteuid() == 0:
        return Owner()
    return Owner(os.geteuid(), os.getegid())


def own_umask() -> int:
    """Read, where it can be: to ask umask(2) is to change it for every thread."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
