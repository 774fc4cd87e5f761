"""An entry of a directory as `ls` gives it: its full path as a path object, and its attributes. No I/O.

What is done to it is done to that file, and to no other one of its name.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field

from dfslib.client.results import FileInfo


@functools.total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A directory's entry: its name, which is also its `str`, its attributes, and the directory it is in.

    As a path object (`os.fspath`) it is its full path. Two are equal, and hash alike, where their paths are; they sort
    by their paths, component by component and byte by byte, as listings do. `parent` is the directory as it was
    asked for, with its leading slash; `..` in it is the namenode's to resolve.
    """

    name: str
    info: FileInfo = field(repr=False)
    parent: str

    @property
    def path(self) -> str:
        return f"{self.parent.rstrip('/')}/{self.name}"

    def __str__(self) -> str:
        return self.name

    def __fspath__(self) -> str:
        return self.path

    def __eq__(self, other: object) -> bool:
        return self.path == other.path if isinstance(other, Entry) else NotImplemented

    def __lt__(self, other: object) -> bool:
        return _components(self) < _components(other) if isinstance(other, Entry) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.path)

    def stat(self) -> FileInfo:
        """The attributes as they were listed, a symbolic link's own; `HttpNameNode.stat(entry)` asks and follows."""
        return self.info

    @property
    def is_dir(self) -> bool:
        return self.info.is_dir

    @property
    def is_file(self) -> bool:
        return self.info.is_file

    @property
    def is_symlink(self) -> bool:
        return self.info.is_symlink

    @property
    def size(self) -> int:
        return self.info.size

    @property
    def mode(self) -> int:
        return self.info.mode

    @property
    def mtime_ns(self) -> int:
        return self.info.mtime_ns


def _components(entry: Entry) -> list[bytes]:
    return os.fsencode(entry.path).split(b"/")


def local_path(path: str | os.PathLike[str]) -> str:
    """The text of a local path. Raises TypeError for an entry of DFS, which names nothing on a local disk."""
    if isinstance(path, Entry):
        raise TypeError(f"a local path is required, and {path.path!r} is one of DFS: say which with entry.name")
    return os.fspath(path)
