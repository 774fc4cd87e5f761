"""Random operations on one file: fsx.py, with the content compared on another mount as well."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

from tests.mount.posix import fsx
from tests.mount.real_mount import Mount, run

OPERATIONS = 1500


@pytest.mark.parametrize("number", range(2))
def test_a_file_is_what_was_made_of_it(number: int, mount: Mount, other_mount: Mount, folder: Path) -> None:
    seed = int(os.environ.get("DFS_SEED", random.SystemRandom().randrange(1 << 30))) + number
    print(f"DFS_SEED={seed - number}")
    mirror = other_mount.path / folder.relative_to(mount.path) / "file"
    run([sys.executable, fsx.__file__, str(folder / "file"), str(seed), str(OPERATIONS), str(mirror)])
