"""Docker's volume plugin protocol, version 1: JSON over HTTP on a unix socket, all of it POST, errors in `Err`."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from dfslib.errors import DfsError
from dfslib.mount.volumes.driver import Driver
from dfslib.mount.volumes.state import Volume
from dfslib.runtime.logs import event

log = logging.getLogger("dfs.volumes")

_CONTENT_TYPE: Final = "application/vnd.docker.plugins.v1.1+json"


class _Request(msgspec.Struct, rename="pascal"):
    """What any of the requests may carry."""

    name: str = ""
    id: str = msgspec.field(name="ID", default="")
    opts: dict[str, str] | None = None


Answer = dict[str, Any]


def make_app(driver: Driver) -> web.Application:
    async def create(request: _Request) -> Answer:
        await driver.create(request.name, request.opts or {})
        return {}

    async def remove(request: _Request) -> Answer:
        await driver.remove(request.name)
        return {}

    async def mount(request: _Request) -> Answer:
        return {"Mountpoint": str(await driver.mount(request.name, request.id))}

    async def unmount(request: _Request) -> Answer:
        await driver.unmount(request.name, request.id)
        return {}

    async def path(request: _Request) -> Answer:
        return {"Mountpoint": _mountpoint(driver, driver.get(request.name))}

    async def get(request: _Request) -> Answer:
        return {"Volume": _describe(driver, driver.get(request.name))}

    async def list_all(_: _Request) -> Answer:
        return {"Volumes": [_describe(driver, volume) for volume in driver.all()]}

    async def activate(_: _Request) -> Answer:
        return {"Implements": ["VolumeDriver"]}

    async def capabilities(_: _Request) -> Answer:
        return {"Capabilities": {"Scope": "global"}}  # a volume of one name is the same directory on every host

    app = web.Application()
    app.add_routes([web.post("/Plugin.Activate", _handler(activate))])
    for name, work in (
        ("Create", create), ("Remove", remove), ("Mount", mount), ("Unmount", unmount), ("Path", path), ("Get", get),
        ("List", list_all), ("Capabilities", capabilities),
    ):  # fmt: skip
        app.add_routes([web.post(f"/VolumeDriver.{name}", _handler(work))])
    return app


def _handler(work: Callable[[_Request], Awaitable[Answer]]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        try:
            body = await request.read()
            answer = await work(msgspec.json.decode(body or b"{}", type=_Request))
            status = 200
        except msgspec.MsgspecError as error:
            answer, status = {"Err": f"not a request of Docker: {error}"}, 400
        except DfsError as error:
            log.warning(event("refused", request=request.path, reason=error))
            answer, status = {"Err": error.message}, 500
        return web.Response(body=msgspec.json.encode({"Err": "", **answer}), status=status, content_type=_CONTENT_TYPE)

    return handle


def _mountpoint(driver: Driver, volume: Volume) -> str:
    return str(driver.path(volume)) if volume.users else ""


def _describe(driver: Driver, volume: Volume) -> Answer:
    return {
        "Name": volume.name,
        "Mountpoint": _mountpoint(driver, volume),
        "CreatedAt": volume.created,
        "Status": {"subdir": volume.subdir, "users": len(volume.users)},
    }
