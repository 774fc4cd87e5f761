"""A datanode with a fake namenode, on real sockets, for the tests beside this file."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import msgspec
from aiohttp import web
from crc32c import crc32c

from data_node import DataNode
from dfslib.datanode.store.block_file import Checksums, encode_footer
from dfslib.errors import DfsError, NotFound
from dfslib.model import BlockId, Extent, InodeId, format_block, parse_block
from dfslib.wire import messages, routes
from dfslib.wire.messages import (
    CopyOrder,
    HeartbeatAnswer,
    HeartbeatRequest,
    JoinAnswer,
    JoinRequest,
    LayoutBody,
    LocateBody,
    ReportAnswer,
    ReportRequest,
)
from tests.deadline import DEADLINE_S


@dataclass
class FakeNamenode:
    """What datanodes need of a namenode, over HTTP; what it is asked is kept, what it answers is set."""

    cluster_id: str = "c1"
    epoch: int = 0
    level: int = 1
    layouts: dict[int, LayoutBody] = field(default_factory=dict)
    layout_requests: int = 0
    holders: dict[int, list[str]] = field(default_factory=dict)
    joins: list[JoinRequest] = field(default_factory=list)
    reports: list[ReportRequest] = field(default_factory=list)
    heartbeats: list[HeartbeatRequest] = field(default_factory=list)
    whole: bool = True
    join_error: DfsError | None = None
    heartbeat_errors: list[DfsError] = field(default_factory=list)
    """Answered in turn, before heartbeats work again."""
    delete_in_report: list[int] = field(default_factory=list)
    delete_in_heartbeat: list[int] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Heartbeats are answered while it is set."""
    copy_in_heartbeat: list[CopyOrder] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    url: str = ""

    def __post_init__(self) -> None:
        self.gate.set()

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.post(routes.CLUSTER_JOIN, self._join),
                web.post(routes.CLUSTER_REPORT, self._report),
                web.post(routes.CLUSTER_HEARTBEAT, self._heartbeat),
                web.get(routes.CLUSTER_LAYOUT + "/{ino}", self._layout),
                web.get(routes.CLUSTER_LOCATE + "/{block}", self._locate),
            ]
        )
        return app

    async def until(self, condition: object) -> None:
        """Wait until `condition()` holds, looking each time something arrives here."""
        assert callable(condition)
        async with asyncio.timeout(DEADLINE_S), self.changed:
            await self.changed.wait_for(condition)

    async def _note(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def _join(self, request: web.Request) -> web.Response:
        self.joins.append(messages.decode(await request.read(), JoinRequest))
        await self._note()
        if self.join_error:
            return _error(self.join_error)
        return _body(JoinAnswer(self.cluster_id, self.joins[-1].url or "http://seen/", self.epoch, self.level))

    async def _report(self, request: web.Request) -> web.Response:
        self.reports.append(messages.decode(await request.read(), ReportRequest))
        await self._note()
        delete, self.delete_in_report = self.delete_in_report, []
        return _body(ReportAnswer(delete))

    async def _heartbeat(self, request: web.Request) -> web.Response:
        self.heartbeats.append(messages.decode(await request.read(), HeartbeatRequest))
        await self._note()
        if self.heartbeat_errors:
            return _error(self.heartbeat_errors.pop(0))
        await self.gate.wait()
        delete, self.delete_in_heartbeat = self.delete_in_heartbeat, []
        copy, self.copy_in_heartbeat = self.copy_in_heartbeat, []
        return _body(HeartbeatAnswer(delete, copy, whole=self.whole, level=self.level))

    async def _layout(self, request: web.Request) -> web.Response:
        self.layout_requests += 1
        layout = self.layouts.get(int(request.match_info["ino"]))
        return _body(layout) if layout else _error(NotFound("no such file"))

    async def _locate(self, request: web.Request) -> web.Response:
        return _body(LocateBody(self.holders.get(parse_block(request.match_info["block"]), [])))


def _body(body: msgspec.Struct) -> web.Response:
    return web.Response(body=messages.encode(body), content_type="application/json")


def _error(error: DfsError) -> web.Response:
    return web.Response(status=error.http_status, body=messages.encode_error(error), content_type="application/json")


@contextlib.asynccontextmanager
async def listening(app: web.Application) -> AsyncIterator[str]:
    """Serve an application on a free port of 127.0.0.1, as runtime.serving does."""
    runner = web.AppRunner(
        app, access_log=None, handler_cancellation=True, shutdown_timeout=2, max_field_size=routes.MAX_HEADER_BYTES
    )
    try:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def datanode_env(root: Path, namenode_url: str, **more: str) -> dict[str, str]:
    return {
        "DFS_FS_ROOT": str(root),
        "DFS_NAMENODE_URL": namenode_url,
        "DFS_PORT": "8181",
        "DFS_HOST": "127.0.0.1",
        **more,
    }


@dataclass
class Cluster:
    """A fake namenode, and one datanode per folder; `urls` are theirs, without a slash at the end."""

    namenode: FakeNamenode
    urls: list[str]
    nodes: list[DataNode]
    roots: list[Path]
    http: aiohttp.ClientSession

    async def put(self, block: int, data: bytes, node: int = 0) -> None:
        async with self.http.put(f"{self.urls[node]}/blocks/{block:016x}", data=io.BytesIO(data)) as response:
            assert response.status == 201, await response.text()

    def add_file(self, ino: int, version: int, size: int, extents: list[Extent], mtime_ns: int = 0) -> str:
        self.namenode.layouts[ino] = LayoutBody(ino, version, size, mtime_ns, extents)
        return routes.file(InodeId(ino), version, b"name.bin")

    def path(self, block: int, node: int = 0) -> Path:
        return block_path(self.roots[node], block)


@contextlib.asynccontextmanager
async def cluster(folder: Path, nodes: int = 1, **more: str) -> AsyncIterator[Cluster]:
    """Datanodes that serve; nothing registers them until a test runs `run_while_serving`."""
    async with contextlib.AsyncExitStack() as stack:
        namenode = FakeNamenode()
        namenode.url = await stack.enter_async_context(listening(namenode.app()))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        made = Cluster(namenode, [], [], [], http)
        for number in range(nodes):
            root = folder / f"node{number}"
            node = DataNode.from_env(datanode_env(root, namenode.url, **more))
            made.urls.append(await stack.enter_async_context(listening(node.app())))
            made.nodes.append(node)
            made.roots.append(root)
        yield made


def block_path(root: Path, block: int) -> Path:
    """Found by its name, wherever the store puts it."""
    (found,) = root.glob(f"blocks/*/{format_block(BlockId(block))}")
    return found


def block_file_bytes(block: int, data: bytes) -> bytes:
    """A block's whole file."""
    sums = Checksums()
    sums.update(data)
    assert sums.crc32c == crc32c(data)
    return data + encode_footer(sums.footer(BlockId(block), [], 1))
