"""`os.walk` and `glob.glob` for the tree of DFS. Only reads."""

from __future__ import annotations

import errno
import fnmatch
import os
import re
from collections.abc import Callable, Iterator
from typing import Final

from dfslib.client.entry import Entry
from dfslib.client.operations import Operations
from dfslib.client.remote_paths import RemotePath

Step = tuple[str, list[str], list[str]]
_MAGIC: Final = re.compile(r"[*?[]")


def walk(
    operations: Operations,
    top: RemotePath,
    topdown: bool = True,
    onerror: Callable[[OSError], object] | None = None,
    followlinks: bool = False,
) -> Iterator[Step]:
    """`os.walk`: (path, names of directories, names of other files) for `top` and what is below.

    As there: a symbolic link to a directory counts as a directory and is entered only with `followlinks`;
    with `topdown` the caller may edit the list of directories in place; errors go to `onerror`, or are passed over.
    """
    stack: list[str | Step] = [os.fsdecode(top)]
    while stack:
        path = stack.pop()
        if isinstance(path, tuple):
            yield path
            continue
        try:
            entries = list(operations.entries(path))
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            if onerror is not None:
                onerror(error)
            continue
        links = {entry.name for entry in entries if entry.is_symlink}
        directories = [entry.name for entry in entries if is_directory(operations, path, entry)]
        among = set(directories)
        files = [entry.name for entry in entries if entry.name not in among]
        if topdown:
            yield path, directories, files
        else:
            stack.append((path, directories, files))
        below = [name for name in directories if followlinks or name not in links]
        stack += [_join(path, name) for name in reversed(below)]


def _join(path: str, name: str) -> str:
    return path + name if path.endswith("/") else f"{path}/{name}"


def is_directory(operations: Operations, path: str, entry: Entry) -> bool:
    """Whether an entry of `path` is a directory or a symbolic link to one."""
    if not entry.is_symlink:
        return entry.is_dir
    try:
        return operations.attributes(_join(path, entry.name)).is_dir
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES):
            raise
        return False


def glob(operations: Operations, pattern: str, recursive: bool = False, include_hidden: bool = False) -> list[str]:
    """`glob.glob`: the paths that match, sorted within each directory."""
    absolute = pattern.startswith("/")
    parts = [part for part in pattern.split("/") if part]
    if not parts:
        return ["/"] if absolute else []
    finder = _Finder(operations, recursive, include_hidden, directories_only=pattern.endswith("/"))
    return list(finder.find("/" if absolute else "", parts))


class _Finder:
    def __init__(self, operations: Operations, recursive: bool, include_hidden: bool, directories_only: bool) -> None:
        self._operations = operations
        self._recursive = recursive
        self._include_hidden = include_hidden
        self._directories_only = directories_only

    def find(self, base: str, parts: list[str]) -> Iterator[str]:
        """Paths below `base` ("" is the root, without a slash) that match `parts`."""
        part, rest = parts[0], parts[1:]
        if self._recursive and part == "**":
            yield from self._find_any_depth(base, rest)
        elif not _MAGIC.search(part):
            yield from self._find_literally(base, part, rest)
        else:
            for entry in self._matching(base, part):
                yield from self._go_on(base + entry.name, entry, base, rest)

    def _find_literally(self, base: str, part: str, rest: list[str]) -> Iterator[str]:
        path = base + part
        if rest:
            yield from self.find(path + "/", rest)
        elif self._exists(path):
            yield path + "/" * self._directories_only

    def _find_any_depth(self, base: str, rest: list[str]) -> Iterator[str]:
        if rest:
            yield from self.find(base, rest)
        elif base:
            yield base
        for entry in self._listing(base):
            if not self._include_hidden and entry.name.startswith("."):
                continue
            if entry.is_dir:
                yield from self._find_any_depth(f"{base}{entry.name}/", rest) if rest else self._all(base, entry)
            elif not rest and not self._directories_only:
                yield base + entry.name

    def _all(self, base: str, entry: Entry) -> Iterator[str]:
        path = base + entry.name
        yield path + "/" * self._directories_only
        for found in self._find_any_depth(path + "/", []):
            if found != path + "/":
                yield found

    def _go_on(self, path: str, entry: Entry, base: str, rest: list[str]) -> Iterator[str]:
        if not rest and not self._directories_only:
            yield path
        elif is_directory(self._operations, base or "/", entry):
            if rest:
                yield from self.find(path + "/", rest)
            else:
                yield path + "/"

    def _matching(self, base: str, part: str) -> Iterator[Entry]:
        match = re.compile(fnmatch.translate(part)).match
        hidden = self._include_hidden or part.startswith(".")
        for entry in self._listing(base):
            if match(entry.name) and (hidden or not entry.name.startswith(".")):
                yield entry

    def _listing(self, base: str) -> list[Entry]:
        try:
            return list(self._operations.entries(base or "/"))
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return []

    def _exists(self, path: str) -> bool:
        try:
            info = self._operations.attributes(path, follow=self._directories_only)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return info.is_dir or not self._directories_only
