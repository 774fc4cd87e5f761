"""The scrubber of a real datanode: what nobody reads is found bad all the same, and replaced."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.plain_http import call
from tests.cluster.real_cluster import Cluster, Server, wait_until

DATA = random.Random(11).randbytes(1_500_000)


@pytest.fixture
def scrubbed(tmp_path: Path) -> Iterator[Cluster]:
    """Three datanodes that look at everything every half second."""
    made = Cluster(tmp_path, 3)
    for server in made.datanodes:
        server.env["DFS_SCRUB_EVERY"] = "0.5"
    try:
        made.start()
        yield made
    finally:
        made.stop()


def root(server: Server) -> Path:
    return Path(server.env["DFS_FS_ROOT"])


def block_file(server: Server) -> Path:
    (found,) = root(server).glob("blocks/*/*")
    return found


def metric(server: Server, name: str) -> float:
    lines = call(server.url, "GET", "/metrics").body.decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"dfs_datanode_{name} "))


def is_good(server: Server) -> bool:
    return [path.read_bytes()[: len(DATA)] for path in root(server).glob("blocks/*/*")] == [DATA]


def healthy(cluster: Cluster) -> bool:
    return bool(call(cluster.url, "GET", "/cluster/fsck").json()["healthy"])


def test_what_nobody_reads_is_found_and_replaced(scrubbed: Cluster) -> None:
    assert call(scrubbed.url, "PUT", "/fs/unread", DATA).status == 201
    flipped, deleted, good = scrubbed.datanodes
    path = block_file(flipped)
    with path.open("r+b") as file:
        file.seek(1_000_000)
        byte = file.read(1)
        file.seek(1_000_000)
        file.write(bytes([byte[0] ^ 1]))
    block_file(deleted).unlink()
    wait_until(lambda: metric(flipped, "scrub_bad_total") == 1, "the changed byte is found")
    wait_until(lambda: metric(deleted, "missing_blocks_total") == 1, "the deleted file is missed")
    wait_until(lambda: is_good(flipped) and is_good(deleted), "good copies are back")
    wait_until(lambda: healthy(scrubbed), "the namenode knows")
    assert [p.name.split(".")[0] for p in (root(flipped) / "quarantine").iterdir()] == [path.name]
    assert metric(flipped, "bad_blocks_total") == 1
    assert metric(good, "bad_blocks_total") == metric(good, "missing_blocks_total") == 0
    before = metric(good, "scrub_finished_timestamp_seconds")
    wait_until(lambda: metric(good, "scrub_finished_timestamp_seconds") > before, "it goes on")
    assert metric(good, "scrubbed_bytes_total") >= len(DATA)


def test_a_restart_does_not_begin_anew(scrubbed: Cluster) -> None:
    server = scrubbed.datanodes[0]
    wait_until(lambda: metric(server, "scrub_finished_timestamp_seconds") > 0, "a pass")
    assert server.stop() == 0
    server.env["DFS_SCRUB_EVERY"] = "1e6"
    server.start()
    scrubbed.wait_alive(3)
    assert metric(server, "scrub_finished_timestamp_seconds") > 0
