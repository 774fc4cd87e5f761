"""The commits that no datanode has yet, in files beside the store: for a store that turns out to be damaged.

A commit is appended when it is durable in the store, before anybody is told of it, and nothing waits for the disk: the
files survive the end of the process, and of what a power cut takes from them the store itself is there. They are given
up as soon as a datanode has the commits. They are read where a store was set aside, as journals that go on from the
copies.

    file     frames: length and CRC32C, then msgpack; the first one is an `_About`, the others are commits in order
"""

from __future__ import annotations

import logging
import os
import re
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from crc32c import crc32c
from msgspec.structs import replace

from dfslib.namenode.checkpoint.format import (
    RUNS_KEPT,
    Commit,
    FileName,
    Header,
    lineage_in,
    name_of,
    run_begun_in,
    write_journal,
)
from dfslib.namenode.metadata.history import History, Run
from dfslib.namenode.metadata.lineage import RUNS, decode_runs
from dfslib.namenode.namespace import keys, records
from dfslib.runtime.logs import event
from dfslib.wire.features import LevelNumber

log = logging.getLogger("dfs.checkpoint")

FOLDER: Final = "recent"
BYTES_MAX: Final = 256 << 20
"""Of all files together, where no datanode takes what they have."""
_FRAME: Final = struct.Struct("<II")
_NAME: Final = re.compile(r"(\d{6})-(\d{20})", re.ASCII)


class _About(msgspec.Struct, frozen=True, array_like=True):
    cluster_id: str
    epoch: int
    level: LevelNumber
    runs: tuple[Run, ...]


class _File(NamedTuple):
    """`last`: its last commit's number."""

    path: Path
    epoch: int
    last: int
    size: int


class Recent:
    """For the thread that commits and the one that ships, at the same time."""

    def __init__(self, folder: Path) -> None:
        """`folder` is this object's own."""
        self._folder = folder
        self._lock = threading.Lock()
        self._about: _About | None = None
        self._file: int | None = None
        """Descriptor of the file that is appended to."""
        self._path = folder
        self._last = 0
        self._size = 0
        self._done: list[_File] = []
        self._missed: int | None = None
        """The first commit that could not be appended: none is until a datanode has it."""

    def begin(self, cluster_id: str, epoch: int, level: LevelNumber, history: History) -> None:
        """The store is open, and this its history. What an earlier process has left stays. Raises OSError."""
        self._folder.mkdir(exist_ok=True)
        with self._lock:
            self._end_file()
            found = sorted((path for path in self._folder.iterdir() if _NAME.fullmatch(path.name)), key=_named)
            starts = [_named(path) for path in found]
            ends = [start - 1 for _, start in starts[1:]] + [history.head.number]
            self._done = [
                _File(path, of_epoch, end, path.stat().st_size)
                for path, (of_epoch, _), end in zip(found, starts, ends, strict=False)
            ]
            self._about = _About(cluster_id, epoch, level, history.runs[-RUNS_KEPT:])
            self._last = history.head.number

    def append(self, commit: Commit) -> None:
        """Nothing happens before `begin`. A failure is logged, and made up for as soon as a datanode has the commit."""
        number = commit[0]
        with self._lock:
            if self._about is None or self._missed is not None:
                return
            try:
                if self._size + sum(file.size for file in self._done) > BYTES_MAX:
                    raise OSError(f"there are more than {BYTES_MAX >> 20} MiB of them")
                if self._file is None:
                    self._open(self._about, number)
                self._write(commit)
            except OSError as error:
                self._missed = number
                log.warning(event("commits are not kept beside the store", reason=error, until="a datanode has them"))
            self._last = number
            if (runs := _runs(self._about.runs, [commit])) is not self._about.runs:
                self._about = replace(self._about, runs=runs)

    def end_file(self) -> None:
        """The next commit goes into another file."""
        with self._lock:
            self._end_file()

    def forget(self, epoch: int, last: int) -> None:
        """A datanode has all commits up to this one: files that have no later one are given up. Raises OSError."""
        with self._lock:
            gone = [file for file in self._done if (file.epoch, file.last) <= (epoch, last)]
            self._done = [file for file in self._done if file not in gone]
            if self._missed is not None and self._missed <= last:
                self._end_file()
                self._missed = None
        for file in gone:
            file.path.unlink(missing_ok=True)

    def close(self) -> None:
        with self._lock:
            self._about = None
            self._end_file()

    def _open(self, about: _About, first: int) -> None:
        self._path = self._folder / f"{about.epoch:06}-{first:020}"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._size = 0
        self._write(about)

    def _write(self, what: _About | Commit) -> None:
        payload = msgspec.msgpack.encode(what)
        frame = _FRAME.pack(len(payload), crc32c(payload)) + payload
        assert self._file is not None
        self._size += len(frame)
        while frame:
            frame = frame[os.write(self._file, frame) :]

    def _end_file(self) -> None:
        if self._file is None or self._about is None:
            return
        os.close(self._file)
        self._file = None
        self._done.append(_File(self._path, self._about.epoch, self._last, self._size))
        self._size = 0


