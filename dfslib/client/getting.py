"""Files and trees of DFS onto local disks: directories first, then files in parallel, then the directories'
modes and times.

Nothing is written outside of the destination: names from the server must be single components, and a
symbolic link inside the destination is never followed. Where a tree goes is decided by the caller.
"""
# Names are any bytes and are kept exactly as given; Path rewrites them.
# ruff: noqa: PTH101, PTH102, PTH108, PTH112, PTH114, PTH115, PTH118, PTH123, PTH211

from __future__ import annotations

import errno
import functools
import os
import stat
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dfslib.client import remote_paths
from dfslib.client.content import Content, ContentChanged
from dfslib.client.entry import Entry
from dfslib.client.operations import Operations
from dfslib.client.parallel import Tally, run_all
from dfslib.client.part_files import PartFile
from dfslib.client.results import FileInfo
from dfslib.client.transfers import TransferOptions, is_a_directory, not_copied

_RESTARTS_MAX: Final = 10
"""A file that is replaced faster than it can be read is given up after this many attempts."""


@dataclass(frozen=True, slots=True)
class _File:
    remote: bytes
    local: str
    info: FileInfo


@dataclass(frozen=True, slots=True)
class _Directory:
    local: str
    info: FileInfo


class Downloader:
    """One download. `run` may be called once."""

    def __init__(self, operations: Operations, options: TransferOptions) -> None:
        self._operations = operations
        self._options = options
        self._tally = Tally(options.progress)
        self._files: list[_File] = []
        self._directories: list[_Directory] = []
        self._parts: set[PartFile] = set()
        self._lock = threading.Lock()

    def run(self, pairs: Sequence[tuple[bytes, str]]) -> None:
        """Download each (remote path, exact local path). Raises what `on_error` raises.

        On an interruption (KeyboardInterrupt, or an `on_error` that raises) parts are removed.
        """
        try:
            for remote, local in pairs:
                self._scan_source(remote, local)
            run_all((functools.partial(self._get_file, item) for item in self._files), self._options.jobs, self._tally)
        except BaseException:
            with self._lock:
                left = list(self._parts)
            for part in left:
                part.unlink()
            raise
        for directory in reversed(self._directories):
            try:
                os.chmod(directory.local, directory.info.mode & 0o1777)
                os.utime(directory.local, ns=(directory.info.mtime_ns, directory.info.mtime_ns))
            except OSError as error:
                self._options.on_error(error)

    def _scan_source(self, remote: bytes, local: str) -> None:
        follow = self._options.follow_sources or not self._options.recursive
        try:
            info = self._operations.attributes(remote, follow=follow)
            if info.is_dir and not self._options.recursive:
                raise is_a_directory(os.fsdecode(remote))
            if os.path.islink(local) and not info.is_symlink:
                local = os.path.realpath(local)  # named by the user, so it is followed
        except OSError as error:
            self._options.on_error(error)
            return
        pending = [(remote, local, info)]
        while pending:
            item = pending.pop()
            try:
                if item[2].is_dir:
                    pending += reversed(self._scan_directory(*item))
                else:
                    self._take(*item)
            except OSError as error:
                self._options.on_error(error)

    def _scan_directory(self, remote: bytes, local: str, info: FileInfo) -> list[tuple[bytes, str, FileInfo]]:
        try:
            os.mkdir(local, 0o700)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(local).st_mode):
                raise
        self._directories.append(_Directory(local, info))
        inside = []
        for entry in self._operations.entries(remote):
            try:
                _check_name(entry)
            except OSError as error:
                self._options.on_error(error)
                continue
            inside.append((remote_paths.join(remote, entry.name), os.path.join(local, entry.name), entry.info))
        return inside

    def _take(self, remote: bytes, local: str, info: FileInfo) -> None:
        if info.is_symlink:
            _make_symlink(info.target, local)
        elif not info.is_file:
            raise not_copied(info.type, os.fsdecode(remote))
        else:
            try:
                present = os.lstat(local)
            except FileNotFoundError:
                present = None
            if present is not None and stat.S_ISDIR(present.st_mode):
                raise is_a_directory(local)
            if self._options.skip_equal and present is not None and _equal(present, info):
                if stat.S_IMODE(present.st_mode) != info.mode & 0o1777:
                    os.chmod(local, info.mode & 0o1777)
                return
            self._tally.expect(info.size)
            self._files.append(_File(remote, local, info))

    def _get_file(self, item: _File) -> None:
        try:
            if _is_special(item.local):
                self._write_into(item)
            else:
                self._replace(item)
        except OSError as error:
            self._tally.check()  # what an interruption broke is no failure of its own
            self._options.on_error(error)

    def _replace(self, item: _File) -> None:
        info = item.info
        part = PartFile(item.local, info.size, info.etag)
        with self._lock:
            self._parts.add(part)
        try:
            info = self._fill(part, item)
            part.finish(info.mode, info.mtime_ns)
        except OSError:
            if part.resumable:
                part.close()
            else:
                part.remove()
            raise
        except BaseException:
            part.remove()
            raise
        finally:
            with self._lock:
                self._parts.discard(part)

    def _fill(self, part: PartFile, item: _File) -> FileInfo:
        """Have the whole content in `part`; the attributes are those of the content that it became."""
        info, filename = item.info, item.local
        for _ in range(_RESTARTS_MAX):
            done = part.offset
            self._tally.add(done, filename)
            try:
                if info.size > done:
                    for piece in Content(self._operations.transport, item.remote, info.etag).pieces(done):
                        part.write(piece)
                        done += len(piece)
                        self._tally.add(len(piece), filename)
                if done != info.size:
                    raise OSError(errno.EIO, f"{done} bytes came where {info.size} were announced", filename)
                return info
            except ContentChanged:
                part.restart()
                size = info.size
                info = self._operations.attributes(item.remote)
                self._tally.expect(info.size - size)
                self._tally.add(-done, filename)
        raise ContentChanged(os.fsdecode(item.remote))

    def _write_into(self, item: _File) -> None:
        """Into a device or FIFO the user named: it is never replaced by a file."""
        with open(item.local, "wb", buffering=0) as sink:
            for piece in Content(self._operations.transport, item.remote, item.info.etag).pieces():
                view = memoryview(piece)
                while view:
                    view = view[sink.write(view) or 0 :]
                self._tally.add(len(piece), item.local)


def _check_name(entry: Entry) -> None:
    try:
        remote_paths.check_local_name(os.fsencode(entry.name))
    except ValueError as error:
        raise OSError(errno.EINVAL, f"not copied, {error}", entry.name) from error


def _make_symlink(target: str, local: str) -> None:
    try:
        os.symlink(target, local)
    except FileExistsError:
        if os.path.isdir(local) and not os.path.islink(local):
            raise
        if os.path.islink(local) and os.readlink(local) == target:
            return
        os.unlink(local)
        os.symlink(target, local)


def _is_special(local: str) -> bool:
    try:
        mode = os.lstat(local).st_mode
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISLNK(mode))


def _equal(local: os.stat_result, remote: FileInfo) -> bool:
    return stat.S_ISREG(local.st_mode) and local.st_size == remote.size and local.st_mtime_ns == remote.mtime_ns
