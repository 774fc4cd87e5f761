"""Where a file can be read: at the datanode that the namenode names, or at another one where that failed.

The namenode hears of a datanode that dies, but not of one that a client cannot reach, or whose disk hangs. Any
datanode answers for any file, so another one is tried. Behind a balancer all have one URL, and it is tried again.
"""

from __future__ import annotations

import errno
import os
import random
from typing import Final
from urllib.parse import urljoin, urlsplit

import requests

from dfslib.client.transport import NoAnswer, Request, Transport, error_of, os_error, read_all
from dfslib.errors import DfsError
from dfslib.wire import messages, routes

_REDIRECTS: Final = (302, 303, 307, 308)


class Interrupted(Exception):
    """This attempt failed; another may succeed. `final`: by itself the answer is none that changes with time."""

    def __init__(self, failure: NoAnswer | DfsError) -> None:
        self.failure = failure
        self.final = isinstance(failure, DfsError) and not failure.retryable
        self.reason = str(failure)
        super().__init__(self.reason)

    def as_os_error(self, filename: str | bytes) -> OSError:
        if isinstance(self.failure, NoAnswer):
            return self.failure.as_os_error()
        return os_error(self.failure, filename)


class Sources:
    """The URLs of one file's content, one at a time. `target` is the file's at the namenode."""

    def __init__(self, transport: Transport, target: str, filename: str | bytes) -> None:
        self._transport = transport
        self._target = target
        self._filename = filename
        self._failed: set[str] = set()
        self.url = ""

    def locate(self) -> str:
        """The URL to read from, asked for where none is known.

        Raises Interrupted where the namenode may answer later, and the OSError of its answer.
        """
        if not self.url:
            found = self._ask_namenode()
            self.url = self._another(found) if _server(found) in self._failed else found
        return self.url

    def failed(self) -> None:
        """What is at `url` did not give all that it was asked for: take another one next time."""
        if self.url:
            self._failed.add(_server(self.url))
            self._transport.renew_connections()  # those that are kept may lead to the same machine
        self.url = ""

    def served(self) -> None:
        """What is at `url` works: whatever failed before may be tried again after it."""
        self._failed.clear()

    def _ask_namenode(self) -> str:
        url = self._transport.url[:-1] + self._target
        try:
            response = self._transport.stream("GET", url, {})
            try:
                if response.status_code >= 400:
                    raise self._refusal(response, url)
                if response.status_code not in _REDIRECTS:
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self._filename)
                read_all(response, url)
                return urljoin(url, response.headers.get("Location", ""))
            finally:
                response.close()
        except NoAnswer as failure:
            raise Interrupted(failure) from failure

    def _refusal(self, response: requests.Response, url: str) -> Exception:
        error = error_of(response, read_all(response, url), url)
        if isinstance(error, NoAnswer) or error.retryable:
            return Interrupted(error)
        return os_error(error, self._filename)

    def _another(self, url: str) -> str:
        """The same at a datanode that has not failed yet; at the one in `url` where there is none."""
        try:
            answer = self._transport.attempt(Request("GET", routes.CLUSTER))
            nodes = messages.decode(answer.data, messages.ClusterBody).nodes
        except (NoAnswer, DfsError):
            return url  # no more than advice was asked for
        path = urlsplit(url).path
        others = [
            node.public_url.rstrip("/") + path
            for node in nodes
            if node.state in ("alive", "draining") and _server(node.public_url) not in self._failed
        ]
        if not others:
            self._failed.clear()
            return url
        return random.choice(others)  # else all readers that one datanode leaves would go to the same one


def _server(url: str) -> str:
    return urlsplit(url).netloc
