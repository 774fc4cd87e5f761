"""HTTP with nothing between the test and the wire: paths are sent just as they are written."""

from __future__ import annotations

import http.client
import json
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.deadline import DEADLINE_S


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The error's code, which stands in the body and in a header alike."""
        if self.body:
            assert self.json()["error"] == self.headers["x-dfs-error"]
        return self.headers["x-dfs-error"]


def call(url: str, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
    """One request on a connection of its own; header names have '_' for '-'."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=DEADLINE_S)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        if body is not None and not any(name.lower() == "content_length" for name in headers):
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, answer.read())
    finally:
        connection.close()


def read_file(url: str, path: str, **headers: str) -> Answer:
    """GET of a file, the redirect followed."""
    answer = call(url, "GET", path)
    assert answer.status == 307, answer
    parts = urlsplit(answer.headers["location"])
    return call(f"http://{parts.netloc}", "GET", parts.path, None, **headers)
