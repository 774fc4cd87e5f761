"""The wall clock jumps by an hour, forward and back, under running servers: nothing but timestamps changes.

The servers' clock is libfaketime's (Debian's package faketime), told in a file; the monotonic clock stays true.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.cluster.plain_http import call, read_file
from tests.cluster.real_cluster import Cluster, wait_until
from tests.deadline import DEADLINE_S

FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
HOUR_S = 3600

pytestmark = pytest.mark.skipif(FAKETIME is None, reason="needs Debian's package libfaketime")


class Jumping:
    """A cluster and the clock that its servers see."""

    def __init__(self, folder: Path) -> None:
        self._offset = folder / "offset"
        self.jump(0)
        self.cluster = Cluster(folder, 3, DFS_GARBAGE_DELAY="1")
        for server in self.cluster.servers:
            server.env |= {
                "LD_PRELOAD": str(FAKETIME),
                "FAKETIME_TIMESTAMP_FILE": str(self._offset),
                "FAKETIME_NO_CACHE": "1",
                "DONT_FAKE_MONOTONIC": "1",
            }

    def jump(self, offset_s: int) -> None:
        new = self._offset.with_suffix(".new")
        new.write_text(f"{offset_s:+d}")
        new.replace(self._offset)

    def clock_is_off_by(self) -> float:
        """Seconds by which a new file's time is ahead."""
        call(self.cluster.url, "PUT", "/fs/clock", b"x")
        answer = requests.head(f"{self.cluster.url}fs/clock", timeout=DEADLINE_S)
        return int(answer.headers["X-DFS-Mtime-Ns"]) / 1e9 - time.time()


@pytest.fixture
def jumping(tmp_path: Path) -> Iterator[Jumping]:
    made = Jumping(tmp_path)
    try:
        made.cluster.start()
        yield made
    finally:
        made.cluster.stop()


def states(cluster: Cluster) -> list[str]:
    return [node["state"] for node in requests.get(f"{cluster.url}cluster", timeout=DEADLINE_S).json()["nodes"]]


def garbage(cluster: Cluster) -> int:
    return int(requests.get(f"{cluster.url}cluster", timeout=DEADLINE_S).json()["garbage_blocks"])


def test_a_jump_changes_nothing(jumping: Jumping) -> None:
    cluster = jumping.cluster
    call(cluster.url, "PUT", "/fs/log", b"start;")
    for number, offset_s in enumerate((HOUR_S, -HOUR_S)):
        headers = {"X_DFS_Request_Id": f"before-{number}"}
        assert call(cluster.url, "POST", "/fs/log?op=append", b"%d;" % number, **headers).status == 200
        jumping.jump(offset_s)
        assert abs(jumping.clock_is_off_by() - offset_s) < 60, "the clock of the servers has jumped"
        assert states(cluster) == ["alive"] * 3
        # What was remembered before the jump is remembered still; the collector has looked at it since.
        call(cluster.url, "PUT", f"/fs/gone-{number}", b"g" * 200_000)
        call(cluster.url, "DELETE", f"/fs/gone-{number}")
        wait_until(lambda: garbage(cluster) == 0, "what was deleted is collected")
        again = call(cluster.url, "POST", "/fs/log?op=append", b"%d;" % number, **headers)
        assert again.status == 200
        assert read_file(cluster.url, "/fs/log").body == b"start;" + b"".join(b"%d;" % n for n in range(number + 1))
        assert states(cluster) == ["alive"] * 3
    assert requests.get(f"{cluster.url}cluster/fsck", timeout=DEADLINE_S).json()["healthy"]


def test_a_restart_after_a_jump_back_changes_nothing(jumping: Jumping) -> None:
    cluster = jumping.cluster
    jumping.jump(HOUR_S)
    call(cluster.url, "PUT", "/fs/log", b"start;")
    first = call(cluster.url, "POST", "/fs/log?op=append", b"once;", X_DFS_Request_Id="over-a-restart")
    jumping.jump(0)
    for server in cluster.servers:
        server.kill()
        server.start()
    cluster.wait_alive()
    again = call(cluster.url, "POST", "/fs/log?op=append", b"once;", X_DFS_Request_Id="over-a-restart")
    assert again.json()["version"] == first.json()["version"]
    later = call(cluster.url, "POST", "/fs/log?op=append", b"more;")
    assert later.json()["version"] > first.json()["version"]
    assert read_file(cluster.url, "/fs/log").body == b"start;once;more;"
