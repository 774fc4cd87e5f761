"""The datanode's HTTP application: routes to handlers, errors to answers, health and metrics."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from dfslib.datanode.services import SERVICES, Services
from dfslib.datanode.web.answers import error_response
from dfslib.datanode.web.block_routes import delete_block, get_block, put_block
from dfslib.datanode.web.file_routes import get_file
from dfslib.errors import DfsError, InputOutput, InvalidArgument, NotFound, Unavailable
from dfslib.runtime.logs import event
from dfslib.wire import messages, routes

log = logging.getLogger("dfs.datanode")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(
    services: Callable[[], AbstractAsyncContextManager[Services]], is_registered: Callable[[], bool]
) -> web.Application:
    """The application; `services` is entered when it starts and left when it ends.

    Raises from its start what `services` raises.
    """
    app = web.Application(middlewares=[errors_as_json])

    async def life(running: web.Application) -> AsyncIterator[None]:
        async with services() as made:
            running[SERVICES] = made
            yield

    async def healthz(_: web.Request) -> web.Response:
        if not is_registered():
            raise Unavailable("not registered with the namenode yet")
        return web.Response(body=messages.encode(messages.HealthBody("ok")), content_type="application/json")

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(body=request.app[SERVICES].metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.cleanup_ctx.append(life)
    app.add_routes(
        [
            web.put(f"{routes.BLOCKS}/{{block}}", put_block),
            web.get(f"{routes.BLOCKS}/{{block}}", get_block),
            web.delete(f"{routes.BLOCKS}/{{block}}", delete_block),
            web.get(f"{routes.FILES}/{{ino}}/{{version}}/{{name:[^/]*}}", get_file),
            web.get(routes.HEALTHZ, healthz),
            web.get(routes.METRICS, metrics),
        ]
    )
    return app


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure as our JSON. An unforeseen one is logged with its traceback and is EIO outside."""
    try:
        return await handler(request)
    except DfsError as error:
        return error_response(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _of_http(request, error)
    except ConnectionError:
        raise  # the client has gone, or was cut off on purpose: there is nobody to answer
    except Exception as error:
        log.exception(event("request failed unexpectedly", method=request.method, path=request.path))
        return error_response(InputOutput(f"unforeseen {type(error).__name__}; the datanode's log tells more"))


def _of_http(request: web.Request, error: web.HTTPException) -> web.Response:
    """aiohttp's own refusals: no such route, no such method, a body too large for what asked for it."""
    if error.status == 404:
        return error_response(NotFound("a datanode has no such address", request.path))
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    return error_response(InvalidArgument(error.reason, request.path), headers, error.status)
