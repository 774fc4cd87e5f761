"""What a request with an id asked for, kept small: enough to tell its repetition from another request.

An id that was used for something else must not get the first one's answer: its sender would take for done what nobody
did. No HTTP here; the body is summed as it passes, and nothing of it is held.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from typing import Final, NamedTuple

import msgspec
from crc32c import crc32c

from dfslib.errors import RequestIdReused

_DIGEST_BYTES: Final = 16
"""Nobody gains by making two requests of his own alike; by chance they never are."""


class Asked(NamedTuple):
    """`head`: a digest of method, path, parameters and conditions; `size` and `crc32c` of the body."""

    head: bytes
    size: int
    crc32c: int


def digest_head(method: str, path: bytes, parameters: Mapping[str, bytes], conditions: tuple[str, ...]) -> bytes:
    """The order of the parameters means nothing, and a proxy may change it."""
    head = (method, path, sorted(parameters.items()), conditions)
    return hashlib.blake2b(msgspec.msgpack.encode(head), digest_size=_DIGEST_BYTES).digest()


class IdentifiedRequest:
    """A request that carries an id. What it asked for is known when its body has passed through `passing`."""

    def __init__(self, request_id: bytes, head: bytes) -> None:
        self.id = request_id
        self._head = head
        self._size = self._crc32c = 0

    @property
    def asked(self) -> Asked:
        return Asked(self._head, self._size, self._crc32c)

    async def passing(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The body, which is summed. To be used once."""
        async for piece in body:
            self._size += len(piece)
            self._crc32c = crc32c(piece, self._crc32c)
            yield piece

    def check_head(self, before: Asked | None, size: int | None) -> None:
        """Before the body was read, of which `size` may be announced. Raises RequestIdReused."""
        if before is not None and (before.head != self._head or size not in (None, before.size)):
            raise reused(self.id)

    def check(self, before: Asked | None) -> None:
        """With all of the body. `before`: what was asked for first, where that is known. Raises RequestIdReused."""
        if before is not None and before != self.asked:
            raise reused(self.id)


def reused(request_id: bytes) -> RequestIdReused:
    """For people: which id, and what to do."""
    return RequestIdReused(
        f"the request id {request_id.decode()!r} was used for another request within the last ten minutes; nothing "
        "was changed: send this one with an id of its own"
    )
