"""What a volume remembers of the metadata that it was brought, whatever happens to the copies."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from dfslib.datanode.store import position as position_module
from dfslib.datanode.store.position import KeptPosition
from dfslib.wire.positions import Position


def at(number: int, epoch: int = 0, run: bytes = b"r" * 8) -> str:
    return str(Position(epoch, number, run, b"c" * 16))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("metadata", "blocks"):
        (tmp_path / name).mkdir()
    (tmp_path / "identity.json").write_text("{}")
    (tmp_path / "position-x").write_text("somebody's")
    return tmp_path


def opened(root: Path) -> KeptPosition:
    return KeptPosition(root, root / "metadata")


def stored(root: Path, name: str) -> None:
    """A copy that is as young as can be."""
    path = root / "metadata" / name
    path.write_bytes(b"copy")
    later_ns = time.time_ns() + 1_000_000_000
    os.utime(path, ns=(later_ns, later_ns))


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob("position-0*"))


def test_the_newest_one_is_kept_over_restarts(root: Path) -> None:
    assert opened(root).value == ""
    kept = opened(root)
    later = at(2, epoch=1)
    for told, newest in ((at(5), at(5)), (at(9), at(9)), (at(7), at(9)), (at(9), at(9)), (later, later)):
        kept.brought(told)
        assert kept.value == newest == opened(root).value
        assert names(root) == [f"position-{newest}"]
    assert (root / "position-x").read_text() == "somebody's"


def test_it_outlives_the_copies(root: Path) -> None:
    (root / "metadata" / "journal").write_bytes(b"copy")
    opened(root).brought(at(5))
    (root / "metadata" / "journal").unlink()
    (root / "metadata").rmdir()
    (root / "metadata").mkdir()
    assert opened(root).value == at(5)


def test_one_that_leads_to_nobody_knows_where_makes_it_unknown(root: Path) -> None:
    kept = opened(root)
    kept.brought(at(5))
    kept.brought("")
    assert kept.value == opened(root).value == ""
    kept.brought("")
    assert names(root) == []
    kept.brought(at(4))
    assert kept.value == opened(root).value == at(4)


def test_a_copy_stored_without_it_by_another_release_makes_it_unknown(root: Path) -> None:
    opened(root).brought(at(5))
    stored(root, "journal")
    assert opened(root).value == ""
    assert names(root) == []


def test_an_older_copy_that_comes_late_does_not(root: Path) -> None:
    """A checkpoint takes longer than the journals that go beyond it."""
    kept = opened(root)
    kept.brought(at(9))
    os.utime(root / names(root)[0], ns=(1, 1))
    (root / "metadata" / "checkpoint").write_bytes(b"copy")
    kept.brought(at(7))
    assert opened(root).value == at(9)


def test_two_names_after_a_power_cut_are_the_newer_one(root: Path) -> None:
    opened(root).brought(at(5))
    (root / f"position-{at(6)}").touch()
    assert opened(root).value == at(6)
    assert len(names(root)) == 1


def test_what_could_not_be_made_durable_is_not_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = opened(root)
    kept.brought(at(5))

    def full(_: object) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr(position_module, "sync_directory", full)
    for _ in range(2):
        with pytest.raises(OSError, match="no space"):
            kept.brought(at(6))
    monkeypatch.undo()
    kept.brought(at(6))
    assert kept.value == opened(root).value == at(6)
