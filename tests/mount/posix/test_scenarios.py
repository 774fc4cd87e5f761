"""The mount answers as a local directory does, errno by errno: scenarios.py on both, and the results compared."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.deadline import DEADLINE_S
from tests.mount.posix import scenarios
from tests.mount.real_mount import Mount, run

Results = dict[str, list[object]]
SCRIPT = str(Path(scenarios.__file__))
ALL_S = 5 * DEADLINE_S


@pytest.fixture(scope="module")
def results(mount: Mount, tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Results]:
    """Of all scenarios: on a local directory, and on the mount."""
    if os.geteuid() != 0:
        pytest.skip("makes devices and changes users: needs root")
    local = tmp_path_factory.mktemp("local")
    for above in (local, *local.parents[:2]):
        above.chmod(0o755)  # the scenarios' user gets there
    mounted = mount.path / "scenarios"
    mounted.mkdir()
    for above in mount.path.parents[:3]:
        above.chmod(0o755)
    return results_in(local), results_in(mounted)


def results_in(top: Path) -> Results:
    results: Results = json.loads(run([sys.executable, SCRIPT, str(top)], timeout_s=ALL_S))
    return results


@pytest.mark.parametrize("name", list(scenarios.SCENARIOS))
def test_the_mount_answers_as_a_local_directory(name: str, results: tuple[Results, Results]) -> None:
    local, mounted = results[0][name], results[1][name]
    assert local != ["no answer"]
    assert mounted == local
