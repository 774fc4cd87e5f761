"""The parameters of a request, typed and checked at the edge. Unknown ones are refused."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from decimal import Decimal

from dfslib.config import parse_replication
from dfslib.errors import InvalidArgument
from dfslib.model import clamped_time
from dfslib.wire.paths import check_name, parse_query

_SECONDS = re.compile(r"-?\d{1,19}(\.\d{1,9})?", re.ASCII)


class Params:
    """Query parameters. Every getter raises InvalidArgument naming the parameter."""

    def __init__(self, raw_query: str, allowed: Set[str]) -> None:
        self._values = parse_query(raw_query)
        for name in self._values:
            if name not in allowed:
                known = ", ".join(sorted(allowed)) or "none"
                raise InvalidArgument(f"unknown parameter {name!r}; known here: {known}")

    @property
    def values(self) -> Mapping[str, bytes]:
        """All of them, as they were sent."""
        return self._values

    def raw(self, name: str) -> bytes | None:
        return self._values.get(name)

    def required(self, name: str) -> bytes:
        value = self._values.get(name)
        if not value:
            raise InvalidArgument(f"parameter {name!r} is missing")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._values.get(name)
        if value is None:
            return default
        if value.lower() in (b"", b"true", b"1"):
            return True
        if value.lower() in (b"false", b"0"):
            return False
        raise self._wrong(name, "must be true or false")

    def number(self, name: str, least: int, most: int) -> int | None:
        text = self._text(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) <= 20 and least <= int(text) <= most):
            raise self._wrong(name, f"must be a whole number from {least} to {most}")
        return int(text)

    def mode(self, name: str) -> int | None:
        text = self._text(name)
        if text is None:
            return None
        if not re.fullmatch(r"[0-7]{1,5}", text) or int(text, 8) > 0o7777:
            raise self._wrong(name, "must be an octal mode such as 644 or 0755")
        return int(text, 8)

    def time_ns(self, name: str) -> int | None:
        """Seconds since the epoch, with up to 9 decimals, as nanoseconds: the nearest that an inode can have."""
        text = self._text(name)
        if text is None:
            return None
        if not _SECONDS.fullmatch(text):
            raise self._wrong(name, "must be seconds since the epoch, such as 1700000000.5")
        return clamped_time(int(Decimal(text) * 10**9))

    def replication(self, name: str) -> int | None:
        text = self._text(name)
        if text is None:
            return None
        try:
            return parse_replication(text)
        except ValueError as error:
            raise self._wrong(name, str(error)) from None

    def entry_name(self, name: str) -> bytes:
        """A directory entry's name, or nothing."""
        value = self._values.get(name, b"")
        if value:
            check_name(value)
        return value

    def _text(self, name: str) -> str | None:
        value = self._values.get(name)
        return None if value is None else value.decode("utf-8", "replace")

    def _wrong(self, name: str, why: str) -> InvalidArgument:
        value = self._values[name].decode("utf-8", "replace")[:64]
        return InvalidArgument(f"parameter {name}={value!r} {why}")
