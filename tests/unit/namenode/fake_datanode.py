"""A datanode that keeps copies of metadata and nothing else: real HTTP, and it hangs or refuses on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from crc32c import crc32c

from dfslib.wire import messages, routes
from dfslib.wire.messages import MetadataFileBody, MetadataListBody


class FakeDatanode:
    def __init__(self, name: str) -> None:
        self.name = name
        self.files: dict[str, bytes] = {}
        self.positions: dict[str, str] = {}
        """What the files were said to lead to."""
        self.url = ""
        self.works = asyncio.Event()
        """Until it is set, requests hang."""
        self.works.set()
        self.refuses = False
        self.before_answer: Callable[[], object] | None = None
        """Called once, between the next list of the files and its answer."""
        self.hanging = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeDatanode]:
        app = web.Application(client_max_size=1 << 30)
        app.add_routes([web.get(routes.METADATA, self._list)])
        app.add_routes([web.route("*", routes.METADATA + "/{name}", self._one)])
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert runner.addresses
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            self.works.set()
            await runner.cleanup()

    async def _pass(self) -> web.Response | None:
        self.hanging += 1
        await self.works.wait()
        self.hanging -= 1
        return web.Response(status=507, body=b"{}") if self.refuses else None

    async def _list(self, _: web.Request) -> web.Response:
        if (refusal := await self._pass()) is not None:
            return refusal
        files = [MetadataFileBody(name, len(data), f"{crc32c(data):08x}") for name, data in sorted(self.files.items())]
        before_answer, self.before_answer = self.before_answer, None
        if before_answer is not None:
            before_answer()
        return web.Response(body=messages.encode(MetadataListBody(files)))

    async def _one(self, request: web.Request) -> web.Response:
        if (refusal := await self._pass()) is not None:
            return refusal
        name = request.match_info["name"]
        if request.method == "PUT":
            data = await request.read()
            assert request.headers[routes.HEADER_CRC32C] == f"{crc32c(data):08x}"
            self.files[name] = data
            self.positions[name] = request.headers.get(routes.HEADER_POSITION, "")
            return web.Response(status=201, body=b"{}")
        if name not in self.files:
            return web.Response(status=404, body=b"{}")
        if request.method == "DELETE":
            del self.files[name]
            return web.Response(status=204)
        data = self.files[name]
        return web.Response(body=data, headers={routes.HEADER_CRC32C: f"{crc32c(data):08x}"})
