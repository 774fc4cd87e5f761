"""What a program may, where the kernel leaves that to a file system to find out: capabilities(7)."""

from __future__ import annotations

import enum
from pathlib import Path

from dfslib.mount.filesystem import Caller


class Capability(enum.IntEnum):
    FSETID = 4
    SYS_ADMIN = 21


def has_capability(caller: Caller, capability: Capability) -> bool:
    """Whether the caller has it in the mount's own user namespace. Of a thread that cannot be seen from here, root is
    believed to have all, and nobody else any."""
    try:
        if caller.pid <= 0 or not _same_user_namespace(caller.pid):
            return caller.pid <= 0 and caller.uid == 0
        lines = Path(f"/proc/{caller.pid}/status").read_text().splitlines()
    except OSError:
        return caller.uid == 0
    effective = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> capability & 1)


def _same_user_namespace(pid: int) -> bool:
    return Path(f"/proc/{pid}/ns/user").stat().st_ino == Path("/proc/self/ns/user").stat().st_ino
