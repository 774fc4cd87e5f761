"""`/files/INO/VERSION/NAME`: whole files, made of blocks as the namenode's layout says."""

from __future__ import annotations

import logging
import mimetypes
from functools import lru_cache
from typing import Final
from urllib.parse import quote_from_bytes

from aiohttp import web

from dfslib.datanode.layouts import Layout, Piece
from dfslib.datanode.services import SERVICES, Services
from dfslib.datanode.web.answers import Content, answer
from dfslib.datanode.web.sending import Replan
from dfslib.errors import DfsError, InputOutput, InvalidArgument, NotFound
from dfslib.model import Attr, FileType, InodeId, format_etag
from dfslib.runtime.logs import event
from dfslib.wire.paths import decode_component, display

log = logging.getLogger("dfs.files")

_ATTR_CHAR: Final = "!#$&+-.^_`|~"
"""What RFC 8187 leaves as it is in an extended parameter, beside letters and digits."""
_NUMBER_MAX: Final = (1 << 64) - 1


async def get_file(request: web.Request) -> web.StreamResponse:
    """GET and HEAD. A file that was replaced since the redirect is served as it is now."""
    ino = InodeId(_number(request, "ino"))
    version = _number(request, "version")
    encoded = request.rel_url.raw_path.split("/", 4)[4]
    layout = await request.app[SERVICES].layouts.get(ino, version)
    try:
        return await _answer(request, layout, encoded)
    except (NotFound, InputOutput) as error:
        # A block may be gone because the namenode has moved its bytes to another one.
        again = await request.app[SERVICES].layouts.refetch(ino, layout.body.version)
        if again.body == layout.body:
            raise InputOutput(f"file {display(encoded)!r} (inode {ino}): {error}") from error
        log.info(event("layout has changed", ino=ino, name=display(encoded), reason=error))
        return await _answer(request, again, encoded)


async def _answer(request: web.Request, layout: Layout, encoded: str) -> web.StreamResponse:
    body = layout.body
    name = decode_component(encoded)
    attr = Attr(ino=InodeId(body.ino), type=FileType.FILE, mode=0, version=body.version)
    content = Content(
        what=f"file {display(encoded)!r} (inode {body.ino})",
        size=body.size,
        etag=format_etag(attr),
        pieces=layout.pieces,
        mtime_ns=body.mtime_ns,
        headers={
            "Content-Type": _content_type(name),
            "Content-Disposition": f"inline; filename*=UTF-8''{quote_from_bytes(name, safe=_ATTR_CHAR)}",
        },
        replan=lambda start, end: _replan(request.app[SERVICES], layout, start, end),
    )
    return await answer(request, request.app[SERVICES], content)


def _replan(services: Services, layout: Layout, start: int, end: int) -> Replan:
    async def replan(sent: int) -> list[Piece] | None:
        try:
            again = await services.layouts.refetch(InodeId(layout.body.ino), layout.body.version)
        except DfsError as error:
            log.warning(event("layout cannot be had again", ino=layout.body.ino, reason=error))
            return None
        if again.body.version != layout.body.version or again.body == layout.body:
            return None  # another content, or the same blocks: either cannot complete this answer
        return again.pieces(start + sent, end)

    return replan


def _number(request: web.Request, name: str) -> int:
    text = request.match_info[name]
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= _NUMBER_MAX):
        raise InvalidArgument(f"{text!r} is not a number of an inode or a version", request.path)
    return int(text)


@lru_cache(maxsize=1024)
def _content_type(name: bytes) -> str:
    """By the ending of the name. A compressed file is what it is, not what is in it."""
    # "./": else "data:..." would be taken for a URL.
    kind, encoding = mimetypes.guess_type("./" + name.decode("utf-8", "replace"), strict=False)
    if encoding is not None:
        return {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}.get(
            encoding, "application/octet-stream"
        )
    return kind or "application/octet-stream"
