"""A file system in plain Python objects, obviously right: what the namespace is compared with.

A file's bytes are a dictionary from offset to byte, so that a file may have holes and reach far; link
counts are not kept but counted. Raises the errors of dfslib, and changes nothing when it does.
"""

from __future__ import annotations

import copy as python_copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dfslib.errors import (
    Exists,
    FileTooLarge,
    InvalidArgument,
    IsADirectory,
    NameTooLong,
    NoAttribute,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotPermitted,
    TooManySymlinks,
)
from dfslib.model import FILE_SIZE_MAX, FileType

SETGID = 0o2000
REPLICATION = b"user.dfs.replication"


@dataclass(eq=False)
class Node:
    type: FileType
    mode: int
    uid: int = 0
    gid: int = 0
    atime_ns: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    target: bytes = b""
    size: int = 0
    data: dict[int, int] = field(default_factory=dict)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    entries: dict[bytes, Node] = field(default_factory=dict)
    parent: Node | None = None
    changes: int = 0
    """How often its content changed."""
    ino: int | None = None
    """Of the inode in the file system that is compared; noted there when it is first seen."""
    seen_changes: int = -1
    seen_version: int = -1
    """`changes` and that inode's version when they were last compared."""

    @property
    def is_dir(self) -> bool:
        return self.type is FileType.DIRECTORY

    def below(self) -> Iterator[tuple[bytes, Node]]:
        """Every name below, and what it names."""
        for name, node in self.entries.items():
            yield name, node
            yield from node.below()

    def touch(self, now: int) -> None:
        self.mtime_ns = self.ctime_ns = now

    def born(self, now: int) -> None:
        self.atime_ns = now
        self.touch(now)

    def change(self, now: int) -> None:
        self.changes += 1
        self.touch(now)


class Place(NamedTuple):
    parent: Node
    name: bytes
    node: Node | None


class Path(NamedTuple):
    names: tuple[bytes, ...]
    must_be_dir: bool = False


