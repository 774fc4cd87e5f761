"""Paths in URLs: names are any bytes but '/' and NUL, percent-encoded byte by byte (RFC 3986, 2.1).

Text stands for bytes as Python's file functions have it (`os.fsencode`, surrogateescape).
"""

from __future__ import annotations

import os
from urllib.parse import quote_from_bytes, unquote_to_bytes

from dfslib.errors import InvalidArgument, NameTooLong
from dfslib.model import NAME_MAX, PATH_MAX

_SAFE = "/!$'()*,:@~"
"""Left as they are, for readable URLs. Not '+', '&', '=', ';' : these mean something in a query."""


def encode_path(path: bytes) -> str:
    """Percent-encode a path or a name for a URL's path or a query's value."""
    return quote_from_bytes(path, safe=_SAFE)


def encode_name(name: bytes) -> str:
    return quote_from_bytes(name, safe=_SAFE.replace("/", ""))


def decode_component(text: str) -> bytes:
    """Undo percent-encoding. Raises InvalidArgument where '%' is not followed by two digits."""
    for part in text.split("%")[1:]:
        if len(part) < 2 or not set(part[:2]) <= set("0123456789abcdefABCDEF"):
            raise InvalidArgument("malformed percent-encoding", text)
    return _unquote(text)


def _unquote(text: str) -> bytes:
    """Percent-decoded bytes; those that came raw, as surrogates in a server's text, stand for themselves."""
    try:
        return unquote_to_bytes(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        raise InvalidArgument("not the text of a URL") from None


def split_path(encoded: str) -> tuple[list[bytes], bool]:
    """The names of a percent-encoded path, and whether it ends in a slash, '.' or '..' (and so must be a directory).

    '.' and empty components are dropped; '..' is kept, for whoever resolves the path. Raises
    InvalidArgument for NUL or an encoded slash in a name, NameTooLong past NAME_MAX or PATH_MAX.
    """
    names: list[bytes] = []
    total = 0
    name = b""
    for part in encoded.split("/"):
        name = decode_component(part)
        total += len(name) + 1
        if total > PATH_MAX:
            raise NameTooLong(f"a path has at most {PATH_MAX} bytes", display(encoded[:64]) + "…")
        if name in (b"", b"."):
            continue
        check_name(name)
        names.append(name)
    return names, name in (b"", b".", b"..")


def check_name(name: bytes) -> None:
    """Raise InvalidArgument or NameTooLong unless `name` can be a directory entry."""
    if not name or b"/" in name or b"\0" in name:
        raise InvalidArgument("a name has at least one byte, and neither '/' nor NUL", os.fsdecode(name))
    if len(name) > NAME_MAX:
        raise NameTooLong(f"a name has at most {NAME_MAX} bytes", os.fsdecode(name))


def display(encoded: str) -> str:
    """A percent-encoded path as a person reads it, for messages."""
    return _unquote(encoded).decode("utf-8", "surrogateescape")


def parse_query(raw: str) -> dict[str, bytes]:
    """The parameters of a query. Raises InvalidArgument where one is repeated or malformed."""
    values: dict[str, bytes] = {}
    for part in raw.split("&") if raw else ():
        key, _, value = part.partition("=")
        name = decode_component(key).decode("utf-8", "replace")
        if name in values:
            raise InvalidArgument(f"parameter {name!r} is given twice")
        values[name] = decode_component(value.replace("+", "%20"))
    return values
