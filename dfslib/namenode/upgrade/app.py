"""`/cluster/upgrade`: where an upgrade stands (GET), and its end (POST)."""

from __future__ import annotations

from aiohttp import web

from dfslib.namenode.params import Params
from dfslib.namenode.upgrade.finalize import Upgrade
from dfslib.wire import messages, routes


class UpgradeRoutes:
    def __init__(self, upgrade: Upgrade) -> None:
        self._upgrade = upgrade

    def routes(self) -> list[web.RouteDef]:
        return [web.get(routes.CLUSTER_UPGRADE, self.status), web.post(routes.CLUSTER_UPGRADE, self.finalize)]

    async def status(self, request: web.Request) -> web.Response:
        Params(request.rel_url.raw_query_string, set())
        return _json(self._upgrade.status())

    async def finalize(self, request: web.Request) -> web.Response:
        """Raise the cluster's level to the newest one. Said again, it answers alike."""
        Params(request.rel_url.raw_query_string, set())
        return _json(await self._upgrade.finalize())


def _json(body: messages.UpgradeBody) -> web.Response:
    return web.Response(body=messages.encode(body), content_type="application/json")