def _named(path: Path) -> tuple[int, int]:
    """The epoch and the first commit of a file."""
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1]), int(match[2])


def last_kept(recent: Path, cluster_id: str) -> tuple[int, int]:
    """The epoch and the number of the last commit of a cluster that is kept in a folder; (0, 0) where none is. Raises
    OSError."""
    found = (0, 0)
    for path in recent.iterdir() if recent.is_dir() else ():
        about, commits = _read(path)
        if about is not None and about.cluster_id == cluster_id and commits:
            found = max(found, (about.epoch, commits[-1][0]))
    return found


def as_journals(recent: Path, target: Path) -> dict[FileName, Path]:
    """Write what was kept in a folder as files of metadata to `target`; those. What cannot be read is as good as not
    there. Raises OSError."""
    made: dict[FileName, Path] = {}
    before: tuple[int, bytes] = (-1, b"")
    if not recent.is_dir():
        return made
    for path in sorted(recent.iterdir()):
        about, commits = _read(path)
        if about is None or not commits:
            continue
        first, last = commits[0][0], commits[-1][0]
        head, run = lineage_in(commits[-1]), run_begun_in(commits[0])
        if run is not None:
            before = first - 1, run.before
        header = Header(
            "journal",
            about.cluster_id,
            about.epoch,
            first,
            last,
            head.time_ns if head is not None else 0,
            _level(about.level, commits),
            head=head,
            runs=_runs(about.runs, commits),
            before=before[1] if before[0] == first - 1 else b"",
        )
        _make(target, header, commits, made)
        if first == 1:  # a new cluster: it was empty before
            _make(target, Header("checkpoint", about.cluster_id, about.epoch, 0, 0, 0, about.level), [], made)
        before = last, head.chain if head is not None else b""
    return made


def _make(target: Path, header: Header, commits: list[Commit], made: dict[FileName, Path]) -> None:
    name = name_of(header)
    made[name] = target / str(name)
    with made[name].open("wb") as file:
        write_journal(file, header, commits)


def _read(path: Path) -> tuple[_About | None, list[Commit]]:
    """Commits one after the other, as far as they can be read and none is missing."""
    commits: list[Commit] = []
    frames = _frames(path)
    try:
        about = msgspec.msgpack.decode(next(frames, b""), type=_About)
        for payload in frames:
            commit = msgspec.msgpack.decode(payload, type=Commit)
            if commits and commit[0] != commits[-1][0] + 1:
                break
            commits.append(commit)
    except msgspec.MsgspecError as error:
        log.warning(event("commits beside the store cannot be read", path=path, reason=error))
        return None, []
    return about, commits


def _frames(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while len(head := file.read(_FRAME.size)) == _FRAME.size:
            length, checksum = _FRAME.unpack(head)
            if length > BYTES_MAX:
                return
            payload = file.read(length)
            if len(payload) != length or crc32c(payload) != checksum:
                return
            yield payload


def _runs(runs: tuple[Run, ...], commits: list[Commit]) -> tuple[Run, ...]:
    data = _last(commits, RUNS)
    return runs if data is None else decode_runs(data)[-RUNS_KEPT:]


def _level(level: LevelNumber, commits: list[Commit]) -> LevelNumber:
    """Of the cluster at the last of the commits."""
    data = _last(commits, keys.CLUSTER)
    return level if data is None else records.decode_cluster(data).level


def _last(commits: list[Commit], wanted: bytes) -> bytes | None:
    """What the commits have put there last, if they have."""
    found = None
    for _, changes in commits:
        for key, value in changes:
            if key == wanted and value is not None:
                found = value
    return found
