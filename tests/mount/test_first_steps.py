"""What everybody does first with a mount."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.mount.real_mount import Mount, run


def test_a_file_is_written_and_read_on_another_mount(folder: Path, mount: Mount, other_mount: Mount) -> None:
    elsewhere = other_mount.path / folder.relative_to(mount.path)
    run("echo hello > greeting; mkdir sub; ln -s ../greeting sub/link; ln greeting second", folder)
    assert run("cat greeting second sub/link; stat -c %h greeting", elsewhere) == "hello\nhello\nhello\n2\n"
    run("mv greeting sub/moved; rm second", elsewhere)
    assert run("ls; cat sub/moved", folder) == "sub\nhello\n"


def test_appends_of_two_mounts_follow_one_another(folder: Path, mount: Mount, other_mount: Mount) -> None:
    elsewhere = other_mount.path / folder.relative_to(mount.path)
    for number in range(5):
        run(f"echo one{number} >> log", folder)
        run(f"echo two{number} >> log", elsewhere)
    assert run("cat log", folder).split() == [f"{who}{n}" for n in range(5) for who in ("one", "two")]


def test_the_kernel_reads_ahead_further_than_by_default(mount: Mount) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root sets the kernel's read-ahead")
    device = mount.path.stat().st_dev
    setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    assert int(setting.read_text()) >= 512
