"""The format of one block's file: bytes to structs and back, and checksums. No paths, no I/O.

    offset 0        the block's data (first, so that sendfile is page-aligned, and `head -c` recovers it)
    offset `size`   footer: msgpack of `Footer`
    the end         tail, 20 bytes: magic, version of the format, length and CRC32C of the footer

Parsing is strict: data, footer and tail must fill the file exactly, so a file that lost or gained bytes
is recognised without reading its data; the data itself is checked by slices of 64 KiB.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec
from crc32c import crc32c

from dfslib.model import BLOCK_SIZE, BlockId, Origin, format_block

SLICE_BYTES: Final = 64 << 10
"""Bytes under one checksum. A 4 KiB read must read and check this much; smaller slices cost longer footers."""

_MAGIC: Final = b"DFSblk\r\n"
"""The line ending shows a file that went through a text-mode transfer (as in PNG)."""
_VERSION: Final = 1
_TAIL: Final = struct.Struct("<8sIII")
TAIL_BYTES: Final = _TAIL.size


class BadBlock(Exception):
    """The file is not the block it should be: cut off, changed, or another's. It must not be served."""


class Footer(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a block beside its data.

    `slices` holds a CRC32C (32 bits, little-endian) per started SLICE_BYTES of data; `crc32c` covers all
    of it. `origins` tells for which files it was written, should the metadata ever be lost.
    """

    block: BlockId
    size: int
    crc32c: int
    slices: bytes
    origins: list[Origin]
    written_ns: int

    def slice_sum(self, index: int) -> int:
        return int.from_bytes(self.slices[4 * index : 4 * index + 4], "little")


_decoder: Final = msgspec.msgpack.Decoder(Footer)
_encoder: Final = msgspec.msgpack.Encoder()


class Checksums:
    """Checksums of data that arrives in pieces of any size."""

    def __init__(self) -> None:
        self.size = 0
        self.crc32c = 0
        self._slices = bytearray()
        self._open_sum = 0
        """CRC32C of the slice that is not full yet."""

    def update(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        # Only a multiple of the slice's size completes one; at most one partial slice is carried over.
        position, room = 0, SLICE_BYTES - self.size % SLICE_BYTES
        while position < len(view):
            piece = view[position : position + room]
            self._open_sum = crc32c(piece, self._open_sum)
            position += len(piece)
            if len(piece) == room:
                self._slices += self._open_sum.to_bytes(4, "little")
                self._open_sum = 0
            room = SLICE_BYTES
        self.crc32c = crc32c(view, self.crc32c)
        self.size += len(view)

    def footer(self, block: BlockId, origins: list[Origin], written_ns: int) -> Footer:
        slices = bytes(self._slices)
        if self.size % SLICE_BYTES:
            slices += self._open_sum.to_bytes(4, "little")
        return Footer(block, self.size, self.crc32c, slices, origins, written_ns)


def encode_footer(footer: Footer) -> bytes:
    """Footer and tail: what follows the data."""
    body = _encoder.encode(footer)
    return body + _TAIL.pack(_MAGIC, _VERSION, len(body), crc32c(body))


def decode_footer(block: BlockId, ending: bytes, file_bytes: int) -> Footer | int:
    """The footer in the last bytes of a file of `file_bytes`, or how many last bytes it takes to see it whole.

    Raises BadBlock unless the file is, by all but its data, exactly that block.
    """
    if len(ending) < TAIL_BYTES:
        raise BadBlock(f"{file_bytes} bytes are too few for a block")
    magic, version, footer_bytes, footer_sum = _TAIL.unpack_from(ending, len(ending) - TAIL_BYTES)
    if magic != _MAGIC:
        raise BadBlock("no block's tail at the end")
    if version != _VERSION:
        raise BadBlock(f"format {version} is unknown")
    needed: int = footer_bytes + TAIL_BYTES
    if needed > file_bytes:
        raise BadBlock("the footer is longer than the file")
    if needed > len(ending):
        return needed
    body = memoryview(ending)[len(ending) - needed : len(ending) - TAIL_BYTES]
    if crc32c(body) != footer_sum:
        raise BadBlock("the footer's checksum does not match")
    try:
        footer = _decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise BadBlock(f"the footer cannot be read: {error}") from None
    if footer.block != block:
        raise BadBlock(f"it is block {format_block(footer.block)}")
    if footer.size + needed != file_bytes or not 0 <= footer.size <= BLOCK_SIZE:
        raise BadBlock(f"{file_bytes} bytes instead of {footer.size + needed}")
    if len(footer.slices) != 4 * slice_count(footer.size):
        raise BadBlock("the footer has a wrong number of checksums")
    return footer


def slice_count(size: int) -> int:
    return -(-size // SLICE_BYTES)


def aligned_range(footer: Footer, start: int, end: int) -> tuple[int, int]:
    """The smallest range of whole slices that covers [start, end), cut at the block's end."""
    return start - start % SLICE_BYTES, min(footer.size, slice_count(end) * SLICE_BYTES)


def check_slices(footer: Footer, start: int, data: memoryview) -> None:
    """Raise BadBlock unless `data`, read from the slice boundary `start` on, has the checksums noted."""
    first = start // SLICE_BYTES
    for index in range(slice_count(len(data))):
        if crc32c(data[index * SLICE_BYTES : (index + 1) * SLICE_BYTES]) != footer.slice_sum(first + index):
            raise BadBlock(f"the data at {start + index * SLICE_BYTES} does not match its checksum")
