"""The files that metadata is copied in: bytes to structs and back, and their names. No I/O of its own.

    header   magic, then one frame with a `Header`
    frames   kind, length and CRC32C, then zlib of msgpack: keys and values in order, or whole commits
    end      a frame with the count of all records, so that a file that was cut off shows

A checkpoint is every key at one commit, a journal is what commits `first` to `last` changed. Reading is strict:
whatever is not exactly as written raises Damaged before anyone is given the frame.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO, Final, NamedTuple, TypeVar

import msgspec
from crc32c import crc32c

from dfslib.namenode.metadata.history import History, Lineage, Run
from dfslib.namenode.metadata.lineage import LINEAGE, RUNS, Digest, decode_lineage, decode_runs
from dfslib.wire.features import NEWEST_LEVEL, OLDEST_LEVEL, LevelNumber
from dfslib.wire.positions import Position

T = TypeVar("T")

_MAGIC: Final = b"DFSmeta\n"
_FRAME: Final = struct.Struct("<cII")
_HEADER, _RECORDS, _END = b"h", b"r", b"e"
_FRAME_MAX: Final = 1 << 30
"""Longer than any frame that is written: a length that was damaged asks for no memory."""
_FRAME_COMMITS: Final = 1000
_LEVEL: Final = 1
"""zlib's fastest: the namenode's time is dearer than the datanodes' disks."""

_NAME: Final = re.compile(r"(checkpoint|journal)-(\d{6})-(\d{20})(?:-(\d{20}))?", re.ASCII)

RUNS_KEPT: Final = 64
"""Runs that a header names: the journal of every few seconds has them, some 30 bytes each."""

HEADER_BYTES: Final = 1 << 20
"""More than any header has: it names the datanodes, some 36 bytes each, and the runs."""

Record = tuple[bytes, bytes]
"""A key and its value."""
Commit = tuple[int, list[tuple[bytes, bytes | None]]]
"""A commit's number, and the keys that it changed; None for one that was deleted."""


class Damaged(Exception):
    """A file of metadata is cut off or changed."""


class TooLate(Damaged):
    """A file of metadata is of a later level of the cluster than this build knows."""

    def __init__(self, level: int) -> None:
        super().__init__(f"it is of level {level}, and this version knows levels up to {NEWEST_LEVEL}")
        self.level = level


class Header(msgspec.Struct, frozen=True, array_like=True):
    """`time_ns`: all commits that were acknowledged before then, in the file's range, are in it. `level`: of the
    cluster at the last of them; builds of the first level looked for a format in this place, and know 1. `nodes`: the
    datanodes that are to have a copy of it. `head` is commit `last`, `runs` the latest ones up to it, and `before` the
    chain of the commit before `first`; a release that keeps no lineage writes none of these three."""

    kind: str
    cluster_id: str
    epoch: int
    first: int
    last: int
    time_ns: int
    level: LevelNumber = OLDEST_LEVEL
    nodes: tuple[str, ...] = ()
    head: Lineage | None = None
    runs: tuple[Run, ...] = ()
    before: bytes = b""

    @property
    def history(self) -> History | None:
        """Of what the file leads to; None where that is not told."""
        return None if self.head is None else History(self.head, self.runs)

    @property
    def position(self) -> Position | None:
        """What the file leads to; None where that is not told."""
        return None if self.head is None else Position(self.epoch, self.last, self.head.run, self.head.chain)


class FileName(NamedTuple):
    """What a file's name says of it. `first` of a checkpoint is 0."""

    kind: str
    epoch: int
    first: int
    last: int

    def __str__(self) -> str:
        numbers = f"{self.last:020}" if self.kind == "checkpoint" else f"{self.first:020}-{self.last:020}"
        return f"{self.kind}-{self.epoch:06}-{numbers}"

    @property
    def is_checkpoint(self) -> bool:
        return self.kind == "checkpoint"


def parse_name(text: str) -> FileName | None:
    """None where it is no name of ours."""
    match = _NAME.fullmatch(text)
    if match is None or (match[1] == "journal") != (match[4] is not None):
        return None
    first, last = (0, int(match[3])) if match[4] is None else (int(match[3]), int(match[4]))
    return FileName(match[1], int(match[2]), first, last) if first <= last else None


def name_of(header: Header) -> FileName:
    return FileName(header.kind, header.epoch, header.first, header.last)


class Encoder:
    """The bytes of one file: `header`, then `records` any number of times, then `end`."""

    def __init__(self) -> None:
        self._count = 0

    def header(self, header: Header) -> bytes:
        return _MAGIC + _frame(_HEADER, msgspec.msgpack.encode(header))

    def records(self, records: Sequence[Record] | Sequence[Commit]) -> bytes:
        self._count += len(records)
        return _frame(_RECORDS, zlib.compress(msgspec.msgpack.encode(records), _LEVEL))

    def end(self) -> bytes:
        return _frame(_END, msgspec.msgpack.encode(self._count))


