"""One of three datanodes hangs: neither dead nor alive, its connections taken by its kernel, nothing answered."""

from __future__ import annotations

import pytest

from tests.cluster.real_cluster import MakeCluster
from tests.mount.real_mount import MakeMount, run, run_python

WRITE = """
import os
for number in range(4):
    f = os.open(f"f{number}", os.O_WRONLY | os.O_CREAT)
    for _ in range(3): os.write(f, bytes([65 + number]) * 3_000_000)
    os.fsync(f)
    os.close(f)
"""


@pytest.mark.parametrize("hung", [0, 1, 2])
def test_what_is_written_and_read_while_one_of_three_datanodes_hangs_is_there_when_it_is_dead(
    hung: int, make_cluster: MakeCluster, make_mount: MakeMount
) -> None:
    cluster = make_cluster(3)
    mount, other = make_mount(cluster.url), make_mount(cluster.url)
    run("head -c 9000000 /dev/zero | tr '\\0' z > before; sync before", mount.path)
    cluster.datanodes[hung].pause()
    run_python(WRITE, mount.path)
    assert run("tr -d z < before | wc -c; wc -c < before", other.path).split() == ["0", "9000000"]
    cluster.datanodes[hung].kill()
    for number in range(4):
        letter = chr(65 + number)
        assert run(f"tr -d {letter} < f{number} | wc -c; wc -c < f{number}", other.path).split() == ["0", "9000000"]
