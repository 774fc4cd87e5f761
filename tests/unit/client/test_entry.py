"""Entries of `ls` as path objects: what is done to one is done to that file."""

from __future__ import annotations

import errno
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest

from dfslib.client.entry import Entry
from dfslib.client.namenode import HttpNameNode
from tests.unit.client.fake_cluster import FakeCluster

ODD_NAMES = [b"keep", b"\xff\xfe", b"new\nline", b"a b", b"%2F", b"..."]


@pytest.fixture
def odd(cluster: FakeCluster) -> FakeCluster:
    """The same names at the root and in `/d`."""
    cluster.mkdir("/d")
    for name in ODD_NAMES:
        cluster.put(b"/" + name, b"root")
        cluster.put(b"/d/" + name, b"below")
    return cluster


@pytest.mark.parametrize("way", ["/d", "d", "/d/", "//d", b"/d", Path("/d"), Path("d")])
def test_what_is_removed_is_the_entry_and_no_namesake(
    odd: FakeCluster, dfs: HttpNameNode, way: str | bytes | os.PathLike[str]
) -> None:
    entries = dfs.ls(way)
    assert [os.fsencode(entry.path) for entry in entries] == [b"/d/" + name for name in sorted(ODD_NAMES)]
    assert {entry.parent for entry in entries} == {"/d"}
    for entry in entries:
        assert dfs.cat(entry) == b"below"
        dfs.rm(entry, recursive=True)
    assert set(odd.attrs) == {b"", b"d", *ODD_NAMES}


def test_entries_of_the_root_and_of_a_way_with_dots(odd: FakeCluster, dfs: HttpNameNode) -> None:
    assert [(entry.path, entry.parent) for entry in dfs.ls("/") if entry.name in ("d", "keep")] == [
        ("/d", "/"),
        ("/keep", "/"),
    ]
    directory = next(entry for entry in dfs.ls() if entry.is_dir)
    assert [entry.path for entry in dfs.ls(directory) if entry.name == "keep"] == ["/d/keep"]
    # What `..` means is known to the namenode alone, where there are links: it is kept
    odd.mkdir("/d/../e")
    odd.put("/d/../e/f", b"")
    assert [entry.path for entry in dfs.ls("/d/../e/")] == ["/d/../e/f"]


def test_every_method_takes_an_entry_for_its_path(odd: FakeCluster, dfs: HttpNameNode) -> None:
    entry = next(entry for entry in dfs.ls("/d") if entry.name == "keep")
    assert dfs.stat(entry) == dfs.lstat(entry) == entry.stat() == entry.info
    assert dfs.exists(entry)
    with dfs.open(entry, "rb") as file:
        assert file.read() == b"below"
    dfs.tee(entry, b"new")
    assert odd.data[b"d/keep"] == b"new"
    dfs.mv(entry, "/moved")
    assert odd.data[b"moved"] == b"new"
    assert odd.data[b"keep"] == b"root"
    assert [path for path, _, _ in dfs.walk(next(entry for entry in dfs.ls() if entry.is_dir))] == ["/d"]


def test_an_entry_is_no_local_path(odd: FakeCluster, dfs: HttpNameNode, tmp_path: Path) -> None:
    entry = next(entry for entry in dfs.ls("/d") if entry.name == "keep")
    with pytest.raises(TypeError, match="local path"):
        dfs.put(entry, "/x")
    with pytest.raises(TypeError, match="local path"):
        dfs.get("/keep", entry)
    dfs.get(entry, tmp_path)
    assert (tmp_path / "keep").read_bytes() == b"below"


def test_local_entries_and_paths_that_lead_from_elsewhere_are_refused(
    odd: FakeCluster, dfs: HttpNameNode, tmp_path: Path
) -> None:
    (tmp_path / "keep").touch()
    with os.scandir(tmp_path) as entries:
        local = next(entries)
    with pytest.raises(TypeError, match="local directory"):
        dfs.rm(local)
    for way in ("..", "../keep", b"../keep", Path("../keep")):
        for call in (dfs.rm, dfs.ls, dfs.stat, lambda path: dfs.rename("/keep", path)):
            with pytest.raises(OSError, match="begin it with a slash") as caught:
                call(way)
            assert caught.value.errno == errno.EINVAL
    assert odd.data[b"keep"] == b"root"
    assert dfs.exists("keep")


def test_entries_sort_as_listings_do_and_are_told_apart_by_path(odd: FakeCluster, dfs: HttpNameNode) -> None:
    listed = dfs.ls("/d")
    shuffled = random.Random(1).sample(listed, len(listed))
    assert sorted(shuffled) == listed
    odd.put("/d/keep", b"other")
    again = dfs.ls("/d/")
    assert set(again) == set(listed)
    assert not set(listed) & set(dfs.ls("/"))
    assert str(listed[0]) == listed[0].name
    assert listed[0] != listed[0].path


def test_entries_pickle_also_for_another_process(odd: FakeCluster, dfs: HttpNameNode) -> None:
    entries = dfs.ls("/d")
    copies = pickle.loads(pickle.dumps(entries))
    assert copies == entries
    assert [copy.info for copy in copies] == [entry.info for entry in entries]
    script = (
        "import os, pickle, sys; found = pickle.load(sys.stdin.buffer); assert len(set(found)) == len(found);"
        "sys.stdout.buffer.write(pickle.dumps((found, [os.fspath(entry) for entry in found])))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], input=pickle.dumps(entries), capture_output=True, check=True, timeout=60
    )
    found, paths = pickle.loads(answer.stdout)
    assert found == entries
    assert isinstance(found[0], Entry)
    assert paths == [entry.path for entry in entries]
