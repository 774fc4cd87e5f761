"""Sizes for people, rounded up as df, du and ls do."""

from __future__ import annotations

import math


def human(size_bytes: int) -> str:
    """1023, 1.0K, 12M, 1.5G: powers of 1024, two digits at least."""
    size, unit = float(size_bytes), ""
    for unit in ("", "K", "M", "G", "T", "P", "E"):
        if size < 1024 or unit == "E":
            break
        size /= 1024
    if not unit:
        return str(size_bytes)
    tenths = math.ceil(size * 10) / 10
    if tenths < 10:
        return f"{tenths:.1f}{unit}"
    whole = math.ceil(size)
    return human(whole * 1024 ** ("KMGTPE".index(unit) + 1)) if whole == 1024 and unit != "E" else f"{whole}{unit}"


def kibibytes(size_bytes: int) -> str:
    """In units of 1024 bytes, rounded up."""
    return str(-(-size_bytes // 1024))


def percent(used: int, available: int) -> str:
    """How full, rounded up, as df has it; `-` where there is no room at all to speak of."""
    total = used + available
    return f"{-(-100 * used // total)}%" if total else "-"
