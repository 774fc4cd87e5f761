"""Names are any bytes, in URLs too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfslib.errors import InvalidArgument, NameTooLong
from dfslib.model import NAME_MAX, PATH_MAX
from dfslib.wire import routes
from dfslib.wire.paths import (
    check_name,
    decode_component,
    display,
    encode_name,
    encode_path,
    parse_query,
    split_path,
)

NAME = st.binary(min_size=1, max_size=NAME_MAX).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)


@given(st.lists(NAME, max_size=8), st.booleans())
def test_any_names_come_back(names: list[bytes], slash: bool) -> None:
    encoded = encode_path(b"/".join(names)) + "/" * slash
    assert encoded.isascii()
    assert not set(encoded) & set(' ?#%\n"<>') - {"%"}
    assert split_path(encoded) == (names, slash or not names)


@given(st.binary())
def test_any_bytes_come_back(raw: bytes) -> None:
    assert decode_component(encode_path(raw)) == raw
    assert decode_component(encode_name(raw)) == raw
    assert "/" not in encode_name(raw)
    assert parse_query(f"a={encode_name(raw)}&{encode_name(b'b')}={encode_path(raw)}") == {"a": raw, "b": raw}


@given(st.binary())
def test_raw_bytes_in_a_request_line_are_bytes_of_the_name(raw: bytes) -> None:
    """aiohttp has them as surrogates."""
    text = raw.decode("utf-8", "surrogateescape")
    if "%" not in text:
        assert decode_component(text) == raw
    display(text)


@given(st.text(alphabet=st.sampled_from("a/%.2FfeE0~\ud800\udcff"), max_size=12))
def test_no_text_does_worse_than_an_error_of_ours(text: str) -> None:
    try:
        names, _ = split_path(text)
    except InvalidArgument:
        return
    for name in names:
        check_name(name)
        assert name != b"."


@pytest.mark.parametrize("path", ["%", "%2", "a/%zz", "a%2", "%%41", "%+1", "%-1", "% 1", "%\u0661\u0661"])
def test_malformed_percent_encoding_is_refused(path: str) -> None:
    with pytest.raises(InvalidArgument):
        split_path(path)


@pytest.mark.parametrize("path", ["a%00b", "%00", "a%2Fb", "%2f", "..%2F..%2Fetc"])
def test_nul_and_an_encoded_slash_are_no_part_of_a_name(path: str) -> None:
    with pytest.raises(InvalidArgument):
        split_path(path)


@pytest.mark.parametrize("letter", ["a", "%C3", "\u00fc"])
def test_a_name_has_at_most_255_bytes(letter: str) -> None:
    size = len(decode_component(letter))
    assert len(split_path(letter * (NAME_MAX // size))[0][0]) <= NAME_MAX
    with pytest.raises(NameTooLong):
        split_path(letter * (NAME_MAX // size + 1))


def test_a_path_has_at_most_path_max_bytes() -> None:
    name = "n" * 127
    names, _ = split_path("/".join([name] * (PATH_MAX // 128)))
    assert len(names) == PATH_MAX // 128
    with pytest.raises(NameTooLong):
        split_path("/".join([name] * (PATH_MAX // 128) + ["n"]))
    with pytest.raises(NameTooLong):
        split_path("a/" * 10_000)
    with pytest.raises(NameTooLong):
        split_path("/" * 10_000)


@pytest.mark.parametrize(
    ("path", "names", "must_be_dir"),
    [
        ("", [], True),
        ("/", [], True),
        ("a", [b"a"], False),
        ("/a//./b", [b"a", b"b"], False),
        ("a/", [b"a"], True),
        ("a/.", [b"a"], True),
        ("a/%2E", [b"a"], True),
        ("a/..", [b"a", b".."], True),
        ("%2E%2e/a", [b"..", b"a"], False),
        ("...", [b"..."], False),
        ("a%20+b", [b"a +b"], False),
    ],
)
def test_dots_and_slashes(path: str, names: list[bytes], must_be_dir: bool) -> None:
    assert split_path(path) == (names, must_be_dir)


@pytest.mark.parametrize("name", [b"", b"a/b", b"/", b"\0", b"a\0"])
def test_what_can_be_no_entry(name: bytes) -> None:
    with pytest.raises(InvalidArgument):
        check_name(name)


def test_queries() -> None:
    assert parse_query("") == {}
    assert parse_query("op=mkdir&parents=true") == {"op": b"mkdir", "parents": b"true"}
    assert parse_query("to=a+b%2Bc%26%3D&flag") == {"to": b"a b+c&=", "flag": b""}
    for bad in ("a=1&a=2", "a=%", "%zz=1"):
        with pytest.raises(InvalidArgument):
            parse_query(bad)


def test_routes_take_any_bytes() -> None:
    assert routes.fs(b"/a b/\xff?#") == "/fs/a%20b/%FF%3F%23"
    assert routes.fs(b"a") == "/fs/a"
