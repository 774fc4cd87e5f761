"""How far a copy of the namenode's metadata leads, as one word: in a header, in messages, in a file's name.

    EPOCH-NUMBER-RUN-CHAIN      6 and 20 digits, 16 and 32 hexadecimal digits

Of one epoch, the word that sorts later was written later. What the parts mean is the namenode's (metadata/history.py).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from dfslib.errors import InvalidArgument

_FORM: Final = re.compile(r"(\d{6})-(\d{20})-([0-9a-f]{16})-([0-9a-f]{32})", re.ASCII)


class Position(NamedTuple):
    """A commit of the metadata: the epoch that it is of, its number, the run that made it, and the hash of it and of
    all before it."""

    epoch: int
    number: int
    run: bytes
    chain: bytes

    def __str__(self) -> str:
        return f"{self.epoch:06}-{self.number:020}-{self.run.hex()}-{self.chain.hex()}"


def parse_position(text: str) -> Position:
    """Raises InvalidArgument."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"{text[:100]!r} is no position of the metadata")
    return Position(int(match[1]), int(match[2]), bytes.fromhex(match[3]), bytes.fromhex(match[4]))
