"""Changes of an inode's attributes that touch nothing else: chmod(2), chown(2), utimensat(2)."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from dfslib.errors import InvalidArgument
from dfslib.model import Attr, InodeId, clamped_time
from dfslib.namenode.metadata.engine import Txn
from dfslib.namenode.namespace import records

_ID_MAX = (1 << 32) - 2
"""Largest uid and gid; the next one means 'unchanged' to the kernel."""


class AttrChange(msgspec.Struct, frozen=True, kw_only=True):
    """What to set; None leaves as it is."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None

    def check(self) -> None:
        """Raises InvalidArgument for values that no inode can have."""
        if self.mode is not None and not 0 <= self.mode <= 0o7777:
            raise InvalidArgument("a mode is at most 7777, octal")
        for owner in (self.uid, self.gid):
            if owner is not None and not 0 <= owner <= _ID_MAX:
                raise InvalidArgument(f"a uid or gid is at most {_ID_MAX}")


def set_attrs(txn: Txn, ino: InodeId, change: AttrChange, now_ns: int) -> Attr:
    """Raises NotFound, InvalidArgument."""
    change.check()
    attr = records.get_attr(txn, ino)
    values = {name: getattr(change, name) for name in change.__struct_fields__}
    for name in ("atime_ns", "mtime_ns"):
        if values[name] is not None:
            values[name] = clamped_time(values[name])
    attr = replace(attr, ctime_ns=now_ns, **{name: value for name, value in values.items() if value is not None})
    records.put_attr(txn, attr)
    return attr


def note_access(txn: Txn, ino: InodeId, atime_ns: int) -> None:
    """The file was read; that is no change of the inode, and its ctime stays. It may be gone by now."""
    attr = records.find_attr(txn, ino)
    if attr is not None:
        records.put_attr(txn, replace(attr, atime_ns=atime_ns))


def kill_privileges(txn: Txn, ino: InodeId) -> None:
    """See `Attr.unprivileged_mode`."""
    attr = records.get_attr(txn, ino)
    if attr.unprivileged_mode != attr.mode:
        records.put_attr(txn, replace(attr, mode=attr.unprivileged_mode))


def touch_parent(txn: Txn, parent: InodeId, now_ns: int, subdirectories: int = 0) -> None:
    """Note that a directory's entries changed, and by how many subdirectories (each counts as a link)."""
    attr = records.get_directory(txn, parent)
    records.put_attr(txn, replace(attr, mtime_ns=now_ns, ctime_ns=now_ns, nlink=attr.nlink + subdirectories))
