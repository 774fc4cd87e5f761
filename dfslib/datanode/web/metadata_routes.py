"""`/metadata`: copies of the namenode's metadata, in and out, by name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

from aiohttp import web

from dfslib.datanode.services import SERVICES, Services
from dfslib.datanode.store.metadata_files import MetadataFile, MetadataWriter, OpenMetadataFile, check_name
from dfslib.datanode.web.receiving import parse_crc32c, receive
from dfslib.errors import InputOutput, InvalidArgument, NotFound
from dfslib.transfer.body import pieces
from dfslib.wire import messages, routes
from dfslib.wire.messages import MetadataFileBody, MetadataListBody
from dfslib.wire.positions import parse_position

T = TypeVar("T")

_STALL_S: Final = 300
"""A client that takes less than a piece in this time is cut off."""


async def list_metadata(request: web.Request) -> web.Response:
    """All files that may be right, sorted by name."""
    services = request.app[SERVICES]
    files = await _in_thread(services, services.metadata.all)
    return _json(MetadataListBody([_body(file) for file in files]))


async def put_metadata(request: web.Request) -> web.Response:
    """201, or 200 where a file of that name was replaced; only once it is durable."""
    services = request.app[SERVICES]
    name = _name_of(request)
    expected = parse_crc32c(request.headers.get(routes.HEADER_CRC32C))
    if expected is None:
        raise InvalidArgument(f"the header {routes.HEADER_CRC32C} is missing", request.path)
    position = request.headers.get(routes.HEADER_POSITION, "")
    if position:
        parse_position(position)
    length = request.content_length or 0
    body = pieces(request, services.body_timeout_s)
    stored, created = await receive(
        services, body, lambda: MetadataWriter(services.metadata, name, expected, length, position)
    )
    return _json(_body(stored), 201 if created else 200)


async def get_metadata(request: web.Request) -> web.StreamResponse:
    """GET and HEAD. All of a file is read and checked before the first byte is sent, and again on the way."""
    services = request.app[SERVICES]
    name = _name_of(request)
    checked = request.method == "GET"
    opened = await _opened(services, name, checked)
    described = opened.described
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(described.size),
        routes.HEADER_CRC32C: f"{described.crc32c:08x}",
    }
    try:
        if request.method == "HEAD":
            return web.Response(headers=headers)
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await _send(services, opened, response)
    finally:
        services.pool.submit(opened.close)  # it may have to wait for a thread that reads
    await response.write_eof()
    return response


async def delete_metadata(request: web.Request) -> web.Response:
    """204; durably."""
    services = request.app[SERVICES]
    name = _name_of(request)
    if not await _in_thread(services, lambda: services.metadata.delete(name)):
        raise NotFound("no such copy of metadata on this datanode", name)
    return web.Response(status=204)


async def _opened(services: Services, name: str, checked: bool) -> OpenMetadataFile:
    opening = services.pool.submit(_open, services, name, checked)
    try:
        return await asyncio.wrap_future(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_opened)  # the client has gone, and a thread may have it open by now
        raise


def _close_opened(opening: Future[OpenMetadataFile]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _open(services: Services, name: str, checked: bool) -> OpenMetadataFile:
    opened = services.metadata.open(name)
    if checked:
        try:
            opened.check()
        except BaseException:
            opened.close()
            raise
    return opened


async def _send(services: Services, opened: OpenMetadataFile, response: web.StreamResponse) -> None:
    pieces = opened.pieces()
    try:
        while piece := await _in_thread(services, lambda: next(pieces, b"")):
            async with asyncio.timeout(_STALL_S):
                await response.write(piece)
    except (InputOutput, TimeoutError) as error:
        # The headers are out: an end before the announced length is what tells the client.
        raise ConnectionAbortedError(f"the answer was cut off: {error}") from error


async def _in_thread(services: Services, function: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(services.pool, function)


def _name_of(request: web.Request) -> str:
    name = request.match_info["name"]
    check_name(name)
    return name


def _body(file: MetadataFile) -> MetadataFileBody:
    return MetadataFileBody(file.name, file.size, f"{file.crc32c:08x}")


def _json(body: MetadataFileBody | MetadataListBody, status: int = 200) -> web.Response:
    return web.Response(status=status, body=messages.encode(body), content_type="application/json")
