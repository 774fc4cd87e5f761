"""`/fs`: routes to use cases. Parses and checks requests, turns results into answers."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from random import Random
from typing import Final
from urllib.parse import quote

import msgspec
from aiohttp import web

from dfslib.errors import DfsError, InvalidArgument, NotADirectory
from dfslib.model import FILE_SIZE_MAX, Attr, FileType, InodeId, Origin, format_etag
from dfslib.namenode.blocks.write import BlockWriter
from dfslib.namenode.files.asked import IdentifiedRequest, digest_head
from dfslib.namenode.files.once import Done, Remembered, check_request_id
from dfslib.namenode.files.operations import (
    Operations,
    PutOptions,
    Target,
    naming,
    not_a_file,
    parse_target,
)
from dfslib.namenode.files.receive import Receiver
from dfslib.namenode.files.redirect import Popularity, choose_source
from dfslib.namenode.membership.registry import Registry
from dfslib.namenode.metadata.engine import MetadataEngine
from dfslib.namenode.namespace.attrs import AttrChange
from dfslib.namenode.params import Params
from dfslib.transfer.body import pieces
from dfslib.wire import routes
from dfslib.wire.attributes import attr_body, attr_headers
from dfslib.wire.messages import ListingBody, XattrsBody, encode
from dfslib.wire.paths import encode_path, parse_query

log = logging.getLogger("dfs.files")

_PAGE: Final = 1000
"""Entries read in one snapshot while a directory is streamed."""
_LIMIT_MAX: Final = 10_000
_XATTR_BODY_MAX: Final = (64 << 10) + 1

_PUT: Final = frozenset({"parents", "replication", "mode", "mtime", "uid", "gid"})
_GET: Final = frozenset({"redirect", "follow", "limit", "after", "op"})
_HEAD: Final = frozenset({"follow"})
_DELETE: Final = frozenset({"recursive"})

Operation = Callable[[web.Request, Target, Params], Awaitable[web.StreamResponse]]


class FileRoutes:
    def __init__(
        self,
        engine: MetadataEngine,
        operations: Operations,
        receiver: Receiver,
        writer: BlockWriter,
        registry: Registry,
        monotonic: Callable[[], float],
        body_timeout_s: float,
    ) -> None:
        self._engine = engine
        self._operations = operations
        self._receiver = receiver
        self._writer = writer
        self._registry = registry
        self._monotonic = monotonic
        self._body_timeout_s = body_timeout_s
        self._random = Random()
        self._popularity = Popularity()
        self._posts: dict[str, tuple[frozenset[str], Operation]] = {
            "mkdir": (frozenset({"parents", "mode"}), self._mkdir),
            "rename": (frozenset({"to", "noreplace"}), self._rename),
            "copy": (frozenset({"to", "parents"}), self._copy),
            "link": (frozenset({"to"}), self._link),
            "symlink": (frozenset({"to"}), self._symlink),
            "truncate": (frozenset({"size"}), self._truncate),
            "append": (frozenset(), self._append),
            "setattr": (frozenset({"mode", "uid", "gid", "atime", "mtime", "follow"}), self._setattr),
            "setxattr": (frozenset({"name", "create", "replace"}), self._setxattr),
            "removexattr": (frozenset({"name"}), self._removexattr),
            "touch": (frozenset(), self._touch),
        }

    def routes(self) -> list[web.RouteDef]:
        path = routes.FS + r"{path:(?:/[\s\S]*)?}"
        return [
            web.head(path, self.head),
            web.get(path, self.get, allow_head=False),
            web.put(path, self.put),
            web.delete(path, self.delete),
            web.post(path, self.post),
        ]

    async def head(self, request: web.Request) -> web.StreamResponse:
        target, query = _split(request)
        params = Params(query, _HEAD) if query else None
        attr = self._operations.stat(target, follow=params.flag("follow", True) if params else True)
        return web.Response(headers=attr_headers(attr))

    async def get(self, request: web.Request) -> web.StreamResponse:
        target, query = _split(request)
        params = Params(query, _GET)
        if params.raw("op") is not None:
            return self._get_xattrs(target, params)
        attr = self._operations.stat(target, follow=params.flag("follow", True))
        if attr.is_dir:
            return await self._list(request, target, attr, params)
        if params.raw("limit") is not None or params.raw("after") is not None:
            raise NotADirectory(path=target.text)
        if attr.type is not FileType.FILE:
            return _json(attr_body(attr, path=target.raw))
        return self._redirect(request, target, attr, params)

    def _redirect(self, request: web.Request, target: Target, attr: Attr, params: Params) -> web.Response:
        now = self._monotonic()
        alive = self._registry.alive(now)
        popular = self._popularity.ask(attr.ino, now)
        with naming(target.text):
            source = self._engine.read(
                lambda txn: choose_source(txn, attr, alive, request.remote or "", popular, self._random)
            )
        name = target.path.names[-1] if target.path.names else b"file"
        location = source.public_url.rstrip("/") + routes.file(attr.ino, attr.version, name)
        if not params.flag("redirect", True):
            return web.Response(body=msgspec.json.encode({"location": location}), content_type="application/json")
        return web.Response(status=307, headers={"Location": location, "ETag": format_etag(attr)})

    def _get_xattrs(self, target: Target, params: Params) -> web.Response:
        if params.raw("op") != b"xattrs":
            raise InvalidArgument("GET knows op=xattrs", target.text)
        found = self._operations.xattrs(target)
        encoded = {quote(name, safe="."): base64.b64encode(value).decode() for name, value in found.items()}
        return _json(XattrsBody(encoded))

    async def _list(self, request: web.Request, target: Target, attr: Attr, params: Params) -> web.StreamResponse:
        after = params.entry_name("after")
        limit = params.number("limit", 1, _LIMIT_MAX)
        if limit is not None:
            with naming(target.text):
                page = self._operations.list_page(attr.ino, after, limit + 1)
            entries = [attr_body(entry.attr, name=entry.name) for entry in page[:limit]]
            return _json(ListingBody(entries, more=len(page) > limit))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(b'{"entries":[')
        separator = b""
        while page := self._operations.list_page(attr.ino, after, _PAGE):
            parts = [msgspec.json.encode(attr_body(entry.attr, name=entry.name)) for entry in page]
            await response.write(separator + b",".join(parts))
            separator, after = b",", page[-1].name
        await response.write(b'],"more":false}')
        await response.write_eof()
        return response

    async def put(self, request: web.Request) -> web.StreamResponse:
        target, query = _split(request)
        params = Params(query, _PUT)
        options = PutOptions(
            parents=params.flag("parents"),
            replication=params.replication("replication"),
            change=_change(params),
            if_match=request.headers.get("If-Match", ""),
            if_none_match=request.headers.get("If-None-Match", ""),
        )
        identified = _identified(request, target, params)
        operations = self._operations.for_request(identified)
        if identified and (before := operations.remembered()):
            return await self._again(request, target, identified, before)
        try:
            present = operations.check_put(target, options)
        except DfsError:
            if identified and (before := operations.remembered()):  # only just now, by an attempt that was at work
                return await self._again(request, target, identified, before)
            raise
        copies = self._writer.copies(operations.replication(target, options.replication))
        origin = Origin(target.raw, present.ino if present else InodeId(0), 0, 0)
        with naming(target.text):
            body = self._body(request, identified)
            async with self._receiver.receive(body, request.content_length, origin, copies) as received:
                done = await operations.put(target, received, options)
        return _answer(done, target.raw, min((len(block.nodes) for block in received.blocks), default=None))

    async def delete(self, request: web.Request) -> web.StreamResponse:
        target, query = _split(request)
        params = Params(query, _DELETE)
        done = await self._for(request, target, params).delete(target, recursive=params.flag("recursive"))
        return _answer(done, b"")

    async def post(self, request: web.Request) -> web.StreamResponse:
        target, query = _split(request)
        name = parse_query(query).get("op", b"")
        found = self._posts.get(name.decode("utf-8", "replace"))
        if found is None:
            known = ", ".join(sorted(self._posts))
            raise InvalidArgument(f"unknown op {name.decode('utf-8', 'replace')!r}; known: {known}", target.text)
        allowed, operation = found
        return await operation(request, target, Params(query, allowed | {"op"}))

    def _for(self, request: web.Request, target: Target, params: Params) -> Operations:
        return self._operations.for_request(_identified(request, target, params))

    async def _again(
        self, request: web.Request, target: Target, identified: IdentifiedRequest, before: Remembered
    ) -> web.Response:
        """The answer to a repetition whose body is not needed: it is read for being the same. Raises
        RequestIdReused."""
        with naming(target.text):
            identified.check_head(before.asked, request.content_length)
            if before.asked is not None:
                async for _ in self._body(request, identified):
                    pass
                identified.check(before.asked)
        return _answer(before.done, target.raw)

    async def _mkdir(self, request: web.Request, target: Target, params: Params) -> web.StreamResponse:
        mode = params.mode("mode")
        operations = self._for(request, target, params)
        done = await operations.mkdir(target, 0o755 if mode is None else mode, parents=params.flag("parents"))
        return _answer(done, target.raw)

    async def _rename(self, request: web.Request, target: Target, params: Params) -> web.StreamResponse:
        to = _to(params)
        done = await self._for(request, target, params).rename(target, to, noreplace=params.flag("noreplace"))
        return _answer(done, to.raw)

    async def _copy(self, request: web.Request, target: Target, params: Params) -> web.StreamResponse:
        to = _to(params)
        done = await self._for(request, target, params).copy(target, to, parents=params.flag("parents"))
        return _answer(done, to.raw)

    async def _link(self, request: web.Request, target: Target, params: Params) -> web.StreamResponse:
        to = _to(params)
        return _answer(await self._for(request, target, params).link(target, to), to.raw)

    async def _symlink(self, request: web.Request, target: Target, params: Params) -> web.StreamResponse:
        return _answer(await self._for(request, target, params).symlink(target, params.required("to")), target.raw)

    async def _truncate(self, request: web.Request, target: Target, params: Params) -> web.StreamResponse:
        size = params.number("size", 0, FILE_SIZE_MAX)
        if size is None:
            raise InvalidArgument("parameter 'size' is missing", target.text)
        return _answer(await self._for(request, target, params).truncate(target, size), target.raw)

    async def _append(self, request: web.Request, target: Target, params: Params) -> web.StreamResponse:
        identified = _identified(request, target, params)
        operations = self._operations.for_request(identified)
        if identified and (before := operations.remembered()):
            return await self._again(request, target, identified, before)
        attr = operations.stat(target)
        if attr.type is not FileType.FILE:
            raise not_a_file(attr, target.text)
        origin = Origin(target.raw, attr.ino, attr.size, 0)
        copies = self._writer.copies(attr.replication)
        with naming(target.text):
            body = self._body(request, identified)
            async with self._receiver.receive(body, request.content_length, origin, copies) as received:
                done = await operations.append(target, received)
        return _answer(done, target.raw)

    async def _setattr(self, request: web.Request, target: Target, params: Params) -> web.StreamResponse:
        change = _change(params)
        if change == AttrChange():
            raise InvalidArgument("nothing to set: give mode, uid, gid, atime or mtime", target.text)
        done = await self._for(request, target, params).set_attrs(target, change, follow=params.flag("follow", True))
        return _answer(done, target.raw)

    async def _setxattr(self, request: web.Request, target: Target, params: Params) -> web.StreamResponse:
        identified = _identified(request, target, params)
        value = bytearray()
        async for chunk in self._body(request, identified):
            value += chunk
            if len(value) > _XATTR_BODY_MAX:
                break
        done = await self._operations.for_request(identified).set_xattr(
            target,
            params.required("name"),
            bytes(value),
            create=params.flag("create"),
            replace=params.flag("replace"),
        )
        return _answer(done, target.raw)

    async def _removexattr(self, request: web.Request, target: Target, params: Params) -> web.StreamResponse:
        done = await self._for(request, target, params).remove_xattr(target, params.required("name"))
        return _answer(done, target.raw)

    async def _touch(self, request: web.Request, target: Target, params: Params) -> web.StreamResponse:
        return _answer(await self._for(request, target, params).touch(target), target.raw)

    def _body(self, request: web.Request, identified: IdentifiedRequest | None) -> AsyncIterator[bytes]:
        body = pieces(request, self._body_timeout_s)
        return identified.passing(body) if identified else body


def _identified(request: web.Request, target: Target, params: Params) -> IdentifiedRequest | None:
    """The request, where it has an id. Raises InvalidArgument."""
    request_id = check_request_id(request.headers.get(routes.HEADER_REQUEST_ID))
    if request_id is None:
        return None
    path = target.raw + b"/" * target.path.must_be_dir
    conditions = (request.headers.get("If-Match", ""), request.headers.get("If-None-Match", ""))
    return IdentifiedRequest(request_id, digest_head(request.method, path, params.values, conditions))


def _split(request: web.Request) -> tuple[Target, str]:
    """The path below `/fs` and the query, just as they were sent."""
    raw, _, query = request.raw_path.partition("?")
    return parse_target(raw[raw.index(routes.FS) + len(routes.FS) :]), query


def _to(params: Params) -> Target:
    to = params.required("to")
    if not to.startswith(b"/"):
        raise InvalidArgument("parameter 'to' must be an absolute path")
    return parse_target(encode_path(to))


def _change(params: Params) -> AttrChange:
    change = AttrChange(
        mode=params.mode("mode"),
        uid=params.number("uid", 0, (1 << 32) - 2),
        gid=params.number("gid", 0, (1 << 32) - 2),
        atime_ns=params.time_ns("atime"),
        mtime_ns=params.time_ns("mtime"),
    )
    change.check()
    return change


def _answer(done: Done, path: bytes, replicas: int | None = None) -> web.Response:
    """What a change came to: 201 with the attributes of what is new, 200 with those of what was there, 204."""
    if done.attr is None:
        return web.Response(status=204)
    body = attr_body(done.attr, path=path, replicas=replicas)
    return _json(body, status=201 if done.created else 200, etag=body.etag)


def _json(body: msgspec.Struct, status: int = 200, etag: str = "") -> web.Response:
    headers: Mapping[str, str] | None = {"ETag": etag} if etag else None
    return web.Response(status=status, body=encode(body), content_type="application/json", headers=headers)
