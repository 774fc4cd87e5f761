"""A volume's identity: made once, kept, locked, and never mistaken for another's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dfslib.datanode.store.volume import Volume
from dfslib.errors import ForeignVolume, InputOutput, Unavailable
from dfslib.wire.features import NEWEST_LEVEL


def test_identity_stays(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "root"
    volume = Volume.open(root)
    node_id = volume.node_id
    assert len(node_id) == 32
    assert volume.cluster_id == ""
    volume.bind("cluster", 0, 1)
    volume.bind("cluster", 0, 1)
    volume.close()
    again = Volume.open(root)
    assert (again.node_id, again.cluster_id) == (node_id, "cluster")
    with pytest.raises(ForeignVolume, match="belongs to cluster cluster"):
        again.bind("another", 0, 1)
    assert json.loads((root / "identity.json").read_text())["cluster_id"] == "cluster"
    again.close()
    again.close()


def test_the_epoch_only_grows(tmp_path: Path) -> None:
    volume = Volume.open(tmp_path)
    assert volume.epoch == 0
    volume.bind("c", 3, 1)
    with pytest.raises(Unavailable, match="out of date"):
        volume.bind("c", 2, 1)
    with pytest.raises(ForeignVolume):
        volume.bind("other", 9, 1)
    volume.close()
    again = Volume.open(tmp_path)
    assert (again.cluster_id, again.epoch) == ("c", 3)
    again.bind("c", 4, 1)
    assert json.loads((tmp_path / "identity.json").read_text())["epoch"] == 4
    again.close()


def test_a_volume_from_before_epochs(tmp_path: Path) -> None:
    Volume.open(tmp_path).close()
    (tmp_path / "identity.json").write_text('{"node_id": "a", "cluster_id": "c", "format": 1}')
    (tmp_path / "metadata").rmdir()
    volume = Volume.open(tmp_path)
    assert (volume.cluster_id, volume.epoch) == ("c", 0)
    assert (tmp_path / "metadata").is_dir()
    volume.close()


def test_in_use_by_another_process(tmp_path: Path) -> None:
    volume = Volume.open(tmp_path)
    script = (
        "import pathlib, sys; from dfslib.datanode.store.volume import Volume; Volume.open(pathlib.Path(sys.argv[1]))"
    )
    other = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True)
    assert other.returncode == 1
    assert "in use by another process" in other.stderr
    with pytest.raises(ForeignVolume, match="in use"):
        Volume.open(tmp_path)
    volume.close()
    Volume.open(tmp_path).close()


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(ForeignVolume, match=r"thesis\.tex"):
        Volume.open(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_blocks_without_identity_are_refused(tmp_path: Path) -> None:
    Volume.open(tmp_path).close()
    (tmp_path / "identity.json").unlink()
    with pytest.raises(ForeignVolume):
        Volume.open(tmp_path)


def test_a_new_file_system_and_a_first_start_cut_short_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "lock").touch()
    (tmp_path / "identity.json.new").write_text("{")
    Volume.open(tmp_path).close()


def test_a_broken_identity_is_not_replaced(tmp_path: Path) -> None:
    Volume.open(tmp_path).close()
    (tmp_path / "identity.json").write_text("")
    with pytest.raises(InputOutput):
        Volume.open(tmp_path)
    assert (tmp_path / "identity.json").read_text() == ""


@pytest.mark.parametrize("level", [NEWEST_LEVEL + 1, 0])
def test_a_later_level_or_a_format_that_is_none_is_refused(tmp_path: Path, level: int) -> None:
    (tmp_path / "identity.json").write_text(json.dumps({"node_id": "a", "cluster_id": "", "format": level}))
    with pytest.raises(ForeignVolume, match=f"(level|format) {level}"):
        Volume.open(tmp_path)


def test_the_level_is_remembered_and_never_falls(tmp_path: Path) -> None:
    volume = Volume.open(tmp_path)
    assert (volume.level, _format(tmp_path)) == (1, 1)
    volume.bind("c", 3, 1)
    assert (volume.level, _format(tmp_path)) == (1, 1)  # the build before reads it
    volume.bind("c", 3, 2)
    for epoch, level in ((3, 1), (4, 1), (9, NEWEST_LEVEL + 1)):
        with pytest.raises(Unavailable):
            volume.bind("c", epoch, level)
    volume.close()
    again = Volume.open(tmp_path)
    assert (again.level, again.epoch, _format(tmp_path)) == (2, 3, 2)
    again.close()


def _format(root: Path) -> int:
    return int(json.loads((root / "identity.json").read_text())["format"])
