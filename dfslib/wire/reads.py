"""Several short ranges of blocks with one request to a datanode: `GET /blocks?reads=...`, and its answer.

The answer has, for each range in order, how many bytes there are of it (32 bits, little-endian; fewer than asked for
only where the block ends), and then the bytes of all of them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from dfslib.errors import InputOutput, InvalidArgument
from dfslib.model import BlockId, format_block
from dfslib.wire.routes import BLOCKS

READS: Final = "reads"
READS_MAX: Final = 32
"""Ranges in one request."""
READ_BYTES_MAX: Final = 256 << 10
"""Of all of them together."""
_LENGTH_BYTES: Final = 4
_RANGE: Final = re.compile(rb"([0-9a-f]{16}):(\d{1,10})-(\d{1,10})")


class BlockRange(NamedTuple):
    """Bytes [start, end) of a block."""

    block: BlockId
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


def reads_url(ranges: Sequence[BlockRange]) -> str:
    """Path and query."""
    return f"{BLOCKS}?{READS}=" + ",".join(f"{format_block(one.block)}:{one.start}-{one.end}" for one in ranges)


def parse_reads(text: bytes) -> list[BlockRange]:
    """What `reads` asks for. Raises InvalidArgument."""
    ranges: list[BlockRange] = []
    for part in text.split(b","):
        match = _RANGE.fullmatch(part)
        if match is None or int(match[2]) >= int(match[3]):
            raise InvalidArgument(f"{part.decode('utf-8', 'replace')!r} is not ID:START-END, END behind the last byte")
        ranges.append(BlockRange(BlockId(int(match[1], 16)), int(match[2]), int(match[3])))
    if len(ranges) > READS_MAX:
        raise InvalidArgument(f"{len(ranges)} ranges are more than {READS_MAX}")
    if sum(one.size for one in ranges) > READ_BYTES_MAX:
        raise InvalidArgument(f"at most {READ_BYTES_MAX} bytes are read with one request")
    return ranges


def answer_bytes(asked: int, ranges: int) -> int:
    """The most that an answer with so many ranges and bytes has."""
    return asked + _LENGTH_BYTES * ranges


def encode_answer(found: Sequence[bytes]) -> list[bytes]:
    """The answer, in pieces."""
    return [struct.pack(f"<{len(found)}I", *map(len, found)), *found]


def split_answer(body: bytearray, ranges: Sequence[BlockRange]) -> list[bytearray]:
    """The bytes of each range, each in memory of its own: one may be kept longer than the others. Raises InputOutput
    where it is no answer to them."""
    at = _LENGTH_BYTES * len(ranges)
    if len(body) < at:
        raise InputOutput(f"{len(body)} bytes are no answer to {len(ranges)} reads")
    found: list[bytearray] = []
    for asked, length in zip(ranges, struct.unpack_from(f"<{len(ranges)}I", body), strict=True):
        if length > asked.size:
            raise InputOutput(f"{length} bytes came for a read of {asked.size}")
        found.append(body[at : at + length])
        at += length
    if at != len(body):
        raise InputOutput(f"{len(body)} bytes came, and {at} were announced")
    return found
