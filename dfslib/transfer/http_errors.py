"""Failures as answers, alike for every server: our JSON, the code as a header, the traceback in the log."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from dfslib.errors import DfsError, InputOutput, InvalidArgument, NotFound
from dfslib.runtime.logs import event
from dfslib.wire import messages, routes

log = logging.getLogger("dfs.http")

_CLIENT_GONE: Final = 499
"""Never seen by anyone; what is counted for a request whose client did not wait for the end."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def error_response(error: DfsError, headers: dict[str, str] | None = None, status: int = 0) -> web.Response:
    """An error as JSON, with its code as a header too, because an answer to HEAD has no body."""
    return web.Response(
        status=status or error.http_status,
        body=messages.encode_error(error),
        content_type="application/json",
        headers={routes.HEADER_ERROR: error.code, **(headers or {})},
    )


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
    except ConnectionError as error:  # the client has gone, or was cut off on purpose: nobody to answer
        log.debug(event("connection ended", method=request.method, path=request.path, error=error))
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=_CLIENT_GONE)
    except Exception as error:
        log.exception(event("request failed unexpectedly", method=request.method, path=request.path))
        return error_response(InputOutput(f"unforeseen {type(error).__name__}; the server's log tells more"))


def _of_http(request: web.Request, error: web.HTTPException) -> web.Response:
    """aiohttp's own refusals: no such route, no such method, a body too large for what asked for it."""
    if error.status == 404:
        return error_response(NotFound("there is no such address", request.path))
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    return error_response(InvalidArgument(error.reason, request.path), headers, error.status)
