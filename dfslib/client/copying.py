"""Copies of trees within the cluster: one server-side copy for each file, no data moves."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable

from dfslib.client import remote_paths
from dfslib.client.operations import Operations
from dfslib.client.parallel import Tally, run_all
from dfslib.client.results import FileInfo
from dfslib.client.transfers import JOBS, raise_error


def copy_tree(
    operations: Operations,
    source: bytes,
    destination: bytes,
    on_error: Callable[[OSError], None] = raise_error,
) -> None:
    """Copy what is at `source`, a symbolic link as such, to exactly `destination`; directories are merged.

    The list of what is to be copied is made before anything is, so that a tree copied into itself ends.
    Raises what `on_error` raises.
    """
    _Copy(operations, on_error).run(source, destination)


class _Copy:
    def __init__(self, operations: Operations, on_error: Callable[[OSError], None]) -> None:
        self._operations = operations
        self._on_error = on_error

    def run(self, source: bytes, destination: bytes) -> None:
        try:
            _check_not_inside(source, destination)
            items = self._scan(source, destination, self._operations.attributes(source, follow=False))
        except OSError as error:
            self._on_error(error)
            return
        files = []
        for origin, place, info in items:
            if info.is_dir:
                self._try(functools.partial(self._make_directory, place, info))
            elif info.is_symlink:
                self._try(functools.partial(self._copy_symlink, place, info))
            else:
                copy = functools.partial(self._operations.copy, origin, place)
                files.append(functools.partial(self._try, copy))
        run_all(files, JOBS, Tally(None))

    def _scan(self, source: bytes, destination: bytes, info: FileInfo) -> list[tuple[bytes, bytes, FileInfo]]:
        items = []
        pending = [(source, destination, info)]
        while pending:
            item = pending.pop()
            items.append(item)
            if not item[2].is_dir:
                continue
            try:
                for entry in self._operations.entries(item[0]):
                    origin, place = (remote_paths.join(path, entry.name) for path in item[:2])
                    pending.append((origin, place, entry.info))
            except OSError as error:
                self._on_error(error)
        return items

    def _make_directory(self, place: bytes, info: FileInfo) -> None:
        try:
            self._operations.make_directory(place, mode=info.mode)
        except FileExistsError:
            if not self._operations.attributes(place).is_dir:
                raise

    def _copy_symlink(self, place: bytes, info: FileInfo) -> None:
        try:
            self._operations.symlink(info.target, place)
        except FileExistsError:
            if self._operations.attributes(place, follow=False).is_dir:
                raise
            self._operations.delete(place)
            self._operations.symlink(info.target, place)

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            self._on_error(error)


def _check_not_inside(source: bytes, destination: bytes) -> None:
    inside = remote_paths.absolute(destination).rstrip(b"/") + b"/"
    if inside.startswith(remote_paths.absolute(source).rstrip(b"/") + b"/"):
        raise OSError(
            errno.EINVAL,
            "cannot copy it into or onto itself",
            os.fsdecode(source),
            None,
            os.fsdecode(destination),
        )
