"""`/blocks/ID`: blocks in and out, by id."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from aiohttp import web

from dfslib.datanode.layouts import Piece
from dfslib.datanode.services import SERVICES, Services
from dfslib.datanode.store.block_file import BadBlock
from dfslib.datanode.store.block_store import BlockStore
from dfslib.datanode.store.block_writer import NewBlock
from dfslib.datanode.web.answers import Content, answer
from dfslib.datanode.web.receiving import check_length, parse_crc32c, receive_block
from dfslib.datanode.web.relaying import relay_block
from dfslib.errors import InvalidArgument, NotFound
from dfslib.model import BlockId, format_block, parse_block
from dfslib.transfer.block_source import BlockDescription, describe_block
from dfslib.transfer.body import pieces
from dfslib.wire import messages, routes
from dfslib.wire.grants import parse_grant
from dfslib.wire.messages import BlockBody
from dfslib.wire.origins import encode_origins, parse_origins
from dfslib.wire.paths import parse_query


async def put_block(request: web.Request) -> web.Response:
    """201, or 200 where the same block was here already; only once it is durable, unless told not to sync.

    With a grant it goes to the datanodes that the grant names, which this one need not be among.
    """
    services = request.app[SERVICES]
    headers = request.headers
    new = NewBlock(
        _block_of(request),
        parse_origins(headers.get(routes.HEADER_ORIGIN)),
        parse_crc32c(headers.get(routes.HEADER_CRC32C)),
        headers.get(routes.HEADER_CACHED) == "true",
        _parse_flag(headers, routes.HEADER_SYNC, default=True),
    )
    if services.store.unsynced.is_failing:
        new = replace(new, sync=True)
    check_length(request.content_length)
    body_pieces = pieces(request, services.body_timeout_s)
    if (text := headers.get(routes.HEADER_GRANT)) is not None:
        granted = await relay_block(services, new, parse_grant(text), body_pieces, request.content_length)
        return web.Response(status=201, body=messages.encode(granted), content_type="application/json")
    stored = await receive_block(services, new, body_pieces, request.content_length)
    body = BlockBody(block=format_block(stored.block), size=stored.size, crc32c=f"{stored.crc32c:08x}")
    return web.Response(
        status=201 if stored.created else 200, body=messages.encode(body), content_type="application/json"
    )


async def sync_blocks(request: web.Request) -> web.Response:
    """204 when every block that was acknowledged before is on disk, or the namenode knows that it is lost."""
    services = request.app[SERVICES]
    await asyncio.get_running_loop().run_in_executor(services.pool, services.sync.sync)
    return web.Response(status=204)


async def get_block(request: web.Request) -> web.StreamResponse:
    """GET and HEAD. `?local=true`: 404 rather than what another datanode holds."""
    block = _block_of(request)
    local = _parse_local(request.rel_url.raw_query_string)
    found = await _describe(request.app[SERVICES], block, local)
    content = Content(
        what=f"block {format_block(block)}",
        size=found.size,
        etag=f'"{found.crc32c:08x}"',
        pieces=lambda start, end: [Piece(block, start, end)],
        headers={
            routes.HEADER_CRC32C: f"{found.crc32c:08x}",
            routes.HEADER_ORIGIN: encode_origins(found.origins),
        },
        from_peers=not local,
    )
    return await answer(request, request.app[SERVICES], content)


async def delete_block(request: web.Request) -> web.Response:
    """204; the block is gone, or goes when those it is being sent to have it."""
    block = _block_of(request)
    loop = asyncio.get_running_loop()
    if not await loop.run_in_executor(request.app[SERVICES].pool, request.app[SERVICES].store.delete, block):
        raise NotFound(f"block {format_block(block)} is not on this datanode")
    return web.Response(status=204)


async def _describe(services: Services, block: BlockId, local: bool) -> BlockDescription:
    opened = services.store.acquire_if_open(block)
    if opened is not None:
        services.store.release(opened)
        return BlockDescription(opened.size, opened.footer.crc32c, opened.footer.origins)
    try:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(services.pool, _describe_stored, services.store, block)
    except (NotFound, BadBlock):
        if local:
            raise NotFound(f"block {format_block(block)} is not on this datanode") from None
    urls = await services.namenode.locate(block)
    if not urls:
        raise NotFound(f"block {format_block(block)} is on no datanode")
    return await describe_block(services.peers, urls, block)


def _describe_stored(store: BlockStore, block: BlockId) -> BlockDescription:
    with store.opened(block) as opened:
        return BlockDescription(opened.size, opened.footer.crc32c, opened.footer.origins)


def _block_of(request: web.Request) -> BlockId:
    try:
        return parse_block(request.match_info["block"])
    except ValueError as error:
        raise InvalidArgument(str(error), request.path) from None


def _parse_local(query: str) -> bool:
    parameters = parse_query(query)
    local = parameters.pop("local", b"false")
    if parameters or local not in (b"true", b"false"):
        raise InvalidArgument("the one parameter is `local`, true or false")
    return local == b"true"


def _parse_flag(headers: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = headers.get(name)
    if text not in (None, "true", "false"):
        raise InvalidArgument(f"{name}: {text!r} is not true or false")
    return default if text is None else text == "true"