def write_journal(file: BinaryIO, header: Header, commits: Sequence[Commit]) -> None:
    """All of a journal's file. Raises OSError."""
    encoder = Encoder()
    file.write(encoder.header(header))
    for start in range(0, len(commits), _FRAME_COMMITS):
        file.write(encoder.records(commits[start : start + _FRAME_COMMITS]))
    file.write(encoder.end())


def commit_of(number: int, writes: Mapping[bytes, bytes | None]) -> Commit:
    return number, list(writes.items())


def lineage_in(commit: Commit) -> Lineage | None:
    """What the engine recorded of a commit; None of a release without lineage. Raises InputOutput."""
    data = dict(commit[1]).get(LINEAGE)
    return None if data is None else decode_lineage(data)


def run_begun_in(commit: Commit) -> Run | None:
    """The run that began with a commit, where one did. Raises InputOutput."""
    data = dict(commit[1]).get(RUNS)
    return None if data is None else decode_runs(data)[-1]


def read_header(file: BinaryIO) -> Header:
    """Raises Damaged, TooLate. The file is left behind the header."""
    if file.read(len(_MAGIC)) != _MAGIC:
        raise Damaged("it does not begin as a file of metadata does")
    kind, payload = _read_frame(file)
    if kind != _HEADER:
        raise Damaged("it has no header")
    header = _decoded(payload, Header)
    if header.level > NEWEST_LEVEL:
        raise TooLate(header.level)
    return header


def read_records(file: BinaryIO) -> Iterator[list[Record]]:
    """The frames of a checkpoint, behind its header. Raises Damaged."""
    return (_decoded(payload, list[Record]) for payload in _payloads(file))


def read_commits(file: BinaryIO) -> Iterator[list[Commit]]:
    """The frames of a journal, behind its header. Raises Damaged."""
    return (_decoded(payload, list[Commit]) for payload in _payloads(file))


def check(file: BinaryIO, name: FileName, cluster_id: str) -> Header:
    """Read all of a file and raise Damaged, or TooLate, unless it is, to the last byte, what its name and its header
    say."""
    header = read_header(file)
    if name_of(header) != name or header.cluster_id != cluster_id:
        raise Damaged(f"it says that it is {name_of(header)} of cluster {header.cluster_id}")
    if header.head is not None and header.head.number != name.last:
        raise Damaged(f"it says that it leads to commit {header.head.number}")
    if name.is_checkpoint:
        _check_records(file, header)
    else:
        _check_commits(file, header)
    return header


def _check_records(file: BinaryIO, header: Header) -> None:
    digest = Digest()
    for records in read_records(file):
        for key, value in records:
            digest.change(key, None, value)
    if header.head is not None and digest.value != header.head.digest:
        raise Damaged("its keys do not add up to what they did")


def _check_commits(file: BinaryIO, header: Header) -> None:
    numbers = iter(range(header.first, header.last + 1))
    last: Commit | None = None
    for commits in read_commits(file):
        for commit in commits:
            if commit[0] != next(numbers, None):
                raise Damaged(f"commit {commit[0]} is out of order")
            last = commit
    if last is None or last[0] != header.last:
        raise Damaged(f"it does not end with commit {header.last}")
    if header.head is not None and lineage_in(last) != header.head:
        raise Damaged(f"its commit {header.last} is another one than it says")


def _payloads(file: BinaryIO) -> Iterator[bytes]:
    count = 0
    while True:
        kind, payload = _read_frame(file)
        if kind == _END:
            break
        if kind != _RECORDS:
            raise Damaged("a frame is of no known kind")
        try:
            data = zlib.decompress(payload)
        except zlib.error as error:
            raise Damaged(f"a frame cannot be unpacked: {error}") from None
        count += _length(data)
        yield data
    if _decoded(payload, int) != count:
        raise Damaged("records are missing")
    if file.read(1):
        raise Damaged("something stands behind its end")


def _length(data: bytes) -> int:
    """Of a msgpack array, without its elements."""
    return len(_decoded(data, list[msgspec.Raw]))


def _frame(kind: bytes, payload: bytes) -> bytes:
    return _FRAME.pack(kind, len(payload), crc32c(payload, crc32c(kind))) + payload


def _read_frame(file: BinaryIO) -> tuple[bytes, bytes]:
    head = file.read(_FRAME.size)
    if len(head) != _FRAME.size:
        raise Damaged("it is cut off")
    kind, length, checksum = _FRAME.unpack(head)
    if length > _FRAME_MAX:
        raise Damaged("a frame has an impossible length")
    payload = file.read(length)
    if len(payload) != length:
        raise Damaged("it is cut off")
    if crc32c(payload, crc32c(kind)) != checksum:
        raise Damaged("a frame's checksum does not match")
    return kind, payload


def _decoded(payload: bytes, kind: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except msgspec.MsgspecError as error:
        raise Damaged(f"a frame cannot be read: {error}") from None
