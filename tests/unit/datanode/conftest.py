"""Fixtures for the tests beside this file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def volume_root(tmp_path: Path) -> Path:
    """The folders of a volume, for tests of the store alone."""
    for name in ("blocks", "tmp", "metadata", "quarantine"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def seed() -> int:
    """Of a test's randomness; pytest shows it when the test fails."""
    number = int.from_bytes(os.urandom(4), "big")
    print(f"seed={number}")
    return number
