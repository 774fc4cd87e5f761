"""The datanode's HTTP application: routes to handlers, errors to answers, health and metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from dfslib.datanode.services import SERVICES, Services
from dfslib.datanode.web.block_routes import delete_block, get_block, put_block, sync_blocks
from dfslib.datanode.web.file_routes import get_file
from dfslib.datanode.web.metadata_routes import delete_metadata, get_metadata, list_metadata, put_metadata
from dfslib.datanode.web.reads import get_blocks
from dfslib.errors import Unavailable
from dfslib.transfer.http_errors import errors_as_json
from dfslib.wire import messages, routes


def make_app(
    services: Callable[[], AbstractAsyncContextManager[Services]],
    is_registered: Callable[[], bool],
    is_ready: Callable[[], bool],
) -> web.Application:
    """The application; `services` is entered when it starts and left when it ends.

    Raises from its start what `services` raises.
    """
    app = web.Application(middlewares=[errors_as_json])

    async def life(running: web.Application) -> AsyncIterator[None]:
        async with services() as made:
            running[SERVICES] = made
            yield

    async def healthz(request: web.Request) -> web.Response:
        if not is_registered():
            raise Unavailable("not registered with the namenode yet")
        if routes.READY in request.query and not is_ready():
            raise Unavailable("the cluster has not been whole since this datanode started")
        return web.Response(body=messages.encode(messages.HealthBody("ok")), content_type="application/json")

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(body=request.app[SERVICES].metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.cleanup_ctx.append(life)
    app.add_routes(
        [
            web.put(f"{routes.BLOCKS}/{{block}}", put_block),
            web.get(routes.BLOCKS, get_blocks),
            web.get(f"{routes.BLOCKS}/{{block}}", get_block),
            web.delete(f"{routes.BLOCKS}/{{block}}", delete_block),
            web.get(routes.METADATA, list_metadata),
            web.put(f"{routes.METADATA}/{{name:[^/]*}}", put_metadata),
            web.get(f"{routes.METADATA}/{{name:[^/]*}}", get_metadata),
            web.delete(f"{routes.METADATA}/{{name:[^/]*}}", delete_metadata),
            web.post(routes.SYNC, sync_blocks),
            web.get(f"{routes.FILES}/{{ino}}/{{version}}/{{name:[^/]*}}", get_file),
            web.get(routes.HEALTHZ, healthz),
            web.get(routes.METRICS, metrics),
        ]
    )
    return app
