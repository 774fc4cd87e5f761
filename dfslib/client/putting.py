"""Local files and trees into DFS: directories first, then files in parallel, then the directories' times.

Keeps times, and modes and owners as the options say; hard links become files of their own, devices, sockets
and FIFOs are left out. Where a tree goes is decided by the caller.
"""
# Names are any bytes and are kept exactly as given; Path rewrites them.
# ruff: noqa: PTH115, PTH116, PTH123

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dfslib.client import remote_paths
from dfslib.client.bodies import Body
from dfslib.client.operations import AttributeChange, Operations, WriteOptions
from dfslib.client.owners import Owner, own_umask, own_user
from dfslib.client.parallel import Tally, run_all
from dfslib.client.results import FileInfo
from dfslib.client.transfers import TransferOptions, is_a_directory, kind_of_mode, not_copied


@dataclass(frozen=True, slots=True)
class _File:
    local: str
    remote: bytes


@dataclass(frozen=True, slots=True)
class _Directory:
    remote: bytes
    mode: int
    mtime_ns: int


class Uploader:
    """One upload. `run` may be called once."""

    def __init__(self, operations: Operations, options: TransferOptions) -> None:
        self._operations = operations
        self._options = options
        self._user = own_user()
        self._umask = own_umask()
        self._tally = Tally(options.progress)
        self._files: list[_File] = []
        self._directories: list[_Directory] = []

    def run(self, pairs: Sequence[tuple[str, bytes]]) -> None:
        """Upload each (local path, exact remote path). Raises what `on_error` raises."""
        for local, remote in pairs:
            self._scan_source(local, remote)
        run_all((functools.partial(self._put_file, item) for item in self._files), self._options.jobs, self._tally)
        for directory in reversed(self._directories):
            try:
                change = AttributeChange(mode=directory.mode, mtime_ns=directory.mtime_ns)
                self._operations.set_attributes(directory.remote, change)
            except OSError as error:
                self._options.on_error(error)

    def _mode(self, found: os.stat_result) -> int:
        mode = stat.S_IMODE(found.st_mode)
        return mode if self._options.keep_modes else mode & 0o777 & ~self._umask

    def _owner(self, found: os.stat_result) -> Owner:
        if self._options.keep_owners and not self._user.is_given:
            return Owner(found.st_uid, found.st_gid)
        return self._user

    def _give(self, remote: bytes, found: os.stat_result) -> None:
        """What was made without saying whose it is."""
        owner = self._owner(found)
        if owner.is_given:
            change = AttributeChange(uid=owner.uid, gid=owner.gid)
            self._operations.set_attributes(remote, change, follow=False)

    def _scan_source(self, local: str, remote: bytes) -> None:
        follow = self._options.follow_sources or not self._options.recursive
        try:
            found = os.stat(local, follow_symlinks=follow)
            if stat.S_ISDIR(found.st_mode) and not self._options.recursive:
                raise is_a_directory(local)
            info = None
            if self._options.skip_equal and stat.S_ISREG(found.st_mode):
                info = self._present(remote)
        except OSError as error:
            self._options.on_error(error)
            return
        pending = [(local, remote, found, info)]
        while pending:
            item = pending.pop()
            try:
                if stat.S_ISDIR(item[2].st_mode):
                    pending += reversed(self._scan_directory(*item[:3]))
                else:
                    self._take(*item)
            except OSError as error:
                self._options.on_error(error)

    def _present(self, remote: bytes) -> FileInfo | None:
        try:
            return self._operations.attributes(remote, follow=False)
        except FileNotFoundError:
            return None

    def _scan_directory(
        self, local: str, remote: bytes, found: os.stat_result
    ) -> list[tuple[str, bytes, os.stat_result, FileInfo | None]]:
        """Make the directory, and give what is in the local one beside what is there already."""
        mode = self._mode(found)
        present: Mapping[str, FileInfo] = {}
        try:
            self._operations.make_directory(remote, mode=mode)
            self._give(remote, found)
        except FileExistsError:
            present = {entry.name: entry.info for entry in self._operations.entries(remote)}
        self._directories.append(_Directory(remote, mode, found.st_mtime_ns))
        inside = []
        with os.scandir(local) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                try:
                    attributes = entry.stat(follow_symlinks=False)
                except OSError as error:
                    self._options.on_error(error)
                    continue
                place = remote_paths.join(remote, entry.name)
                inside.append((entry.path, place, attributes, present.get(entry.name)))
        return inside

    def _take(self, local: str, remote: bytes, found: os.stat_result, present: FileInfo | None) -> None:
        if stat.S_ISLNK(found.st_mode):
            self._put_symlink(local, remote, found, present)
        elif not stat.S_ISREG(found.st_mode):
            raise not_copied(kind_of_mode(found.st_mode), local)
        elif self._options.skip_equal and present is not None and _equal(found, present):
            mode = self._mode(found)
            if present.mode != mode:
                self._operations.set_attributes(remote, AttributeChange(mode=mode))
        else:
            self._tally.expect(found.st_size)
            self._files.append(_File(local, remote))

    def _put_symlink(
        self, local: str, remote: bytes, found: os.stat_result, present: FileInfo | None
    ) -> None:
        target = os.readlink(local)
        if present is not None and present.is_symlink and present.target == target:
            return
        try:
            self._operations.symlink(target, remote)
        except FileExistsError:
            info = self._operations.attributes(remote, follow=False)
            if info.is_dir:
                raise
            if info.is_symlink and info.target == target:
                return
            self._operations.delete(remote)
            self._operations.symlink(target, remote)
        self._give(remote, found)

    def _put_file(self, item: _File) -> None:
        try:
            with open(item.local, "rb", buffering=0) as source:
                found = os.fstat(source.fileno())
                body = Body(source, lambda count: self._tally.add(count, item.local), found.st_size)
                uid, gid = self._owner(found)
                options = WriteOptions(mode=self._mode(found), mtime_ns=found.st_mtime_ns, uid=uid, gid=gid)
                self._operations.write(item.remote, body, options)
            if not found.st_size:
                self._tally.add(0, item.local)
        except OSError as error:
            self._tally.check()  # what an interruption broke is no failure of its own
            self._options.on_error(error)


def _equal(local: os.stat_result, remote: FileInfo) -> bool:
    return remote.is_file and local.st_size == remote.size and local.st_mtime_ns == remote.mtime_ns
