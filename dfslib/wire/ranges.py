"""The `Range` request header (RFC 9110, 14.2), one range in bytes."""

from __future__ import annotations

import re

from dfslib.errors import RangeNotSatisfiable

_RANGE = re.compile(r"bytes\s*=\s*(\d{0,19})\s*-\s*(\d{0,19})", re.ASCII | re.IGNORECASE)


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The half-open range [start, end) of a body of `size` bytes, or None where the whole is meant.

    Other units and several ranges at once are ignored, as the RFC allows. Raises RangeNotSatisfiable
    for a range outside the body and, stricter than the RFC, for one that makes no sense.
    """
    if header is None or not header.strip().lower().startswith("bytes") or "," in header:
        return None
    match = _RANGE.fullmatch(header.strip())
    if not match or not (match[1] or match[2]):
        raise RangeNotSatisfiable(f"{header!r} is not a range of bytes")
    if not match[1]:
        start, end = max(0, size - int(match[2])), size
    else:
        start = int(match[1])
        end = min(size, int(match[2]) + 1) if match[2] else size
        if match[2] and int(match[2]) < start:
            raise RangeNotSatisfiable(f"{header!r} ends before it starts")
    if start >= end:
        raise RangeNotSatisfiable(f"{header!r} is outside of {size} bytes")
    return start, end
