"""The `X-DFS-Grant` header: to which datanodes a mount's block is to go."""

from __future__ import annotations

import base64
import binascii
from typing import Final

import msgspec

from dfslib.errors import InvalidArgument
from dfslib.wire import routes
from dfslib.wire.session import Grant

_decode: Final = msgspec.msgpack.Decoder(Grant).decode


def encode_grant(grant: Grant) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(grant)).decode()


def parse_grant(text: str) -> Grant:
    """Raises InvalidArgument, also for a grant without a target."""
    try:
        grant = _decode(base64.b64decode(text, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, msgspec.MsgspecError) as error:
        raise InvalidArgument(f"{routes.HEADER_GRANT} is no grant: {error}") from None
    if not grant.targets or len({target.node for target in grant.targets}) != len(grant.targets):
        raise InvalidArgument(f"{routes.HEADER_GRANT} names no datanode, or one twice")
    return grant
