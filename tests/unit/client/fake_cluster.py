"""A fake namenode with files in a dict, and a fake datanode that serves them: what the client needs of both."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from dfslib.errors import Exists, IsADirectory, NotADirectory, NotEmpty, NotFound
from dfslib.model import Attr, FileType, InodeId, format_etag
from dfslib.wire.attributes import attr_body, attr_headers
from dfslib.wire.messages import ListingBody, encode, encode_error
from dfslib.wire.paths import decode_component, parse_query
from dfslib.wire.routes import HEADER_ERROR, HEADER_REQUEST_ID
from tests.unit.client.fake_server import Handler, Reply, Seen, Serve

DIR, FILE, LINK = FileType.DIRECTORY, FileType.FILE, FileType.SYMLINK
Fault = Reply | Callable[[Reply], Reply]
"""Given in place of an answer; or changes the real one."""
Administer = Callable[[str, dict[str, bytes]], Reply]
"""Answers a request about the cluster, from its path and its parameters."""


class FakeCluster:
    """`faults` holds what happens to the next answers: (server, method) to a list of them. `administer` is for tests
    that say what the cluster is like."""

    def __init__(self, serve: Serve) -> None:
        self.attrs: dict[bytes, Attr] = {b"": Attr(InodeId(1), DIR, 0o755)}
        self.data: dict[bytes, bytes] = {}
        self._done: dict[str, Reply] = {}
        self.faults: dict[tuple[str, str], list[Fault]] = {}
        self.administer: Administer = lambda _path, _query: Reply(404)
        self._next = 100
        self.namenode = serve(lambda seen: self._faulty("namenode", seen, self._namenode))
        self.datanode = serve(lambda seen: self._faulty("datanode", seen, self._datanode))
        self.datanode_url = self.datanode.url

    def put(self, path: str | bytes, data: bytes, **fields: Any) -> Attr:
        name = os.fsencode(path).strip(b"/")
        self._next += 1
        old = self.attrs.get(name)
        ino = old.ino if old else InodeId(self._next)
        attr = Attr(
            ino, FILE, **{"mode": 0o644, "size": len(data), "allocated": len(data), **fields}, version=self._next
        )
        self.attrs[name], self.data[name] = attr, data
        return attr

    def mkdir(self, path: str | bytes, **fields: Any) -> None:
        self._next += 1
        self.attrs[os.fsencode(path).strip(b"/")] = Attr(InodeId(self._next), DIR, **{"mode": 0o755, **fields})

    def symlink(self, target: str | bytes, path: str | bytes) -> None:
        self._next += 1
        raw = os.fsencode(target)
        self.attrs[os.fsencode(path).strip(b"/")] = Attr(InodeId(self._next), LINK, 0o777, target=raw, size=len(raw))

    def _faulty(self, server: str, seen: Seen, answer: Handler) -> Reply:
        queued = self.faults.get((server, seen.method))
        fault = queued.pop(0) if queued else None
        if isinstance(fault, Reply):
            return fault
        reply = answer(seen)
        return fault(reply) if fault else reply

    def _namenode(self, seen: Seen) -> Reply:
        path, _, raw = seen.target.partition("?")
        query = parse_query(raw)
        if path.startswith("/cluster"):
            return self.administer(path, query)
        name = decode_component(path.removeprefix("/fs")).strip(b"/")
        request_id = seen.headers.get(HEADER_REQUEST_ID.lower(), "")
        if request_id in self._done:
            return self._done[request_id]
        try:
            reply: Reply = getattr(self, "_" + seen.method.lower())(name, query, seen)
        except (NotFound, Exists, IsADirectory, NotADirectory, NotEmpty) as error:
            body = b"" if seen.method == "HEAD" else encode_error(error)
            return Reply(error.http_status, body, {HEADER_ERROR: error.code, "Content-Type": "application/json"})
        if request_id:
            self._done[request_id] = reply
        return reply

    def _find(self, name: bytes, follow: bool = True) -> Attr:
        attr = self.attrs.get(name)
        if attr is None:
            raise NotFound
        if attr.type is LINK and follow:
            return self._find(attr.target.strip(b"/"))
        return attr

    def _head(self, name: bytes, query: dict[str, bytes], seen: Seen) -> Reply:
        return Reply(headers=attr_headers(self._find(name, query.get("follow") != b"false")))

    def _get(self, name: bytes, query: dict[str, bytes], seen: Seen) -> Reply:
        attr = self._find(name)
        if attr.is_dir:
            inside = sorted(n for n in self.attrs if n and n.rpartition(b"/")[0] == name)
            names = [n for n in inside if n.rpartition(b"/")[2] > query.get("after", b"")]
            limit = int(query.get("limit", b"1000"))
            entries = [attr_body(self.attrs[n], name=n.rpartition(b"/")[2]) for n in names[:limit]]
            return Reply(body=encode(ListingBody(entries, len(names) > limit)))
        if "limit" in query:
            raise NotADirectory
        location = f"{self.datanode_url}files/{attr.ino}/{attr.version}/x"
        return Reply(307, headers={"Location": location, "ETag": format_etag(attr)})

    def _put(self, name: bytes, query: dict[str, bytes], seen: Seen) -> Reply:
        old = self.attrs.get(name)
        if old and old.is_dir:
            raise IsADirectory
        if old and seen.headers.get("if-none-match") == "*":
            raise Exists
        mtime = query.get("mtime", b"0.0").split(b".")
        mtime_ns = int(mtime[0]) * 10**9 + int(mtime[1])
        owner = {key: int(query[key]) for key in ("uid", "gid") if key in query}
        attr = self.put(name, seen.body, mode=int(query.get("mode", b"644"), 8), mtime_ns=mtime_ns, **owner)
        return Reply(200 if old else 201, encode(attr_body(attr)))

    def _delete(self, name: bytes, query: dict[str, bytes], seen: Seen) -> Reply:
        self._find(name, False)
        below = [n for n in self.attrs if n.startswith(name + b"/")]
        if below and "recursive" not in query:
            raise NotEmpty
        for found in [*below, name]:
            del self.attrs[found]
        return Reply(204)

    def _post(self, name: bytes, query: dict[str, bytes], seen: Seen) -> Reply:
        match query["op"]:
            case b"mkdir":
                if name in self.attrs:
                    raise Exists
                self.mkdir(name, mode=int(query.get("mode", b"755"), 8))
            case b"symlink":
                if name in self.attrs:
                    raise Exists
                self.symlink(query["to"], name)
            case b"append":
                attr = self._find(name)
                self.put(name, self.data[name] + seen.body, mode=attr.mode)
            case b"rename":
                self._find(name, False)
                to = query["to"].strip(b"/")
                self.attrs[to] = self.attrs.pop(name)
                self.data[to] = self.data.pop(name, b"")
                name = to
            case b"copy":
                self.put(query["to"], self.data[name])
            case b"link":
                to = query["to"].strip(b"/")
                if to in self.attrs:
                    raise Exists
                self.attrs[to], self.data[to] = self._find(name), self.data[name]
            case b"setattr":
                self._find(name)
        return Reply(201, encode(attr_body(self.attrs[name])))

    def _datanode(self, seen: Seen) -> Reply:
        _, _, ino, version, _ = seen.target.split("/")
        found = [n for n, a in self.attrs.items() if str(a.ino) == ino and str(a.version) == version]
        if not found:
            return Reply(404, encode_error(NotFound("no such version")), {"Content-Type": "application/json"})
        data, etag = self.data[found[0]], format_etag(self.attrs[found[0]])
        asked = seen.headers.get("range")
        if asked is None or seen.headers.get("if-range", etag) != etag:
            return Reply(200, data, {"ETag": etag})
        start, _, end = asked.removeprefix("bytes=").partition("-")
        first, last = int(start), min(len(data), int(end or len(data)) + bool(end))
        if first >= len(data):
            return Reply(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        return Reply(206, data[first:last], {"ETag": etag, "Content-Range": f"bytes {first}-{last - 1}/{len(data)}"})
