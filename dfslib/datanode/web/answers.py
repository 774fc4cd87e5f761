"""Answers to GET and HEAD of something with a size and an entity tag: conditions, one range, headers.

RFC 9110, 13 and 14. Where the bytes come from is `sending`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate, parsedate_to_datetime

from aiohttp import web

from dfslib.datanode.layouts import Piece
from dfslib.datanode.services import Services
from dfslib.datanode.web.sending import SMALL_BYTES, Replan, Sender
from dfslib.errors import RangeNotSatisfiable
from dfslib.transfer.http_errors import error_response
from dfslib.wire.ranges import parse_range


@dataclass(frozen=True)
class Content:
    """`pieces(start, end)` tells what makes up a range. `etag` has its quotes. `replan(position)`: as
    sending.Replan, with the position in the content."""

    what: str
    size: int
    etag: str
    pieces: Callable[[int, int], list[Piece]]
    mtime_ns: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    replan: Callable[[int, int], Replan] | None = None
    """Gives, for the range [start, end) of the content, the Replan of that answer."""
    from_peers: bool = True


async def answer(request: web.Request, services: Services, content: Content) -> web.StreamResponse:
    """Answer with the content, the range asked for, 304 or 416.

    Raises NotFound, InputOutput or Unavailable where the first bytes cannot be had.
    """
    headers = {"ETag": content.etag, "Accept-Ranges": "bytes", **content.headers}
    if content.mtime_ns is not None:
        headers["Last-Modified"] = http_date(content.mtime_ns)
    if _not_modified(request, content):
        return web.Response(status=304, headers=headers)
    found = None
    if request.method == "GET" and _range_applies(request, content):  # a range means nothing to HEAD (14.2)
        try:
            found = parse_range(request.headers.get("Range"), content.size)
        except RangeNotSatisfiable as error:
            return error_response(error, {"Content-Range": f"bytes */{content.size}"})
    start, end = found or (0, content.size)
    if found:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{content.size}"
    headers.setdefault("Content-Type", "application/octet-stream")
    status = 206 if found else 200
    if request.method == "HEAD":
        return web.Response(status=status, headers=headers | {"Content-Length": str(end - start)})
    sender = Sender(services, from_peers=content.from_peers, what=content.what)
    pieces = content.pieces(start, end) if end > start else []
    if end - start <= SMALL_BYTES:
        body = await sender.read(pieces) if pieces else b""
        services.metrics.sent_bytes.inc(len(body))
        return web.Response(status=status, headers=headers, body=body)
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = end - start
    await sender.send(request, response, pieces, content.replan(start, end) if content.replan else None)
    return response


def http_date(time_ns: int) -> str:
    return formatdate(time_ns // 1_000_000_000, usegmt=True)


def _not_modified(request: web.Request, content: Content) -> bool:
    tags = request.headers.get("If-None-Match")
    if tags is not None:
        # The weak comparison (8.8.3.2): a proxy may have weakened our tag, the content is the same.
        return any(tag.strip().removeprefix("W/") in (content.etag, "*") for tag in tags.split(","))
    since = request.headers.get("If-Modified-Since")
    if since is None or content.mtime_ns is None:
        return False
    seconds = _parse_date(since)
    return seconds is not None and content.mtime_ns // 1_000_000_000 <= seconds


def _range_applies(request: web.Request, content: Content) -> bool:
    condition = request.headers.get("If-Range")
    if condition is None:
        return True
    if condition.strip().startswith(('"', "W/")):
        return condition.strip() == content.etag  # the strong comparison (13.1.5)
    # A date: it says the same second, and we change files twice in one. So it is taken only as it must be,
    # exactly, and ETags are what clients should send.
    return content.mtime_ns is not None and _parse_date(condition) == content.mtime_ns // 1_000_000_000


def _parse_date(text: str) -> int | None:
    try:
        return int(parsedate_to_datetime(text).timestamp())
    except (ValueError, OverflowError):
        return None  # a date that is none is ignored (13.1.3)
