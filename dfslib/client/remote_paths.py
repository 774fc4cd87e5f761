"""Paths of DFS as Python programs write them: text, bytes or path objects.

Text stands for bytes as in Python's own file functions (`os.fsencode`, surrogateescape). A path without a
leading slash means the same as one with it: there is no working directory, and so one that begins with `..` is
refused. Elsewhere `..` is sent as it is written; the namenode resolves it, after symbolic links as POSIX says, and
never above the root. An `Entry` is its full path; a local `os.DirEntry` is refused. Does no I/O.
"""

from __future__ import annotations

import errno
import os

from dfslib.wire import routes

RemotePath = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def to_bytes(path: RemotePath) -> bytes:
    """The bytes of a path. Raises FileNotFoundError for an empty one and ValueError for NUL, as open() does, and
    TypeError for an entry of a local directory."""
    if isinstance(path, os.DirEntry):
        raise TypeError(f"a path of DFS is required, and {path.path!r} is an entry of a local directory")
    raw = os.fsencode(path)
    if not raw:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
    if b"\0" in raw:
        raise ValueError("embedded null byte")
    return raw


def target(path: RemotePath, query: str = "") -> str:
    """`/fs/PATH`, percent-encoded, with its query."""
    url = routes.fs(_rooted(path))
    return f"{url}?{query}" if query else url


def absolute(path: RemotePath) -> bytes:
    """The path with its leading slash, as it stands in parameters."""
    return b"/" + _rooted(path).lstrip(b"/")


def plain(path: RemotePath) -> str:
    """The path with its leading slash, and without slashes and dots that mean nothing."""
    return "/" + os.fsdecode(b"/".join(part for part in _rooted(path).split(b"/") if part not in (b"", b".")))


def _rooted(path: RemotePath) -> bytes:
    """The bytes of a path that leads from the root. Raises OSError(EINVAL) where it leads from another place."""
    raw = to_bytes(path)
    if raw == b".." or raw.startswith(b"../"):
        text = "a relative path, and DFS has no working directory: begin it with a slash"
        raise OSError(errno.EINVAL, text, os.fspath(path))
    return raw


def last_name(path: RemotePath) -> bytes:
    """The last component, trailing slashes aside; empty for the root."""
    return to_bytes(path).rstrip(b"/").rpartition(b"/")[2]


def parent(path: RemotePath) -> bytes:
    """The path without its last component; the root's is the root."""
    return b"/" + to_bytes(path).strip(b"/").rpartition(b"/")[0]


def join(directory: RemotePath, name: str | bytes) -> bytes:
    """`name` in `directory`."""
    return to_bytes(directory).rstrip(b"/") + b"/" + os.fsencode(name)


def check_local_name(name: bytes) -> None:
    """Raise ValueError where a name received cannot be one component of a local path.

    What a server sends is never let out of the folder that a download was told to fill.
    """
    if not name or name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise ValueError(f"{os.fsdecode(name)!r} is no name of a file")
