"""Attributes as JSON and as headers, and back."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfslib.errors import InputOutput
from dfslib.model import REPLICATION_ALL, Attr, FileType, InodeId
from dfslib.wire.attributes import attr_body, attr_headers, attr_of_body, attr_of_headers, name_of_body
from dfslib.wire.messages import AttrBody, decode, encode
from dfslib.wire.paths import decode_component

U64 = st.integers(0, (1 << 63) - 1)
TIME = st.integers(-(1 << 63), (1 << 63) - 1)
NAME = st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name and b"/" not in name)
ATTR = st.builds(
    Attr,
    ino=U64.map(InodeId),
    type=st.sampled_from(FileType),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, (1 << 32) - 2),
    gid=st.integers(0, (1 << 32) - 2),
    nlink=st.integers(0, 70000),
    size=U64,
    allocated=U64,
    atime_ns=TIME,
    mtime_ns=TIME,
    ctime_ns=TIME,
    version=U64,
    rdev=U64,
    target=st.binary(max_size=20),
    replication=st.sampled_from([0, REPLICATION_ALL, 1, 64]),
)


@given(ATTR, NAME, NAME)
def test_json_round_trip(attr: Attr, path: bytes, name: bytes) -> None:
    body = decode(encode(attr_body(attr, path=path, name=name, replicas=2)), AttrBody)
    assert attr_of_body(body) == attr
    assert os.fsencode(name_of_body(body)) == name
    assert (decode_component(body.path_bytes) if body.path_bytes else body.path.encode()) == path
    assert body.replicas == 2
    assert bool(body.etag) == (attr.type is FileType.FILE)


@given(ATTR)
def test_header_round_trip(attr: Attr) -> None:
    if attr.type is not FileType.SYMLINK:
        attr = Attr(**{name: getattr(attr, name) for name in attr.__struct_fields__ if name != "target"})
    headers = attr_headers(attr)
    for name, value in headers.items():
        assert value.isascii(), name
        assert value.isprintable(), name
        assert value == value.strip(), name
    assert attr_of_headers(headers) == attr


@pytest.mark.parametrize("mtime_ns", [-(1 << 63), -1, 0, 1, (1 << 63) - 1])
def test_any_time_has_a_last_modified(mtime_ns: int) -> None:
    headers = attr_headers(Attr(InodeId(1), FileType.FILE, 0o644, mtime_ns=mtime_ns))
    assert headers["Last-Modified"].endswith("GMT")


def test_text_that_is_exact_is_not_sent_twice() -> None:
    body = attr_body(Attr(InodeId(1), FileType.SYMLINK, 0o777, target=b"\xc3\xbc"), name="ü\n".encode())
    assert (body.name, body.name_bytes, body.target, body.target_bytes) == ("ü\n", "", "ü", "")
    body = attr_body(Attr(InodeId(1), FileType.SYMLINK, 0o777, target=b"\xff"), name=b"\xfe")
    assert (body.name_bytes, body.target_bytes) == ("%FE", "%FF")


@pytest.mark.parametrize("damage", ["X-DFS-Inode", "X-DFS-Type", "X-DFS-Mode"])
def test_headers_of_something_else_are_refused(damage: str) -> None:
    headers = dict(attr_headers(Attr(InodeId(1), FileType.FILE, 0o644)))
    for broken in ({**headers, damage: "?"}, {k: v for k, v in headers.items() if k != damage}, {}):
        with pytest.raises(InputOutput):
            attr_of_headers(broken)
