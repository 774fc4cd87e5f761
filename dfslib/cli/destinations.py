"""Where sources go, as cp(1) and mv(1) have it: into a directory that exists, else to the name given.

One rule for both sides, remote and local; asks what is at the destination once.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from dfslib.cli.session import Session

IsDirectory = Callable[[str], bool | None]
"""Whether there is a directory; None where there is nothing."""


def remote_is_directory(session: Session) -> IsDirectory:
    def ask(path: str) -> bool | None:
        try:
            return session.namenode.stat(path).is_dir
        except FileNotFoundError:
            return None

    return ask


def remote_source_is_directory(session: Session) -> IsDirectory:
    """Of a source, which is taken as it is: a symbolic link is no directory."""

    def ask(path: str) -> bool | None:
        try:
            return session.namenode.lstat(path).is_dir
        except FileNotFoundError:
            return None

    return ask


def local_is_directory(path: str) -> bool | None:
    if Path(path).is_dir():
        return True
    return False if os.path.lexists(path) else None


def local_source_is_directory(path: str) -> bool | None:
    """Of a source, which is taken as it is: a symbolic link is no directory."""
    return False if Path(path).is_symlink() else local_is_directory(path)


def places(
    sources: Sequence[str],
    destination: str,
    is_directory: IsDirectory,
    *,
    source_is_directory: IsDirectory | None = None,
) -> list[tuple[str, str]]:
    """Each source with its exact place.

    Several sources, and a destination that ends in a slash, need a directory; where `source_is_directory` is given, a
    single source that is a directory itself may get a new name with a slash. Raises NotADirectoryError and
    FileNotFoundError; not for a source that is missing, which whoever takes it says. A source without a name of its
    own (`.`, `/`) gives its content to the directory.
    """
    found = is_directory(destination)
    if found:
        return [(source, _inside(destination, source)) for source in sources]
    may_be_new = len(sources) == 1 and (
        not destination.endswith("/")
        or (found is None and source_is_directory is not None and source_is_directory(sources[0]) is not False)
    )
    if not may_be_new:
        number = errno.ENOENT if found is None else errno.ENOTDIR
        raise OSError(number, os.strerror(number), destination)
    return [(sources[0], destination.rstrip("/") or "/")]


def _inside(directory: str, source: str) -> str:
    name = source.rstrip("/").rpartition("/")[2]
    if name in ("", ".", ".."):
        return directory
    return directory.rstrip("/") + "/" + name
