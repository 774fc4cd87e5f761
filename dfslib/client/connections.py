"""Pools of kept connections, with patience for sending, and without faith in halves of answers.

urllib3 sends a body with the timeout that it connects with. That one is short; a namenode, though, may take
nothing for as long as a datanode that stalls holds it up. And http.client takes the end of the connection for the
end of an answer's headers: a size would be believed that lacks its last digits. No cookies, no proxies, no `.netrc`.
"""

from __future__ import annotations

import http.client
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

POOL_CONNECTIONS: Final = 32
"""Connections kept to each server; more threads than this work too, and then open one each time."""
SEND_TIMEOUT_S: Final = 30.0
"""For one piece of a body. Longer than DFS_STALL_TIMEOUT (10 s), in which a datanode that stalls is given up."""


class _Lines:
    """The lines of an answer's head; that it ends before the empty one is an error."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._any = False

    def readline(self, limit: int = -1) -> bytes:
        line: bytes = self._stream.readline(limit)
        if not line.endswith(b"\n") and (line or self._any) and len(line) != limit:
            raise http.client.RemoteDisconnected("the connection ended in the head of the answer")
        self._any = True
        return line

    def close(self) -> None:
        self._stream.close()


class _Response(http.client.HTTPResponse):
    def begin(self) -> None:
        stream = self.fp
        lines = _Lines(stream)
        self.fp = lines  # type: ignore[assignment]  # only these two methods are used before the body
        try:
            super().begin()
        finally:
            if self.fp is lines:  # type: ignore[comparison-overlap]  # else it was closed, there is no body
                self.fp = stream


class _Connection(HTTPConnection):
    response_class = _Response

    def send(self, data: Any) -> None:
        _be_patient(self)
        super().send(data)


class _TlsConnection(HTTPSConnection):
    response_class = _Response

    def send(self, data: Any) -> None:
        _be_patient(self)
        super().send(data)


def _be_patient(connection: HTTPConnection) -> None:
    if connection.sock is not None:  # else the headers are sent, and it connects now
        connection.sock.settimeout(SEND_TIMEOUT_S)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


def new_session() -> requests.Session:
    """A session without connections yet. Proxies and certificates named in the environment are not used."""
    session = requests.Session()
    session.trust_env = False
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    adapter = HTTPAdapter(pool_connections=POOL_CONNECTIONS, pool_maxsize=POOL_CONNECTIONS, max_retries=0)
    adapter.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
    for scheme in ("http://", "https://"):
        session.mount(scheme, adapter)
    return session
