"""The options of mount(8) that are the kernel's: which flag of mount(2) each of them sets or clears."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_SYNCHRONOUS: Final = 16
MS_REMOUNT: Final = 32
MS_DIRSYNC: Final = 128
MS_NOATIME: Final = 1024
MS_NODIRATIME: Final = 2048
MS_RELATIME: Final = 1 << 21
MS_STRICTATIME: Final = 1 << 24

DEFAULT: Final = MS_NOSUID | MS_NODEV
"""Of a file system that others can write to over the network; also what `defaults` means here."""

KERNEL_OPTIONS: Final = {
    "ro": (MS_RDONLY, 0),
    "rw": (0, MS_RDONLY),
    "nosuid": (MS_NOSUID, 0),
    "suid": (0, MS_NOSUID),
    "nodev": (MS_NODEV, 0),
    "dev": (0, MS_NODEV),
    "noexec": (MS_NOEXEC, 0),
    "exec": (0, MS_NOEXEC),
    "sync": (MS_SYNCHRONOUS, 0),
    "async": (0, MS_SYNCHRONOUS),
    "dirsync": (MS_DIRSYNC, 0),
    "noatime": (MS_NOATIME, MS_STRICTATIME | MS_RELATIME),
    "atime": (0, MS_NOATIME),
    "nodiratime": (MS_NODIRATIME, 0),
    "diratime": (0, MS_NODIRATIME),
    "relatime": (MS_RELATIME, MS_NOATIME | MS_STRICTATIME),
    "norelatime": (0, MS_RELATIME),
    "strictatime": (MS_STRICTATIME, MS_NOATIME | MS_RELATIME),
    "nostrictatime": (0, MS_STRICTATIME),
}
"""What each sets, and what it clears."""

_DEFAULTS: Final = frozenset({"atime", "diratime", "relatime", "norelatime", "nostrictatime"})

IGNORED: Final = frozenset(
    {
        "defaults", "auto", "noauto", "user", "nouser", "users", "owner", "group", "nofail", "_netdev", "nonempty",
        "default_permissions",
    }
)  # fmt: skip
"""For mount(8) and systemd, or what DFS does anyhow."""


def is_ignored(option: str) -> bool:
    """Also `x-systemd.…` and other comments (mount(8): X-*, x-*, comment=)."""
    return option in IGNORED or option.startswith(("x-", "X-", "comment="))


def for_fusermount(options: Iterable[str]) -> list[str]:
    """Those that fusermount3 and libfuse take. The others say what the kernel does anyhow."""
    return [option for option in options if option not in _DEFAULTS]


def flags_of(options: Iterable[str], flags: int = DEFAULT) -> int:
    """The flags of mount(2), the later option before the earlier one."""
    for option in options:
        sets, clears = KERNEL_OPTIONS[option]
        flags = flags & ~clears | sets
    return flags
