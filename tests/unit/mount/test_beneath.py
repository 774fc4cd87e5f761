"""Opening a directory beneath another one, whatever links and other things are in the way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfslib.errors import InvalidArgument
from dfslib.mount.beneath import open_beneath


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "tree").mkdir()
    (tmp_path / "outside").mkdir()
    descriptor = os.open(tmp_path / "tree", os.O_PATH)
    yield descriptor
    os.close(descriptor)


def test_what_is_missing_is_made(tmp_path: Path, root: int) -> None:
    for _ in range(2):
        found = open_beneath(root, "/a/b/c", make=True)
        assert Path(f"/proc/self/fd/{found}").readlink() == tmp_path / "tree/a/b/c"
        os.close(found)
    found = open_beneath(root, "/", make=True)
    assert os.path.sameopenfile(found, root)
    os.close(found)


@pytest.mark.parametrize("target", ["/", "..", "../outside", "inside", "gone", "/proc/self/root", "loop"])
@pytest.mark.parametrize("subdir", ["/loop", "/loop/x", "/inside/loop"])
def test_no_link_is_followed(tmp_path: Path, root: int, target: str, subdir: str) -> None:
    inside = tmp_path / "tree/inside"
    inside.mkdir()
    (tmp_path / f"tree{'/inside' if 'inside' in subdir else ''}/loop").symlink_to(target)
    with pytest.raises(InvalidArgument, match="symbolic link"):
        open_beneath(root, subdir, make=True)
    assert not list((tmp_path / "outside").iterdir())


def test_files_are_no_directories(tmp_path: Path, root: int) -> None:
    (tmp_path / "tree/file").touch()
    for subdir in ("/file", "/file/x"):
        with pytest.raises(InvalidArgument, match="no directory"):
            open_beneath(root, subdir, make=True)


def test_other_mounts_are_not_entered() -> None:
    top = os.open("/", os.O_PATH)
    with pytest.raises(InvalidArgument, match="something else is mounted"):
        open_beneath(top, "/proc", make=True)
    os.close(top)


def test_nothing_is_made_unasked(tmp_path: Path, root: int) -> None:
    with pytest.raises(FileNotFoundError):
        open_beneath(root, "/a/b", make=False)
    assert not list((tmp_path / "tree").iterdir())
