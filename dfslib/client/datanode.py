"""`HttpDataNode`: one datanode, for tools and tests that look at blocks. Files are HttpNameNode's."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from dfslib.client.bodies import Body, Data
from dfslib.client.retrying import Timing
from dfslib.client.transport import NoAnswer, Repeat, Request, Transport
from dfslib.errors import DfsError
from dfslib.model import BlockId
from dfslib.wire import messages, routes


class HttpDataNode:
    """A datanode, by its URL. Methods raise OSError, and ConnectionError where it does not answer."""

    def __init__(self, url: str = "http://localhost:8181/", timeout_s: float = 30.0, timing: Timing | None = None):
        """`url`: such as http://host:8181/. Raises ValueError where it is none. Connects to nothing yet."""
        self._transport = Transport(url, timeout_s, timing)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept for later calls."""
        self._transport.close()

    @property
    def url(self) -> str:
        return self._transport.url

    def ping_alive(self) -> bool:
        """Whether the datanode is able to serve, asked once; raises nothing."""
        try:
            return self._transport.attempt(Request("GET", routes.HEALTHZ)).status == 200
        except (DfsError, NoAnswer):
            return False

    def has_block(self, block: BlockId) -> bool:
        """Whether a block can be had here."""
        try:
            self.block_size(block)
        except FileNotFoundError:
            return False
        return True

    def block_size(self, block: BlockId) -> int:
        """Bytes in a block. Raises FileNotFoundError."""
        answer = self._transport.send(Request("HEAD", routes.block(block), filename=routes.block(block)))
        return int(answer.headers.get("Content-Length", "0"))

    def read_block(self, block: BlockId, offset: int = 0, length: int | None = None) -> bytes:
        """`length` bytes of a block from `offset` on, checked against their checksums by the datanode.

        Raises FileNotFoundError, and ValueError for a negative offset or length.
        """
        if offset < 0 or (length is not None and length < 0):
            raise ValueError("offset and length must not be negative")
        if length == 0:
            return b""
        headers = {}
        if offset or length is not None:
            headers["Range"] = f"bytes={offset}-{'' if length is None else offset + length - 1}"
        return self._transport.send(
            Request("GET", routes.block(block), headers=headers, filename=routes.block(block))
        ).data

    def write_block(self, block: BlockId, data: Data, crc32c: int | None = None) -> int:
        """Store a block durably; its size. Refused (OSError EBADMSG) where `crc32c` does not match.

        Blocks are immutable: raises FileExistsError for one that is there with other content.
        """
        headers = {} if crc32c is None else {routes.HEADER_CRC32C: f"{crc32c:08x}"}
        target = routes.block(block)
        answer = self._transport.send(Request("PUT", target, Body(data), headers, filename=target))
        return messages.decode(answer.data, messages.BlockBody).size

    def delete_block(self, block: BlockId) -> None:
        """Remove a block. Raises FileNotFoundError."""
        target = routes.block(block)
        self._transport.send(Request("DELETE", target, filename=target, done_codes=frozenset({"ENOENT"})))

    def metrics(self) -> str:
        """The datanode's metrics, as Prometheus reads them."""
        return self._transport.send(Request("GET", routes.METRICS, repeat=Repeat.ALWAYS)).data.decode()
