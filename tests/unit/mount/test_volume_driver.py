"""What a volume plugin remembers of who uses a volume, while its mount comes and goes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dfslib.errors import Unavailable
from dfslib.mount.volumes import driver as driver_module
from dfslib.mount.volumes.driver import Driver, Place
from dfslib.mount.volumes.state import State


def test_a_mount_that_fails_takes_nothing_from_who_was_given_it_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = True

    async def attach() -> None:
        if not works:
            raise Unavailable("the cluster is away")

    monkeypatch.setattr(driver_module, "bind", lambda tree, subdir, place: None)
    state = State(tmp_path / "volumes.json")
    driver = Driver(state, Place(tmp_path / "mnt", tmp_path / "volumes", attach))

    async def run() -> None:
        nonlocal works
        await driver.create("v", {})
        await driver.mount("v", "one")
        works = False
        for user in ("one", "two"):
            with pytest.raises(Unavailable):
                await driver.mount("v", user)

    asyncio.run(run())
    assert driver.get("v").users == ["one"]
    assert State(tmp_path / "volumes.json").volumes["v"].users == ["one"]