class ReferenceFs:
    def __init__(self, now: int) -> None:
        self.root = Node(FileType.DIRECTORY, 0o755)
        self.root.parent = self.root
        self.root.born(now)
        self.cut_off: list[Node] = []
        """Trees that were removed as a whole, and may not be freed yet."""

    # Looking

    def resolve(self, path: Path, *, follow: bool = True) -> Place:
        return self._walk(self.root, path.names, path.must_be_dir, follow or path.must_be_dir, [])

    def _walk(self, start: Node, names: Sequence[bytes], must_be_dir: bool, follow: bool, links: list[Node]) -> Place:
        assert start.parent
        place = Place(start.parent, b"", start)
        for index, name in enumerate(names):
            last = index == len(names) - 1
            directory = place.node
            assert directory and directory.parent
            if name == b"..":
                up = directory.parent
                assert up.parent
                place = Place(up.parent, b"", up)
                continue
            if len(name) > 255:
                raise NameTooLong
            place = Place(directory, name, directory.entries.get(name))
            if place.node and place.node.type is FileType.SYMLINK and (follow or not last):
                place = self._follow(directory, place.node, last and must_be_dir, last, links)
            if place.node is None:
                if not last:
                    raise NotFound
            elif not place.node.is_dir and (must_be_dir or not last):
                raise NotADirectory
        return place

    def _follow(self, directory: Node, link: Node, must_be_dir: bool, last: bool, links: list[Node]) -> Place:
        links.append(link)
        if len(links) > 40:
            raise TooManySymlinks
        slash = link.target.endswith((b"/", b"/."))
        start = self.root if link.target.startswith(b"/") else directory
        names = [name for name in link.target.split(b"/") if name not in (b"", b".")]
        place = self._walk(start, names, must_be_dir or slash, True, links)
        if place.node is None and slash:
            raise NotFound
        return place

    def find(self, path: Path, *, follow: bool = True) -> Node:
        node = self.resolve(path, follow=follow).node
        if node is None:
            raise NotFound
        return node

    def nlink(self, node: Node) -> int:
        """Counted; names in trees that were cut off do not count."""
        if node.is_dir:
            return 2 + sum(child.is_dir for child in node.entries.values())
        return sum(child is node for _, child in self.root.below())

    def names_cut_off(self, node: Node) -> int:
        return sum(child is node for tree in self.cut_off for _, child in tree.below())

    def list_names(self, path: Path, after: bytes) -> list[bytes]:
        directory = self.find(path)
        if not directory.is_dir:
            raise NotADirectory
        return sorted(name for name in directory.entries if name > after)

    # Making

    def make(self, path: Path, node: Node, now: int, *, follow: bool) -> Node:
        place = self.resolve(path, follow=follow)
        if place.node:
            raise Exists
        if node.type is FileType.SYMLINK and not 0 < len(node.target) < 4096:
            raise NameTooLong if node.target else InvalidArgument
        return self._enter(place, node, now)

    def _enter(self, place: Place, node: Node, now: int) -> Node:
        directory = place.parent
        if directory.mode & SETGID:
            node.gid = directory.gid
            if node.is_dir:
                node.mode |= SETGID
        if REPLICATION in directory.xattrs and REPLICATION not in node.xattrs:
            node.xattrs[REPLICATION] = directory.xattrs[REPLICATION]
        node.parent = directory if node.is_dir else None
        node.size = len(node.target)
        node.born(now)
        directory.entries[place.name] = node
        directory.touch(now)
        return node

    def make_directories(self, names: Sequence[bytes], now: int) -> Node:
        before = python_copy.deepcopy((self.root, self.cut_off))
        try:
            for depth in range(1, len(names) + 1):
                place = self.resolve(Path(tuple(names[:depth])))
                if place.node is None:
                    self._enter(place, Node(FileType.DIRECTORY, 0o755), now)
                elif not place.node.is_dir:
                    raise NotADirectory
            return self.find(Path(tuple(names)))
        except Exception:
            self.root, self.cut_off = before
            raise

    def link(self, source: Path, target: Path, now: int) -> Node:
        node, place = self.find(source, follow=False), self.resolve(target, follow=False)
        if place.node:
            raise Exists
        if node.is_dir:
            raise NotPermitted
        place.parent.entries[place.name] = node
        place.parent.touch(now)
        node.ctime_ns = now
        return node

    # Removing

    def _named(self, path: Path) -> tuple[Place, Node]:
        place = self.resolve(path, follow=False)
        if not place.name:
            raise InvalidArgument
        if place.node is None:
            raise NotFound
        return place, place.node

    def _remove(self, place: Place, node: Node, now: int) -> None:
        del place.parent.entries[place.name]
        place.parent.touch(now)
        if not node.is_dir:
            node.ctime_ns = now

    def unlink(self, path: Path, now: int) -> None:
        place, node = self._named(path)
        if node.is_dir:
            raise IsADirectory
        self._remove(place, node, now)

    def rmdir(self, path: Path, now: int) -> None:
        place, node = self._named(path)
        if not node.is_dir:
            raise NotADirectory
        if node.entries:
            raise NotEmpty
        self._remove(place, node, now)

    def detach(self, path: Path, now: int) -> None:
        place, node = self._named(path)
        self._remove(place, node, now)
        if node.entries:
            self.cut_off.append(node)

    # Moving

    def rename(self, source: Path, target: Path, now: int, *, noreplace: bool) -> None:
        old, new = self.resolve(source, follow=False), self.resolve(target, follow=False)
        if not old.name:
            raise InvalidArgument
        if old.node is None:
            raise NotFound
        if not new.name:
            raise InvalidArgument
        if new.node and noreplace:
            raise Exists
        self._refuse_below(old.node, new.parent)
        if new.node is old.node:
            return
        if new.node:
            self._refuse_replacing(old.node, new.node)
            self._remove(new, new.node, now)
        self._remove(old, old.node, now)
        self._place(old.node, new, now)

    def exchange(self, one: Path, other: Path, now: int) -> None:
        first, second = self.resolve(one, follow=False), self.resolve(other, follow=False)
        if not first.name or not second.name:
            raise InvalidArgument
        if first.node is None or second.node is None:
            raise NotFound
        self._refuse_below(first.node, second.parent)
        self._refuse_below(second.node, first.parent)
        if first.node is not second.node:
            self._place(first.node, second, now)
            self._place(second.node, first, now)

    def _refuse_below(self, node: Node, directory: Node) -> None:
        if node is directory or any(child is directory for _, child in node.below()):
            raise InvalidArgument

    def _refuse_replacing(self, node: Node, replaced: Node) -> None:
        if node.is_dir and not replaced.is_dir:
            raise NotADirectory
        if not node.is_dir and replaced.is_dir:
            raise IsADirectory
        if replaced.entries:
            raise NotEmpty

    def _place(self, node: Node, place: Place, now: int) -> None:
        place.parent.entries[place.name] = node
        place.parent.touch(now)
        node.ctime_ns = now
        if node.is_dir:
            node.parent = place.parent

    # Attributes

    def set_attrs(self, path: Path, changes: dict[str, int], now: int, *, follow: bool) -> Node:
        node = self.find(path, follow=follow)
        node.ctime_ns = now
        for name, value in changes.items():
            setattr(node, name, value)
        return node

    def set_xattr(self, path: Path, name: bytes, value: bytes, now: int, *, create: bool, replace: bool) -> None:
        node = self.find(path)
        if not name.startswith(b"user."):
            raise InvalidArgument
        if create and name in node.xattrs:
            raise Exists
        if replace and name not in node.xattrs:
            raise NoAttribute
        if name == REPLICATION and value not in (b"all", b"1", b"3"):
            raise InvalidArgument
        node.xattrs[name] = value
        node.ctime_ns = now

    def remove_xattr(self, path: Path, name: bytes, now: int) -> None:
        node = self.find(path)
        if name not in node.xattrs:
            raise NoAttribute
        del node.xattrs[name]
        node.ctime_ns = now

    # Content

    def _file(self, path: Path) -> Node:
        node = self.find(path)
        if node.is_dir:
            raise IsADirectory
        if node.type is not FileType.FILE:
            raise InvalidArgument
        return node

    def replace_content(self, path: Path, size: int, pieces: list[tuple[int, bytes]], now: int) -> Node:
        node = self._file(path)
        node.data, node.size = {}, size
        return self._lay(node, 0, pieces, now)

    def write(self, path: Path, offset: int, pieces: list[tuple[int, bytes]], now: int) -> Node:
        return self._lay(self._file(path), offset, pieces, now)

    def append(self, path: Path, pieces: list[tuple[int, bytes]], now: int) -> Node:
        node = self._file(path)
        return self._lay(node, node.size, pieces, now)

    def _lay(self, node: Node, start: int, pieces: list[tuple[int, bytes]], now: int) -> Node:
        if start < 0:
            raise InvalidArgument
        if any(start + offset + len(data) > FILE_SIZE_MAX for offset, data in pieces):
            raise FileTooLarge
        for offset, data in pieces:
            for index, byte in enumerate(data):
                node.data[start + offset + index] = byte
            node.size = max(node.size, start + offset + len(data))
        node.change(now)
        return node

    def truncate(self, path: Path, size: int, now: int) -> Node:
        node = self._file(path)
        if not 0 <= size <= FILE_SIZE_MAX:
            raise FileTooLarge if size > 0 else InvalidArgument
        node.data = {offset: byte for offset, byte in node.data.items() if offset < size}
        node.size = size
        node.change(now)
        return node

    def copy(self, source: Path, target: Path, now: int) -> Node:
        node, place = self.find(source), self.resolve(target)
        made = place.node
        if node.is_dir or (made and made.is_dir):
            raise IsADirectory
        if node.type is not FileType.FILE or (made and (made is node or made.type is not FileType.FILE)):
            raise InvalidArgument
        if made is None:
            made = Node(FileType.FILE, node.mode, node.uid, node.gid)
            kept = node.xattrs.get(REPLICATION)
            made.xattrs = {} if kept is None else {REPLICATION: kept}
            self._enter(place, made, now)
            if kept is None:
                made.xattrs = {}
        made.data, made.size = dict(node.data), node.size
        made.change(now)
        return made
