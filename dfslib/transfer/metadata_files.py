"""Files of metadata to and from datanodes. Raises DfsError: what the datanode answered, or Unavailable."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
from crc32c import crc32c

from dfslib.errors import ChecksumMismatch, Unavailable
from dfslib.transfer.peer_session import PeerSession
from dfslib.wire import messages, routes
from dfslib.wire.messages import MetadataFileBody, MetadataListBody
from dfslib.wire.positions import Position

_STALL_S: Final = 30
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=_STALL_S)
_PIECE_BYTES: Final = 1 << 20


async def list_files(session: PeerSession, url: str) -> list[MetadataFileBody]:
    async with _request(session, "GET", _address(url)) as answer:
        return messages.decode(await answer.read(), MetadataListBody).files


async def put_file(
    session: PeerSession, url: str, name: str, path: Path, size: int, checksum: int, position: Position | None
) -> None:
    """`path` has `size` bytes of this CRC32C, and leads to `position`. Durable on the datanode when it returns; OSError
    where it cannot be read."""
    headers = {routes.HEADER_CRC32C: f"{checksum:08x}", "Content-Length": str(size)}
    if position is not None:
        headers[routes.HEADER_POSITION] = str(position)
    async with _request(session, "PUT", _address(url, name), data=_pieces(path), headers=headers) as answer:
        await answer.read()


async def get_file(session: PeerSession, url: str, name: str, path: Path) -> None:
    """Download to `path`; ChecksumMismatch where other bytes arrive than were announced."""
    checksum = 0
    async with _request(session, "GET", _address(url, name)) as answer:
        with path.open("wb") as file:
            async for piece in answer.content.iter_chunked(_PIECE_BYTES):
                checksum = crc32c(piece, checksum)
                file.write(piece)
        announced = answer.headers.get(routes.HEADER_CRC32C)
    if announced != f"{checksum:08x}":
        raise ChecksumMismatch(f"{name} from {url}: announced with CRC32C {announced}, arrived with {checksum:08x}")


async def get_head(session: PeerSession, url: str, name: str, size: int) -> bytes:
    """The first `size` bytes, or all of a file that is shorter. Its checksum is not compared."""
    head = bytearray()
    async with _request(session, "GET", _address(url, name)) as answer:
        async for piece in answer.content.iter_chunked(size):
            head += piece
            if len(head) >= size:
                break
    return bytes(head[:size])


async def delete_file(session: PeerSession, url: str, name: str) -> None:
    async with _request(session, "DELETE", _address(url, name)) as answer:
        await answer.read()


def _address(url: str, name: str = "") -> str:
    return url.rstrip("/") + routes.METADATA + (f"/{name}" if name else "")


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


@asynccontextmanager
async def _request(
    session: PeerSession,
    method: str,
    url: str,
    data: AsyncIterator[bytes] | None = None,
    headers: dict[str, str] | None = None,
) -> AsyncIterator[aiohttp.ClientResponse]:
    try:
        async with session.request(method, url, data=data, headers=headers, timeout=_TIMEOUT) as answer:
            if answer.status >= 300:
                raise messages.decode_error(await answer.read(), answer.status)
            yield answer
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Unavailable(f"{url}: {error or type(error).__name__}") from error
