"""The content of one file, read from whichever datanode the namenode names, with failures bridged.

A read that breaks off is taken up at the byte where it broke, at another datanode, and only of the same
content (`If-Range`). Does not store anything and keeps no more than a piece in memory.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from typing import Final

import requests
import urllib3.exceptions

from dfslib.client import remote_paths
from dfslib.client.remote_paths import RemotePath
from dfslib.client.sources import Interrupted, Sources
from dfslib.client.transport import NoAnswer, Transport, error_of, failure_of, os_error, read_all
from dfslib.errors import RangeNotSatisfiable

PIECE_BYTES: Final = 256 << 10
STALL_S: Final = 10.0
"""A datanode that sends nothing for so long is left for another one: it hangs, or its disk does."""
_REFUSALS_MAX: Final = 3
"""A datanode may refuse because the file was replaced since the namenode named it; not time and again."""
_CONTENT_RANGE: Final = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", re.ASCII | re.IGNORECASE)


class ContentChanged(OSError):
    """The file has other content now than where reading began. errno is ESTALE."""

    def __init__(self, filename: str | bytes) -> None:
        super().__init__(errno.ESTALE, "the content changed while it was read", filename)


class Content:
    """One file's content at one time. `etag` and `size` (bytes) are known from the first piece on.

    `etag`, where given, is the content that is meant: other content raises ContentChanged.
    """

    def __init__(self, transport: Transport, path: RemotePath, etag: str = "") -> None:
        self._transport = transport
        self._filename = os.fspath(path)
        self._sources = Sources(transport, remote_paths.target(path), self._filename)
        self.etag = etag
        self.size: int | None = None

    def locate(self) -> None:
        """Ask the namenode where the file can be read. Raises IsADirectoryError, FileNotFoundError, ..."""
        retries = self._transport.retries()
        while True:
            try:
                self._sources.locate()
                return
            except Interrupted as failure:
                if not retries.pause(failure.reason):
                    raise failure.as_os_error(self._filename) from failure

    def pieces(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to `end` or the end of the file, in pieces.

        Raises ContentChanged, the OSError of the answer, and ConnectionError where nobody answers in time.
        """
        retries = self._transport.retries()
        position = start
        refusals = 0
        while True:
            try:
                for piece in self._once(position, end):
                    position += len(piece)
                    refusals = 0
                    retries.progressed()
                    self._sources.served()
                    yield piece
                return
            except Interrupted as failure:
                self._sources.failed()
                refusals += failure.final
                if refusals > _REFUSALS_MAX or not retries.pause(failure.reason):
                    raise failure.as_os_error(self._filename) from failure

    def _once(self, start: int, end: int | None) -> Iterator[bytes]:
        """What one datanode gives. Raises Interrupted where another one should be asked."""
        url = self._sources.locate()
        headers = {}
        if start or end is not None:
            headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
            if self.etag:
                headers["If-Range"] = self.etag
        try:
            stall_s = min(STALL_S, self._transport.timeout_s)
            response = self._transport.stream("GET", url, headers, answer_timeout_s=stall_s)
        except NoAnswer as failure:
            raise Interrupted(failure) from failure
        try:
            stop = self._examine(response, url, start, end)
            if stop is None:
                return
            left = stop - start
            while left > 0:
                piece = _read(response, url, min(left, PIECE_BYTES))
                left -= len(piece)
                yield piece
        finally:
            response.close()

    def _examine(self, response: requests.Response, url: str, start: int, end: int | None) -> int | None:
        """Where the bytes that this answer brings end; None where there are none at `start`."""
        status = response.status_code
        if status >= 400 and status != 416:
            raise _refusal(response, url)
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        if status == 416:
            read_all(response, url)
            if self.etag and response.headers.get("ETag", self.etag) != self.etag:
                raise ContentChanged(self._filename)
            if self.size is None and found and found[3] != "*":
                self.size = int(found[3])
            if self.size is not None and start >= self.size:
                return None
            raise os_error(RangeNotSatisfiable(f"{url} refused the range"), self._filename)
        etag = response.headers.get("ETag", "")
        if (self.etag and etag != self.etag) or (start and status != 206):
            raise ContentChanged(self._filename)
        if status == 206:
            if not found or found[1] is None or int(found[1]) != start or found[3] == "*":
                raise Interrupted(_malformed(url, "a part that was not asked for"))
            size, stop = int(found[3]), int(found[2]) + 1
        elif status == 200 and response.headers.get("Content-Length", "").isdigit():
            size = int(response.headers["Content-Length"])
            stop = size if end is None else min(size, end)
        else:
            raise Interrupted(_malformed(url, f"status {status} or no length"))
        self.etag, self.size = etag, size
        return stop


def _refusal(response: requests.Response, url: str) -> Interrupted:
    """What a datanode's answer from 400 on means: another one, or a newer version's place, may do better."""
    try:
        return Interrupted(error_of(response, read_all(response, url), url))
    except NoAnswer as failure:
        return Interrupted(failure)


def _malformed(url: str, what: str) -> NoAnswer:
    return NoAnswer(url, f"answered with {what}", never_sent=False, number=errno.EPROTO)


def _read(response: requests.Response, url: str, count: int) -> bytes:
    """Between 1 and `count` bytes of an answer. Raises Interrupted where it breaks off."""
    try:
        piece = bytes(response.raw.read(count, decode_content=False))
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Interrupted(failure_of(error, url)) from error
    if not piece:
        raise Interrupted(NoAnswer(url, "the body ended early", never_sent=False, number=errno.ECONNRESET))
    return piece
