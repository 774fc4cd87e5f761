"""Background threads let others go first at the disk."""

from __future__ import annotations

import ctypes
import platform
import sys
from typing import Final

_IOPRIO_SET: Final = {"x86_64": 251, "aarch64": 30, "arm64": 30}.get(platform.machine())
"""Numbers of the system call, for which the C library has no function."""
_WHO_THREAD: Final = 1
_LAST: Final = 2 << 13 | 7
"""The last level of those that get a share (ioprio_set(2)). Not the idle class: the thread may hold a lock while
it waits for the disk. For the same reason its share of the processor stays: it holds the interpreter's lock."""


def give_way_at_disk() -> None:
    """Put the calling thread behind all others for the disk, where the system's scheduler has priorities."""
    if sys.platform == "linux" and _IOPRIO_SET is not None:
        ctypes.CDLL(None).syscall(_IOPRIO_SET, _WHO_THREAD, 0, _LAST)
