"""Extended attributes: xattr(7). `user.dfs.replication` is the inode's own field in this form."""

from __future__ import annotations

from msgspec.structs import replace

from dfslib.config import parse_replication
from dfslib.errors import Exists, InvalidArgument, NameTooLong, NoAttribute, NoSpace
from dfslib.model import REPLICATION_ALL, REPLICATION_DEFAULT, Attr, InodeId
from dfslib.namenode.metadata.engine import ReadTxn, Txn, prefix_end
from dfslib.namenode.namespace import keys, records

REPLICATION = b"user.dfs.replication"
_NAMESPACES = (b"user.", b"trusted.", b"security.", b"system.")
_NAME_MAX = 255
_VALUE_MAX = 64 << 10
_TOTAL_MAX = 1 << 20
"""Names and values of one inode together; listing them stays one small answer."""


def list_xattrs(txn: ReadTxn, ino: InodeId) -> dict[bytes, bytes]:
    """All of an inode's extended attributes, sorted by name. Raises NotFound."""
    attr = records.get_attr(txn, ino)
    prefix = keys.xattrs(ino)
    found = {key[len(prefix) :]: value for key, value in txn.scan(prefix, prefix_end(prefix))}
    if attr.replication != REPLICATION_DEFAULT:
        found[REPLICATION] = _replication_value(attr)
    return dict(sorted(found.items()))


def set_xattr(
    txn: Txn, ino: InodeId, name: bytes, value: bytes, now_ns: int, *, create: bool = False, replace_only: bool = False
) -> Attr:
    """Raises InvalidArgument for an unknown namespace or too large a value, NameTooLong, NoSpace past the
    inode's share, Exists with `create`, NoAttribute with `replace_only`."""
    _check(name, value)
    present = list_xattrs(txn, ino)
    if create and name in present:
        raise Exists(f"extended attribute {name.decode('utf-8', 'replace')!r} exists")
    if replace_only and name not in present:
        raise NoAttribute
    attr = replace(records.get_attr(txn, ino), ctime_ns=now_ns)
    if name == REPLICATION:
        try:
            attr = replace(attr, replication=parse_replication(value.decode("ascii", "replace")))
        except ValueError as error:
            raise InvalidArgument(f"user.dfs.replication {error}") from None
    else:
        others = sum(len(key) + len(data) for key, data in present.items() if key != name)
        if others + len(name) + len(value) > _TOTAL_MAX:
            raise NoSpace(f"an inode's extended attributes have at most {_TOTAL_MAX} bytes")
        txn.put(keys.xattr(ino, name), value)
    records.put_attr(txn, attr)
    return attr


def remove_xattr(txn: Txn, ino: InodeId, name: bytes, now_ns: int) -> Attr:
    """Raises NotFound, NoAttribute."""
    attr = replace(records.get_attr(txn, ino), ctime_ns=now_ns)
    if name not in list_xattrs(txn, ino):
        raise NoAttribute
    if name == REPLICATION:
        attr = replace(attr, replication=REPLICATION_DEFAULT)
    else:
        txn.delete(keys.xattr(ino, name))
    records.put_attr(txn, attr)
    return attr


def _replication_value(attr: Attr) -> bytes:
    return b"all" if attr.replication == REPLICATION_ALL else b"%d" % attr.replication


def _check(name: bytes, value: bytes) -> None:
    if not any(name.startswith(space) and len(name) > len(space) for space in _NAMESPACES) or b"\0" in name:
        spaces = ", ".join(space.decode() for space in _NAMESPACES)
        raise InvalidArgument(f"an extended attribute's name starts with one of {spaces}")
    if len(name) > _NAME_MAX:
        raise NameTooLong(f"an extended attribute's name has at most {_NAME_MAX} bytes")
    if len(value) > _VALUE_MAX:
        raise InvalidArgument(f"an extended attribute's value has at most {_VALUE_MAX} bytes")
