"""Short ranges of blocks that are here, several at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from aiohttp import web

from dfslib.datanode.services import SERVICES
from dfslib.datanode.store.block_file import BadBlock
from dfslib.datanode.store.block_store import BlockStore
from dfslib.errors import InvalidArgument, NotFound
from dfslib.model import format_block
from dfslib.wire.paths import parse_query
from dfslib.wire.reads import READS, BlockRange, encode_answer, parse_reads


class Found(NamedTuple):
    """The bytes of a range, and what its block is."""

    data: bytes
    size: int
    checksum: int


def read_if_in_memory(store: BlockStore, wanted: BlockRange) -> Found | None:
    """None where the disk would have to be waited for, and where there is anything wrong with the block."""
    opened = store.acquire_if_open(wanted.block)
    if opened is None:
        return None
    try:
        if wanted.start >= opened.size:
            return None
        data = opened.read_if_in_memory(wanted.start, min(wanted.end, opened.size))
        return None if data is None else Found(data, opened.size, opened.footer.crc32c)
    except BadBlock:
        return None  # whoever reads the disk finds out, and puts it into quarantine
    finally:
        store.release(opened)


def read_ranges(store: BlockStore, wanted: Sequence[BlockRange]) -> list[Found]:
    """All of them; the disk works on them at the same time. Raises BadBlock, and NotFound where a block is not here
    or has no such bytes."""
    if len(wanted) > 1:
        for one in wanted:
            with store.opened(one.block) as block:
                block.will_need(one.start, min(one.end, block.size))
    return [_read(store, one) for one in wanted]


def _read(store: BlockStore, wanted: BlockRange) -> Found:
    with store.opened(wanted.block) as block:
        if wanted.start >= block.size:
            raise NotFound(f"block {format_block(wanted.block)} has {block.size} bytes")
        return Found(block.read(wanted.start, min(wanted.end, block.size)), block.size, block.footer.crc32c)


async def get_blocks(request: web.Request) -> web.Response:
    """`GET /blocks?reads=`: 404 where one of the blocks is not here or bad; asked for alone, it comes from a peer."""
    parameters = parse_query(request.rel_url.raw_query_string)
    text = parameters.pop(READS, None)
    if text is None or parameters:
        raise InvalidArgument(f"the one parameter is `{READS}`")
    wanted = parse_reads(text)
    services = request.app[SERVICES]
    loop = asyncio.get_running_loop()
    try:
        found = await loop.run_in_executor(services.pool, read_ranges, services.store, wanted)
    except BadBlock as error:
        raise NotFound(str(error)) from error
    body = b"".join(encode_answer([one.data for one in found]))
    return web.Response(body=body, content_type="application/octet-stream")
