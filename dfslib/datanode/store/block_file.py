"""The format of one block's file: bytes to structs and back, and checksums. No paths, no I/O.

    offset 0        the block's data (first, so that sendfile is page-aligned, and `head -c` recovers it)
    offset `size`   footer: msgpack of `Footer`
    the end         tail, 20 bytes: magic, version of the format, length and CRC32C of the footer

Parsing is strict: data, footer and tail must fill the file exactly, so a file that lost or gained bytes
is recognised without reading its data; the data itself is checked by slices.

Format 2, which is written, notes the CRC32C of all data up to the end of each slice of 4 KiB. A run of slices
of any length is then checked by one computation, which begins with the sum noted before it and has to arrive at
the last one's; and the sums of all slices cost one pass over the data. Format 1, which is read, has a sum for
each slice of 64 KiB alone.
"""

from __future__ import annotations

import struct
from array import array
from typing import Final

import msgspec
from crc32c import crc32c

from dfslib.model import BLOCK_SIZE, BlockId, Origin, format_block

SLICE_BYTES: Final = 4 << 10
"""Bytes from one noted checksum to the next, in what is written: a page, so that a small read costs the disk no more
than itself. The footer has a thousandth of the data's length."""
_SLICE_MOST: Final = 64 << 10
_ENDING_BYTES: Final = 4 << 10
"""Room for a footer's other parts, some origins among them."""

_MAGIC: Final = b"DFSblk\r\n"
"""The line ending shows a file that went through a text-mode transfer (as in PNG)."""
_VERSION: Final = 2
_VERSIONS: Final = frozenset({1, _VERSION})
_TAIL: Final = struct.Struct("<8sIII")
TAIL_BYTES: Final = _TAIL.size


class BadBlock(Exception):
    """The file is not the block it should be: cut off, changed, or another's. It must not be served."""


class Footer(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a block beside its data.

    `slices` holds a CRC32C (32 bits, little-endian) per started `slice_bytes` of data: of the slice alone, or, where
    `running`, of all data up to its end. `crc32c` covers all of it. `origins` tells for which files it was written,
    should the metadata ever be lost.
    """

    block: BlockId
    size: int
    crc32c: int
    slices: bytes
    origins: list[Origin]
    written_ns: int
    slice_bytes: int = 64 << 10
    running: bool = False

    def slice_count(self, size: int) -> int:
        """How many slices `size` bytes from the beginning on touch."""
        return -(-size // self.slice_bytes)

    def slice_sum(self, index: int) -> int:
        """What the slice's computation has to arrive at."""
        return int.from_bytes(self.slices[4 * index : 4 * index + 4], "little")

    def sum_before(self, index: int) -> int:
        """What the slice's computation begins with."""
        return self.slice_sum(index - 1) if self.running and index else 0


_decoder: Final = msgspec.msgpack.Decoder(Footer)
_encoder: Final = msgspec.msgpack.Encoder()


class Checksums:
    """Checksums of data that arrives in pieces of any size."""

    def __init__(self) -> None:
        self.size = 0
        self.crc32c = 0
        self._slices = array("L")

    def update(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        note, running = self._slices.append, self.crc32c
        first = min(-self.size % SLICE_BYTES, len(view))  # what a slice lacks of which some has arrived
        if first:
            running = crc32c(view[:first], running)
            if (self.size + first) % SLICE_BYTES == 0:
                note(running)
        whole = first + (len(view) - first) // SLICE_BYTES * SLICE_BYTES
        for position in range(first, whole, SLICE_BYTES):
            running = crc32c(view[position : position + SLICE_BYTES], running)
            note(running)
        self.crc32c = crc32c(view[whole:], running) if whole < len(view) else running
        self.size += len(view)

    def footer(self, block: BlockId, origins: list[Origin], written_ns: int) -> Footer:
        sums = [*self._slices, self.crc32c] if self.size % SLICE_BYTES else self._slices
        slices = struct.pack(f"<{len(sums)}I", *sums)
        return Footer(block, self.size, self.crc32c, slices, origins, written_ns, SLICE_BYTES, running=True)


def encode_footer(footer: Footer) -> bytes:
    """Footer and tail: what follows the data."""
    body = _encoder.encode(footer)
    return body + _TAIL.pack(_MAGIC, _VERSION, len(body), crc32c(body))


def likely_ending(file_bytes: int) -> int:
    """How many last bytes of a file of `file_bytes` hold its footer, unless that has many origins."""
    return min(file_bytes, file_bytes // SLICE_BYTES * 4 + _ENDING_BYTES)


def decode_footer(block: BlockId, ending: bytes, file_bytes: int) -> Footer | int:
    """The footer in the last bytes of a file of `file_bytes`, or how many last bytes it takes to see it whole.

    Raises BadBlock unless the file is, by all but its data, exactly that block.
    """
    if len(ending) < TAIL_BYTES:
        raise BadBlock(f"{file_bytes} bytes are too few for a block")
    magic, version, footer_bytes, footer_sum = _TAIL.unpack_from(ending, len(ending) - TAIL_BYTES)
    if magic != _MAGIC:
        raise BadBlock("no block's tail at the end")
    if version not in _VERSIONS:
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
    if footer.slice_bytes.bit_count() != 1 or not 512 <= footer.slice_bytes <= _SLICE_MOST:
        raise BadBlock(f"slices of {footer.slice_bytes} bytes are unknown")
    if len(footer.slices) != 4 * footer.slice_count(footer.size):
        raise BadBlock("the footer has a wrong number of checksums")
    return footer


def aligned_range(footer: Footer, start: int, end: int) -> tuple[int, int]:
    """The smallest range of whole slices that covers [start, end), cut at the block's end."""
    return start - start % footer.slice_bytes, min(footer.size, footer.slice_count(end) * footer.slice_bytes)


def check_slices(footer: Footer, start: int, data: memoryview) -> None:
    """Raise BadBlock unless `data`, read from the slice boundary `start` on to another one or to the block's end,
    has the checksums noted."""
    first, end = start // footer.slice_bytes, footer.slice_count(start + len(data))
    if footer.running and (first == end or crc32c(data, footer.sum_before(first)) == footer.slice_sum(end - 1)):
        return
    for index in range(first, end):
        position = index * footer.slice_bytes - start
        if crc32c(data[position : position + footer.slice_bytes], footer.sum_before(index)) != footer.slice_sum(index):
            raise BadBlock(f"the data at {start + position} does not match its checksum")
    if footer.running:
        raise BadBlock(f"the data from {start} on does not match its checksums as a whole")
