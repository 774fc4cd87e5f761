"""The requests of the namenode about files, one method each. No policy: what `mv` does about an
existing directory, or how a tree is copied, is decided by the callers.

Every method raises the OSError that Python raises for a local file, ConnectionError where the namenode does
not answer in time, ValueError for NUL in a path, and FileNotFoundError for an empty path.
"""

from __future__ import annotations

import base64
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from dfslib.client import remote_paths
from dfslib.client.bodies import Body
from dfslib.client.entry import Entry
from dfslib.client.remote_paths import RemotePath
from dfslib.client.results import FileInfo, info_of_attr, info_of_body
from dfslib.client.transport import (
    CHANGE_ANSWER_S,
    Answer,
    Repeat,
    Request,
    Transport,
    os_error,
)
from dfslib.errors import DfsError
from dfslib.model import clamped_time
from dfslib.wire import messages
from dfslib.wire.attributes import attr_of_headers, name_of_body
from dfslib.wire.paths import decode_component, encode_name, encode_path

PAGE_ENTRIES: Final = 1000
"""Entries asked for at once: some 500 KB of JSON, a few milliseconds."""
SMALL_BODY_BYTES: Final = 8 << 20
"""Disks have synced so much within a second; the last block of a long body may take them far longer."""


@dataclass(frozen=True)
class WriteOptions:
    """How a file is written. None and False leave it to the namenode.

    `mode`: permission bits. `uid`, `gid`: the owner, also of a file that is replaced. `mtime_ns`: time of the
    last change. `parents`: make missing directories. `replication`: `all` or a number of copies. `exclusive`:
    only where nothing is there yet. `if_match`: only where the present content has this ETag.
    """

    mode: int | None = None
    mtime_ns: int | None = None
    parents: bool = False
    replication: str | None = None
    exclusive: bool = False
    if_match: str | None = None
    uid: int | None = None
    gid: int | None = None

    def query(self) -> str:
        return query(
            mode=self.mode if self.mode is None else format_mode(self.mode),
            uid=self.uid,
            gid=self.gid,
            mtime=self.mtime_ns if self.mtime_ns is None else format_time(self.mtime_ns),
            parents=self.parents,
            replication=self.replication,
        )

    def headers(self) -> dict[str, str]:
        headers = {}
        if self.exclusive:
            headers["If-None-Match"] = "*"
        if self.if_match is not None:
            headers["If-Match"] = self.if_match
        return headers


