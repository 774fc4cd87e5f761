"""The `X-DFS-Origin` header: for whom a block's bytes were written."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final

import msgspec

from dfslib.errors import InvalidArgument
from dfslib.model import InodeId, Origin
from dfslib.wire import routes

_decode: Final = msgspec.msgpack.Decoder(list[Origin]).decode


def origin_path(ino: InodeId) -> bytes:
    """The path of an origin that knows its file only by number: a mount's, where files may have any names."""
    return b"inode-%d" % ino


def encode_origins(origins: Sequence[Origin]) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(origins)).decode()


def parse_origins(text: str | None) -> list[Origin]:
    """The header's origins; none where it is missing. Raises InvalidArgument."""
    if text is None:
        return []
    if len(text) > routes.MAX_ORIGIN_BYTES * 4 // 3 + 4:
        raise InvalidArgument(f"{routes.HEADER_ORIGIN} has more than {routes.MAX_ORIGIN_BYTES} bytes")
    try:
        padded = text + "=" * (-len(text) % 4)  # both forms of base64url are in use
        return _decode(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise InvalidArgument(f"{routes.HEADER_ORIGIN} is not a list of origins: {error}") from None
