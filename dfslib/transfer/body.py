"""Reading a request's body as it comes, alike for every server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError

from dfslib.errors import IncompleteBody


async def next_piece(request: web.Request, timeout_s: float) -> bytes:
    """What has arrived, waiting for something if nothing has; b"" at the end of the body.

    Raises IncompleteBody where it breaks off, or nothing comes for `timeout_s`.
    """
    content = request.content
    try:
        if content.is_eof():  # all is here: no need to set a timer
            return content.read_nowait(-1)
        async with asyncio.timeout(timeout_s):
            return await content.readany()
    except TimeoutError:
        raise IncompleteBody(f"no byte of the body arrived for {timeout_s:g} s") from None
    except (ClientPayloadError, HttpProcessingError, web.RequestPayloadError, ConnectionError) as error:
        raise IncompleteBody(f"the body broke off: {error}") from error


async def pieces(request: web.Request, timeout_s: float) -> AsyncIterator[bytes]:
    """The whole body, piece by piece. Raises IncompleteBody, also where it is shorter than announced."""
    received = 0
    while piece := await next_piece(request, timeout_s):
        received += len(piece)
        yield piece
    if request.content_length is not None and received != request.content_length:
        raise IncompleteBody(f"the body has {received} of {request.content_length} bytes")
