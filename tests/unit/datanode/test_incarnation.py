"""How a volume remembers its processes: each has a name of its own, and knows those before it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dfslib.datanode.store import incarnation
from dfslib.datanode.store.volume import Volume


def start(root: Path) -> incarnation.Incarnation:
    volume = Volume.open(root)
    begun = volume.incarnation()
    assert volume.incarnation() is begun
    volume.close()
    return begun


def test_each_start_has_a_name_and_knows_those_before(tmp_path: Path) -> None:
    first, second, third = (start(tmp_path) for _ in range(3))
    assert [one.starts for one in (first, second, third)] == [1, 2, 3]
    assert len({one.name for one in (first, second, third)}) == 3
    assert first.ancestors == []
    assert third.ancestors == [first.name, second.name]


def test_a_process_that_never_joined_leaves_nothing(tmp_path: Path) -> None:
    first = start(tmp_path)
    for _ in range(3):
        Volume.open(tmp_path).close()  # its port was taken, say
    assert start(tmp_path).ancestors == [first.name]


def test_copies_go_different_ways(tmp_path: Path) -> None:
    common = start(tmp_path / "one")
    (tmp_path / "two").mkdir()
    for name in ("identity.json", "incarnation.json"):
        (tmp_path / "two" / name).write_bytes((tmp_path / "one" / name).read_bytes())
    one, two = start(tmp_path / "one"), start(tmp_path / "two")
    assert one.starts == two.starts
    assert one.ancestors == two.ancestors == [common.name]
    assert one.name != two.name


def test_the_names_are_bounded(tmp_path: Path) -> None:
    Volume.open(tmp_path).close()
    begun = [incarnation.begin(tmp_path) for _ in range(150)]
    assert begun[-1].starts == 150
    assert begun[-1].ancestors == [one.name for one in begun[-100:-1]]


@pytest.mark.parametrize("content", [b"", b"{", b'{"starts": -1}', b'{"names": 7}'])
def test_what_cannot_be_read_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    start(tmp_path)
    (tmp_path / "incarnation.json").write_bytes(content)
    begun = start(tmp_path)
    assert (begun.starts, begun.ancestors) == (1, [])
    assert start(tmp_path).ancestors == [begun.name]


def test_a_volume_that_takes_no_writes_gives_none(tmp_path: Path) -> None:
    first = start(tmp_path)
    (tmp_path / "incarnation.json.new").mkdir()  # where the new one would be written
    assert start(tmp_path) == incarnation.NONE
    (tmp_path / "incarnation.json.new").rmdir()
    assert start(tmp_path).ancestors == [first.name]


def test_unknown_fields_of_a_later_release_do_no_harm(tmp_path: Path) -> None:
    first = start(tmp_path)
    path = tmp_path / "incarnation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"later": 1}))
    assert start(tmp_path).ancestors == [first.name]
