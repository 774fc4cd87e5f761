"""The tree of errors: complete, told apart by code, and the same on both sides of the wire."""

from __future__ import annotations

import errno
import json
import os

import pytest

from dfslib import errors
from dfslib.errors import DfsError, InputOutput, error_classes, from_code
from dfslib.wire.messages import decode_error, encode_error

ALL = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, DfsError)]
CONCRETE = [cls for cls in ALL if cls is not DfsError]

OS_ERRORS = {
    errors.NotFound: FileNotFoundError,
    errors.Exists: FileExistsError,
    errors.ConditionFailed: FileExistsError,
    errors.IsADirectory: IsADirectoryError,
    errors.NotADirectory: NotADirectoryError,
    errors.AccessDenied: PermissionError,
    errors.NotPermitted: PermissionError,
    errors.ForeignVolume: PermissionError,
    errors.WouldBlock: BlockingIOError,
}


def test_every_class_is_found_by_its_code() -> None:
    assert set(error_classes().values()) == set(CONCRETE)
    assert all(from_code(cls.code, "m").__class__ is cls for cls in CONCRETE)


def test_no_code_is_used_twice() -> None:
    codes = [cls.code for cls in CONCRETE]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("cls", ALL)
def test_every_class_has_what_each_boundary_needs(cls: type[DfsError]) -> None:
    assert cls.errno in errno.errorcode
    assert cls.code.startswith("E")
    assert cls.code.isupper()
    assert 400 <= cls.http_status < 600
    assert isinstance(cls.retryable, bool)
    if cls.code in vars(errno) and cls is not errors.RangeNotSatisfiable:
        assert cls.errno == vars(errno)[cls.code]


@pytest.mark.parametrize("cls", ALL)
def test_as_os_error_is_what_python_raises_for_a_local_file(cls: type[DfsError]) -> None:
    error = cls("because", "/some/path").as_os_error()
    assert type(error) is OS_ERRORS.get(cls, OSError)
    assert (error.errno, error.strerror, error.filename) == (cls.errno, "because", "/some/path")
    without = cls().as_os_error()
    assert (without.filename, without.strerror) == (None, os.strerror(cls.errno))


@pytest.mark.parametrize("cls", CONCRETE)
@pytest.mark.parametrize("path", ["", "/a b/\u00fc\n'\"", "/\udcff"], ids=ascii)
def test_an_error_is_the_same_after_the_wire(cls: type[DfsError], path: str) -> None:
    sent = cls("what happened", path)
    data = encode_error(sent)
    json.loads(data)
    got = decode_error(data, cls.http_status)
    assert type(got) is cls
    assert got.message == "what happened"
    assert got.path == path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def test_the_path_as_the_asker_wrote_it_goes_first() -> None:
    data = encode_error(errors.NotFound("m", "/as/the/server/has/it"))
    assert decode_error(data, 404, "mine").path == "mine"


@pytest.mark.parametrize(
    ("status", "cls"),
    [(404, errors.NotFound), (502, errors.Unavailable), (503, errors.Unavailable), (504, errors.Unavailable)]
    + [(status, InputOutput) for status in (400, 403, 413, 500, 599)],
)
@pytest.mark.parametrize("data", [b"", b"<html>", b"[]", b"null", b'{"error": 5, "message": "m"}', b"\xff"])
def test_a_page_that_is_not_ours_is_told_by_its_status(status: int, cls: type[DfsError], data: bytes) -> None:
    error = decode_error(data, status, "p")
    assert type(error) is cls
    assert str(status) in error.message
    assert error.path == "p"


def test_a_code_of_a_newer_peer_is_an_input_output_error() -> None:
    error = decode_error(b'{"error": "ENEWER", "message": "m", "more": 1}', 418)
    assert type(error) is InputOutput
    assert error.message == "m"


def test_text_names_the_path_first() -> None:
    assert str(errors.NotFound(path="/x")) == "/x: No such file or directory"
    assert str(errors.NotFound("gone")) == "gone"
