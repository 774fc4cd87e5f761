"""The datanode's calls to its namenode, each one request: no retries, no state.

Raises the error the namenode answered with, or Unavailable where it did not answer as a namenode does.
"""

from __future__ import annotations

from typing import Final, TypeVar

import aiohttp
import msgspec

from dfslib.errors import InvalidArgument, Unavailable
from dfslib.model import BlockId, InodeId
from dfslib.wire import messages, routes
from dfslib.wire.messages import (
    HeartbeatAnswer,
    HeartbeatRequest,
    JoinAnswer,
    JoinRequest,
    LayoutBody,
    LocateBody,
    ReportAnswer,
    ReportRequest,
)

T = TypeVar("T", bound=msgspec.Struct)

_TIMEOUT: Final = aiohttp.ClientTimeout(total=10, sock_connect=5)
"""A heartbeat is held for about a second; ten times that is silence."""
_REPORT_TIMEOUT: Final = aiohttp.ClientTimeout(total=60, sock_connect=5)
"""A page of a report is a transaction over thousands of keys."""


class NamenodeClient:
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        """`url` as DFS_NAMENODE_URL; the session stays the caller's."""
        self._session = session
        self.url: Final = url.rstrip("/")

    async def join(self, request: JoinRequest) -> JoinAnswer:
        return await self._call("POST", routes.CLUSTER_JOIN, JoinAnswer, request)

    async def report(self, request: ReportRequest) -> ReportAnswer:
        return await self._call("POST", routes.CLUSTER_REPORT, ReportAnswer, request, _REPORT_TIMEOUT)

    async def heartbeat(self, request: HeartbeatRequest) -> HeartbeatAnswer:
        return await self._call("POST", routes.CLUSTER_HEARTBEAT, HeartbeatAnswer, request)

    async def layout(self, ino: InodeId) -> LayoutBody:
        """Where the file's bytes lie now. Raises NotFound where there is no such file."""
        return await self._call("GET", routes.layout(ino), LayoutBody)

    async def locate(self, block: BlockId) -> list[str]:
        """URLs of the datanodes that hold a block; none where it is not known."""
        return (await self._call("GET", routes.locate(block), LocateBody)).urls

    async def _call(
        self,
        method: str,
        path: str,
        kind: type[T],
        body: msgspec.Struct | None = None,
        timeout: aiohttp.ClientTimeout = _TIMEOUT,
    ) -> T:
        data = messages.encode(body) if body is not None else None
        headers = {"Content-Type": "application/json"} if body is not None else None
        try:
            async with self._session.request(
                method, self.url + path, data=data, headers=headers, timeout=timeout
            ) as response:
                answer, status = await response.read(), response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise Unavailable(f"the namenode {self.url} does not answer: {reason}") from error
        if status != 200:
            raise messages.decode_error(answer, status)
        try:
            return messages.decode(answer, kind)
        except InvalidArgument as error:
            raise Unavailable(f"{self.url} does not answer as a namenode: {error}") from error
