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


def local_is_directory(path: str) -> bool | None:
    if Path(path).is_dir():
        return True
    return False if os.path.lexists(path) else None


def places(
    sources: Sequence[str], destination: str, is_directory: IsDirectory, *, new_directory: bool = False
) -> list[tuple[str, str]]:
    """Each source with its exact place.

    Several sources, and a destination that ends in a slash, need a directory; `new_directory` allows the
    slash after the new name of a single source that is a directory itself. Raises NotADirectoryError and
    FileNotFoundError. A source without a name of its own (`.`, `/`) gives its content to the directory.
    """
    found = is_directory(destination)
    if found:
        return [(source, _inside(destination, source)) for source in sources]
    wants_directory = destination.endswith("/") and not (new_directory and found is None)
    if len(sources) > 1 or wants_directory:
        number = errno.ENOENT if found is None else errno.ENOTDIR
        raise OSError(number, os.strerror(number), destination)
    return [(sources[0], destination.rstrip("/") or "/")]


def _inside(directory: str, source: str) -> str:
    name = source.rstrip("/").rpartition("/")[2]
    if name in ("", ".", ".."):
        return directory
    return directory.rstrip("/") + "/" + name
