"""Reading a range of a block from the datanodes that hold it, going on with another one where one fails.

Who holds it is the caller's to know; nothing is stored here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from dfslib.errors import InputOutput, InvalidArgument, NotFound
from dfslib.model import BlockId, Origin, format_block
from dfslib.runtime.logs import event
from dfslib.wire import messages, routes
from dfslib.wire.origins import parse_origins

log = logging.getLogger("dfs.transfer")

PEER_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=15)
"""A peer that sends nothing for 15 s is taken for stuck: a disk that retries a bad sector takes up to 10."""
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)", re.ASCII)


class PeerFailed(Exception):
    """This peer cannot give the range; the message says why."""


@dataclass(frozen=True)
class BlockDescription:
    """A block as a datanode that holds it sees it; `size` in bytes."""

    size: int
    crc32c: int
    origins: list[Origin] = field(default_factory=list)


async def describe_block(session: aiohttp.ClientSession, urls: Sequence[str], block: BlockId) -> BlockDescription:
    """Size and checksum of a block, from the first of `urls` that has it. Raises InputOutput where none has."""
    failures: list[str] = []
    for url in urls:
        try:
            async with session.head(
                url.rstrip("/") + routes.block(block), params={"local": "true"}, timeout=PEER_TIMEOUT
            ) as response:
                if response.status != 200 or response.content_length is None:
                    raise PeerFailed(f"HTTP status {response.status}")
                return BlockDescription(
                    response.content_length,
                    int(response.headers[routes.HEADER_CRC32C], 16),
                    parse_origins(response.headers.get(routes.HEADER_ORIGIN)),
                )
        except (PeerFailed, InvalidArgument, aiohttp.ClientError, TimeoutError, OSError, KeyError, ValueError) as error:
            failures.append(f"{url}: {str(error) or type(error).__name__}")
    raise InputOutput(f"block {format_block(block)} is on no datanode: {'; '.join(failures) or 'none holds it'}")


class PeerLacks(PeerFailed):
    """This peer does not hold the block, or not any more."""


async def read_block(
    session: aiohttp.ClientSession, urls: Sequence[str], block: BlockId, start: int, end: int
) -> AsyncGenerator[bytes, None]:
    """The bytes [start, end) of `block`, in pieces, from the first of `urls` (datanodes' own) that has them.

    Where one breaks off, the next goes on at that byte. Raises InputOutput where none is left.
    """
    position = start
    failures: list[str] = []
    for url in urls:
        if position >= end:
            return
        try:
            async with aclosing(_read_from(session, url, block, position, end)) as pieces:
                async for piece in pieces:
                    position += len(piece)
                    yield piece
        except (PeerFailed, aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = str(error) or type(error).__name__
            failures.append(f"{url}: {reason}")
            if isinstance(error, PeerLacks):
                continue  # no news for an operator: the namenode's knowledge is a second old
            log.warning(event("peer failed", block=format_block(block), peer=url, at=position, reason=reason))
    if position < end:
        tried = "; ".join(failures) or "no datanode has it"
        raise InputOutput(f"block {format_block(block)} cannot be read from {position} to {end}: {tried}")


async def _read_from(
    session: aiohttp.ClientSession, url: str, block: BlockId, start: int, end: int
) -> AsyncGenerator[bytes, None]:
    async with session.get(
        url.rstrip("/") + routes.block(block),
        params={"local": "true"},
        headers={"Range": f"bytes={start}-{end - 1}"},
        timeout=PEER_TIMEOUT,
    ) as response:
        if response.status != 206:
            # Bounded: whatever answers there may not be a datanode.
            error = messages.decode_error(await response.content.read(4096), response.status)
            raise PeerLacks(str(error)) if isinstance(error, NotFound) else PeerFailed(str(error))
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not match or (int(match[1]), int(match[2])) != (start, end - 1):
            raise PeerFailed(f"answered with range {response.headers.get('Content-Range')!r}")
        left = end - start
        async for piece in response.content.iter_any():
            if len(piece) > left:
                raise PeerFailed("sent more than it was asked for")
            left -= len(piece)
            yield piece
        if left:
            raise PeerFailed(f"broke off {left} bytes before the end")