@dataclass(frozen=True)
class AttributeChange:
    """Attributes to set; None leaves one as it is."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None


def format_mode(mode: int) -> str:
    return f"{mode & 0o7777:o}"


def format_time(time_ns: int) -> str:
    """Decimal seconds, exact to the nanosecond, before 1970 too; of times that no inode can have the nearest one."""
    time_ns = clamped_time(time_ns)
    sign, rest = ("-", -time_ns) if time_ns < 0 else ("", time_ns)
    return f"{sign}{rest // 1_000_000_000}.{rest % 1_000_000_000:09d}"


def query(**parameters: str | int | bool | bytes | None) -> str:
    """A query of those parameters that are not None or False; bytes are percent-encoded, slashes kept."""
    parts = []
    for key, value in parameters.items():
        if value is None or value is False:
            continue
        text = (
            "true"
            if value is True
            else encode_path(value)
            if isinstance(value, bytes)
            else encode_path(str(value).encode())
        )
        parts.append(f"{key}={text}")
    return "&".join(parts)


def _answer_timeout_s(body: Body) -> float | None:
    """How long the answer is waited for when the body is sent. None: as long as for any other, after which a
    small one is soon sent again."""
    return None if body.size is not None and body.size <= SMALL_BODY_BYTES else CHANGE_ANSWER_S


class Operations:
    """The namenode behind `transport`."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    # Reading

    def attributes(self, path: RemotePath, *, follow: bool = True) -> FileInfo:
        """Attributes of a file; of a final symbolic link itself where `follow` is false."""
        target = remote_paths.target(path, "" if follow else "follow=false")
        answer = self._send(Request("HEAD", target, filename=os.fspath(path)))
        try:
            return info_of_attr(attr_of_headers(answer.headers))
        except DfsError as error:
            raise os_error(error, os.fspath(path)) from error

    def entries(self, path: RemotePath) -> Iterator[Entry]:
        """The entries of a directory, sorted by the bytes of their names, asked for page by page."""
        directory = remote_paths.plain(path)
        after: bytes | None = None
        while True:
            parameters = f"limit={PAGE_ENTRIES}" + ("" if after is None else f"&after={encode_name(after)}")
            answer = self._send(Request("GET", remote_paths.target(path, parameters), filename=os.fspath(path)))
            if answer.status in (301, 302, 303, 307, 308):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fspath(path))
            listing = self.transport.decode(answer, messages.ListingBody)
            entry = None
            for body in listing.entries:
                entry = Entry(name_of_body(body), info_of_body(body), directory)
                yield entry
            if not listing.more or entry is None:
                return
            after = os.fsencode(entry.name)

    def extended_attributes(self, path: RemotePath) -> dict[str, bytes]:
        answer = self._send(Request("GET", remote_paths.target(path, "op=xattrs"), filename=os.fspath(path)))
        body = self.transport.decode(answer, messages.XattrsBody)
        return {os.fsdecode(decode_component(name)): base64.b64decode(value) for name, value in body.xattrs.items()}

    # Content

    def write(self, path: RemotePath, body: Body, options: WriteOptions) -> FileInfo:
        """Make `body` the content of a file, atomically: on any error the old content stays, or nothing."""
        return self._change(
            Request(
                "PUT",
                remote_paths.target(path, options.query()),
                body=body,
                headers=options.headers(),
                repeat=Repeat.ONCE,
                filename=os.fspath(path),
                answer_timeout_s=_answer_timeout_s(body),
            )
        )

    def append(self, path: RemotePath, body: Body) -> FileInfo:
        """Add `body` to the end of a file, atomically."""
        return self._change(
            Request(
                "POST",
                remote_paths.target(path, "op=append"),
                body=body,
                repeat=Repeat.ONCE,
                filename=os.fspath(path),
                answer_timeout_s=_answer_timeout_s(body),
            )
        )

    # Names

    def delete(self, path: RemotePath, *, recursive: bool = False) -> None:
        """Remove a file, a link or a directory; one that is not empty only where `recursive`."""
        self._send(
            Request(
                "DELETE",
                remote_paths.target(path, query(recursive=recursive)),
                repeat=Repeat.ONCE,
                filename=os.fspath(path),
            )
        )

    def make_directory(self, path: RemotePath, *, mode: int | None = None, parents: bool = False) -> bool:
        """Make a directory. Where `parents`, missing ones above it too, and one that is there already is no
        error. True where it is new."""
        text = query(op="mkdir", parents=parents, mode=None if mode is None else format_mode(mode))
        answer = self._send(
            Request(
                "POST",
                remote_paths.target(path, text),
                repeat=Repeat.ONCE,
                filename=os.fspath(path),
            )
        )
        return answer.status == 201

    def rename(self, source: RemotePath, destination: RemotePath, *, replace: bool = True) -> FileInfo:
        """rename(2): `destination` names the new place exactly, and is replaced unless `replace` is false."""
        return self._two_paths(source, destination, query(op="rename", noreplace=not replace))

    def copy(self, source: RemotePath, destination: RemotePath, *, parents: bool = False) -> FileInfo:
        """Copy on the server's side; the copy shares the blocks."""
        return self._two_paths(source, destination, query(op="copy", parents=parents))

    def link(self, source: RemotePath, destination: RemotePath) -> FileInfo:
        """Make `destination` a second name of the file `source`."""
        return self._two_paths(source, destination, query(op="link"))

    def symlink(self, target: RemotePath, path: RemotePath) -> FileInfo:
        """Make `path` a symbolic link to `target`."""
        text = query(op="symlink", to=remote_paths.to_bytes(target))
        return self._change(
            Request(
                "POST",
                remote_paths.target(path, text),
                repeat=Repeat.ONCE,
                filename=os.fspath(target),
                filename2=os.fspath(path),
            )
        )

    def _two_paths(self, source: RemotePath, destination: RemotePath, text: str) -> FileInfo:
        to = encode_path(remote_paths.absolute(destination))
        return self._change(
            Request(
                "POST",
                remote_paths.target(source, f"{text}&to={to}"),
                repeat=Repeat.ONCE,
                filename=os.fspath(source),
                filename2=os.fspath(destination),
            )
        )

    # Attributes

    def set_attributes(self, path: RemotePath, change: AttributeChange, *, follow: bool = True) -> FileInfo:
        """Change attributes, all or none."""
        text = query(
            op="setattr",
            mode=None if change.mode is None else format_mode(change.mode),
            uid=change.uid,
            gid=change.gid,
            atime=None if change.atime_ns is None else format_time(change.atime_ns),
            mtime=None if change.mtime_ns is None else format_time(change.mtime_ns),
        )
        if not follow:
            text += "&follow=false"
        return self._change_path(path, text)

    def touch(self, path: RemotePath) -> FileInfo:
        """Make an empty file, or set the times of the one that is there to now."""
        return self._change_path(path, "op=touch")

    def truncate(self, path: RemotePath, size: int) -> FileInfo:
        """Cut a file off at `size` bytes, or lengthen it with zeros."""
        text = query(op="truncate", size=size)
        return self._change_path(path, text)

    def set_extended_attribute(
        self, path: RemotePath, name: str, value: bytes, *, create: bool = False, replace: bool = False
    ) -> None:
        self._send(
            Request(
                "POST",
                remote_paths.target(path, query(op="setxattr", name=os.fsencode(name), create=create, replace=replace)),
                body=Body(value),
                repeat=Repeat.ONCE,
                filename=os.fspath(path),
            )
        )

    def remove_extended_attribute(self, path: RemotePath, name: str) -> None:
        self._send(
            Request(
                "POST",
                remote_paths.target(path, query(op="removexattr", name=os.fsencode(name))),
                repeat=Repeat.ONCE,
                filename=os.fspath(path),
            )
        )

    def _send(self, request: Request) -> Answer:
        return self.transport.send(request)

    def _change_path(self, path: RemotePath, text: str) -> FileInfo:
        target = remote_paths.target(path, text)
        return self._change(Request("POST", target, repeat=Repeat.ONCE, filename=os.fspath(path)))

    def _change(self, request: Request) -> FileInfo:
        return info_of_body(self.transport.decode(self._send(request), messages.AttrBody))
