"""The namenode's HTTP application: routes, errors as answers, health and metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from dfslib.namenode.checkpoint.cluster import Cluster, State
from dfslib.namenode.metrics import Metrics
from dfslib.transfer.http_errors import Handler, errors_as_json
from dfslib.wire import messages, routes

_ALWAYS: Final = frozenset(
    {routes.CLUSTER, routes.CLUSTER_JOIN, routes.CLUSTER_RESTORE, routes.CLUSTER_OPEN, routes.METRICS}
)
"""What a namenode that waits for its metadata answers as well."""


def make_app(
    route_tables: Sequence[Sequence[web.RouteDef]],
    metrics: Metrics,
    life: Callable[[web.Application], AsyncIterator[None]],
    cluster: Cluster,
) -> web.Application:
    """`life` starts and ends what runs beside the requests. Until the cluster is open, none but those of `_ALWAYS`
    are answered."""

    @web.middleware
    async def gated(request: web.Request, handler: Handler) -> web.StreamResponse:
        reachable = request.path in _ALWAYS or (request.path == routes.HEALTHZ and routes.READY in request.query)
        if cluster.state is not State.OPEN and not reachable:
            cluster.require_open()
        return await handler(request)

    @web.middleware
    async def counted(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        metrics.count(request.method, response.status)
        return response

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(body=messages.encode(messages.HealthBody("ok")), content_type="application/json")

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(body=metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application(middlewares=[counted, errors_as_json, gated])
    for table in route_tables:
        app.add_routes(table)
    app.add_routes([web.get(routes.HEALTHZ, healthz), web.get(routes.METRICS, scrape)])
    app.cleanup_ctx.append(life)
    return app
