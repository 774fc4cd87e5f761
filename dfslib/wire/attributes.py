"""An inode's attributes as JSON, as headers, and back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from email.utils import formatdate

from dfslib.errors import InputOutput
from dfslib.model import (
    REPLICATION_ALL,
    REPLICATION_DEFAULT,
    Attr,
    FileType,
    InodeId,
    format_etag,
)
from dfslib.wire import routes
from dfslib.wire.messages import AttrBody
from dfslib.wire.paths import decode_component, encode_name, encode_path

_TYPE_NAMES = {
    FileType.FILE: "file",
    FileType.DIRECTORY: "directory",
    FileType.SYMLINK: "symlink",
    FileType.FIFO: "fifo",
    FileType.CHARACTER: "character",
    FileType.BLOCK: "block",
    FileType.SOCKET: "socket",
}
_TYPES = {name: kind for kind, name in _TYPE_NAMES.items()}


def format_replication(replication: int) -> str:
    if replication == REPLICATION_ALL:
        return "all"
    return "default" if replication == REPLICATION_DEFAULT else str(replication)


def _parse_replication(text: str) -> int:
    if text == "all":
        return REPLICATION_ALL
    return REPLICATION_DEFAULT if text == "default" else int(text)


def _text(raw: bytes) -> tuple[str, str]:
    """`raw` as text for JSON and, where that is not exact, also percent-encoded."""
    try:
        return raw.decode("utf-8"), ""
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace"), encode_path(raw)


def _bytes(text: str, encoded: str) -> bytes:
    return decode_component(encoded) if encoded else text.encode()


def attr_body(attr: Attr, *, path: bytes = b"", name: bytes = b"", replicas: int | None = None) -> AttrBody:
    """`attr` for JSON, with the path or the name it was reached by."""
    path_text, path_bytes = _text(path)
    name_text, name_bytes = _text(name)
    target, target_bytes = _text(attr.target)
    return AttrBody(
        path=path_text,
        path_bytes=path_bytes,
        name=name_text,
        name_bytes=name_bytes,
        ino=attr.ino,
        type=_TYPE_NAMES[attr.type],
        mode=f"{attr.mode:04o}",
        uid=attr.uid,
        gid=attr.gid,
        nlink=attr.nlink,
        size=attr.size,
        allocated=attr.allocated,
        atime_ns=attr.atime_ns,
        mtime_ns=attr.mtime_ns,
        ctime_ns=attr.ctime_ns,
        version=attr.version,
        rdev=attr.rdev,
        target=target,
        target_bytes=target_bytes,
        replication=format_replication(attr.replication),
        etag=format_etag(attr) if attr.type is FileType.FILE else "",
        replicas=replicas,
    )


def attr_of_body(body: AttrBody) -> Attr:
    return Attr(
        ino=InodeId(body.ino),
        type=_TYPES[body.type],
        mode=int(body.mode, 8),
        uid=body.uid,
        gid=body.gid,
        nlink=body.nlink,
        size=body.size,
        allocated=body.allocated,
        atime_ns=body.atime_ns,
        mtime_ns=body.mtime_ns,
        ctime_ns=body.ctime_ns,
        version=body.version,
        rdev=body.rdev,
        target=_bytes(body.target, body.target_bytes),
        replication=_parse_replication(body.replication),
    )


def name_of_body(body: AttrBody) -> str:
    """The entry's name as Python's file functions have it (os.fsdecode)."""
    return os.fsdecode(_bytes(body.name, body.name_bytes))


def attr_headers(attr: Attr) -> dict[str, str]:
    """Headers of `HEAD /fs/PATH`. Content-Length is a file's size and 0 for everything else."""
    headers = {
        "Content-Length": str(attr.size if attr.type is FileType.FILE else 0),
        "Last-Modified": formatdate(attr.mtime_ns // 1_000_000_000, usegmt=True),
        routes.HEADER_TYPE: _TYPE_NAMES[attr.type],
        routes.HEADER_MODE: f"{attr.mode:04o}",
        routes.HEADER_UID: str(attr.uid),
        routes.HEADER_GID: str(attr.gid),
        routes.HEADER_REPLICATION: format_replication(attr.replication),
        routes.HEADER_INODE: str(attr.ino),
        routes.HEADER_NLINK: str(attr.nlink),
        routes.HEADER_SIZE: str(attr.size),
        routes.HEADER_ALLOCATED: str(attr.allocated),
        routes.HEADER_MTIME: str(attr.mtime_ns),
        routes.HEADER_ATIME: str(attr.atime_ns),
        routes.HEADER_CTIME: str(attr.ctime_ns),
        routes.HEADER_VERSION: str(attr.version),
    }
    if attr.type is FileType.FILE:
        headers["ETag"] = format_etag(attr)
        headers["Accept-Ranges"] = "bytes"
    if attr.type is FileType.SYMLINK:
        headers[routes.HEADER_TARGET] = encode_name(attr.target)
    if attr.rdev:
        headers[routes.HEADER_RDEV] = str(attr.rdev)
    return headers


def attr_of_headers(headers: Mapping[str, str]) -> Attr:
    """The attributes in an answer to HEAD. Raises InputOutput where it is no answer of a namenode."""
    try:
        return Attr(
            ino=InodeId(int(headers[routes.HEADER_INODE])),
            type=_TYPES[headers[routes.HEADER_TYPE]],
            mode=int(headers[routes.HEADER_MODE], 8),
            uid=int(headers[routes.HEADER_UID]),
            gid=int(headers[routes.HEADER_GID]),
            nlink=int(headers[routes.HEADER_NLINK]),
            size=int(headers[routes.HEADER_SIZE]),
            allocated=int(headers[routes.HEADER_ALLOCATED]),
            atime_ns=int(headers[routes.HEADER_ATIME]),
            mtime_ns=int(headers[routes.HEADER_MTIME]),
            ctime_ns=int(headers[routes.HEADER_CTIME]),
            version=int(headers[routes.HEADER_VERSION]),
            rdev=int(headers.get(routes.HEADER_RDEV, "0")),
            target=decode_component(headers.get(routes.HEADER_TARGET, "")),
            replication=_parse_replication(headers[routes.HEADER_REPLICATION]),
        )
    except (KeyError, ValueError) as error:
        raise InputOutput(f"the answer has no attributes of a file: {error!r}") from None
