"""A disk that fails to write, below real processes: what is said to be on disk is there when the power has been cut."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from dfslib.model import BlockId
from dfslib.runtime.ids import BlockIds
from dfslib.wire import routes
from tests.cluster.plain_http import read_file
from tests.cluster.real_cluster import Cluster, Server, free_ports, wait_until
from tests.cluster.sick_disk import AVAILABLE, SickDisk

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="only root can mount a disk that fails")
new_id = BlockIds()
SMALL, LARGE = os.urandom(30_000), os.urandom(5 << 20)


class Sick:
    """A datanode on a disk that fails, without a namenode: nobody tells it to delete what it is given."""

    def __init__(self, folder: Path, disk: SickDisk) -> None:
        self.disk = disk
        port, nobody = free_ports(2)
        self.server = Server(
            "sick",
            folder,
            {
                "DFS_NODE_CLASS": "data_node.DataNode",
                "DFS_FS_ROOT": str(disk.mount / "volume"),
                "DFS_HOST": "127.0.0.1",
                "DFS_PORT": str(port),
                "DFS_NAMENODE_URL": f"http://127.0.0.1:{nobody}/",
                "DFS_RESERVED_SPACE": "1MiB",
                "DFS_STOP_TIMEOUT": "5",
            },
        )
        self.start()

    def start(self) -> None:
        self.server.start()
        wait_until(self._answers, "the datanode answers")

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.server.url}/healthz", timeout=60).status_code == 503
        except requests.ConnectionError:
            return False

    def put(self, block: BlockId, data: bytes, *, sync: bool) -> int:
        headers = {routes.HEADER_SYNC: str(sync).lower()}
        return requests.put(self.server.url + routes.block(block), data=data, headers=headers, timeout=60).status_code

    def sync(self) -> int:
        return requests.post(self.server.url + routes.SYNC, timeout=60).status_code

    def get(self, block: BlockId) -> bytes | None:
        answer = requests.get(f"{self.server.url}{routes.block(block)}?local=true", timeout=60)
        assert answer.status_code in (200, 404), answer.text
        return answer.content if answer.status_code == 200 else None

    def after_a_power_cut(self) -> None:
        self.server.kill()
        self.disk.cut_power()
        self.start()


@pytest.fixture
def sick(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Sick]:
    with contextlib.ExitStack() as stack:
        disk = SickDisk(tmp_path, journal=request.param == "journal")
        stack.callback(disk.close)
        made = Sick(tmp_path, disk)
        stack.callback(made.server.kill)
        yield made


@pytest.mark.parametrize("sick", ["no journal"], indirect=True)
def test_a_sync_that_failed_succeeds_only_once_all_is_on_disk(sick: Sick) -> None:
    before, small, large = new_id(), new_id(), new_id()
    assert sick.put(before, SMALL, sync=False) == 201
    assert sick.sync() == 204
    assert sick.put(small, SMALL, sync=False) == 201
    assert sick.put(large, LARGE, sync=False) == 201
    sick.disk.fail()
    assert [sick.sync() for _ in range(3)] == [500, 500, 500]
    assert sick.get(small) == SMALL  # the memory has it
    sick.disk.heal()
    wait_until(lambda: sick.sync() == 204, "the disk works again")
    sick.after_a_power_cut()
    assert [sick.get(block) for block in (before, small, large)] == [SMALL, SMALL, LARGE]


@pytest.mark.parametrize("sick", ["no journal", "journal"], indirect=True)
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_a_block_that_could_not_be_synced_is_not_acknowledged_by_another_attempt(sick: Sick, data: bytes) -> None:
    block, other = new_id(), new_id()
    assert sick.put(other, SMALL, sync=True) == 201
    sick.disk.fail()
    assert all(sick.put(block, data, sync=True) >= 500 for _ in range(3))
    assert sick.get(block) is None
    sick.disk.heal()
    statuses = [sick.put(block, data, sync=True) for _ in range(2)]
    sick.after_a_power_cut()
    assert sick.get(other) == SMALL
    assert sick.get(block) == (data if 201 in statuses else None)


@pytest.mark.parametrize("sick", ["journal"], indirect=True)
def test_a_file_system_that_has_given_up_acknowledges_nothing_more(sick: Sick) -> None:
    block = new_id()
    assert sick.sync() == 204
    assert sick.put(block, SMALL, sync=False) == 201
    sick.disk.fail()
    statuses = [sick.sync() for _ in range(2)]
    sick.disk.heal()
    statuses += [sick.sync() for _ in range(2)]
    acknowledged = 204 in statuses
    sick.after_a_power_cut()
    assert not acknowledged or sick.get(block) == SMALL


@pytest.mark.parametrize("sick", ["no journal"], indirect=True)
def test_a_process_answers_for_what_the_one_before_it_left(sick: Sick) -> None:
    block = new_id()
    assert sick.sync() == 204
    assert sick.put(block, SMALL, sync=False) == 201
    sick.disk.fail()
    sick.server.kill()
    sick.start()
    assert sick.sync() == 500
    sick.disk.heal()
    wait_until(lambda: sick.sync() == 204, "the disk works again")
    sick.after_a_power_cut()
    assert sick.get(block) == SMALL


@pytest.mark.parametrize("journal", [True, False], ids=["journal", "no journal"])
def test_a_namenode_whose_disk_fails_ends_and_what_it_acknowledged_is_there(tmp_path: Path, journal: bool) -> None:
    with contextlib.ExitStack() as stack:
        disk = SickDisk(tmp_path, journal=journal)
        stack.callback(disk.close)
        cluster = Cluster(tmp_path, 2, DFS_DB_PATH=str(disk.mount / "namenode"))
        stack.callback(cluster.stop)
        cluster.start()
        kept: dict[str, bytes] = {}

        def put() -> int:
            path, data = f"/fs/f{len(kept)}", os.urandom(3000)
            try:
                status = requests.put(cluster.url.rstrip("/") + path, data=data, timeout=60).status_code
            except requests.ConnectionError:
                return 0
            if status == 201:
                kept[path] = data
            return status

        assert [put() for _ in range(5)] == [201] * 5
        disk.fail()
        while put() == 201:  # what its file has room for
            assert len(kept) < 5000
        wait_until(lambda: not cluster.namenode.running(), "it ends")
        line = cluster.namenode.log.read_text().splitlines()[-1]
        assert line.startswith("server.py: ")
        assert "start the namenode again" in line
        disk.heal()
        disk.cut_power()
        cluster.namenode.start()
        cluster.wait_alive()
        assert [path for path, data in kept.items() if read_file(cluster.url, path).body != data] == []
        assert put() == 201
