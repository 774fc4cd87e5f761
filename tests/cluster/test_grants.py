"""Blocks of a mount: sent to one datanode with a grant, from there to all; and kept in memory until told to sync."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
import requests
from crc32c import crc32c

from dfslib.model import BlockId, NodeId
from dfslib.runtime.ids import BlockIds
from dfslib.wire import routes
from dfslib.wire.grants import encode_grant
from dfslib.wire.session import Grant, Target
from tests.cluster.real_cluster import Cluster, MakeCluster, wait_until
from tests.deadline import DEADLINE_S

SMALL = os.urandom(5000)
LARGE = os.urandom((9 << 20) + 17)
new_id = BlockIds()


def targets(cluster: Cluster) -> list[Target]:
    """The live datanodes, the one behind `datanode_urls[0]` first."""
    nodes = requests.get(f"{cluster.url}cluster", timeout=DEADLINE_S).json()["nodes"]
    alive = [Target(NodeId(node["id"]), node["url"]) for node in nodes if node["state"] == "alive"]
    return sorted(alive, key=lambda target: cluster.datanode_urls.index(target.url.rstrip("/")))


def alone(cluster: Cluster) -> list[Target]:
    """The datanodes, whose namenode is stopped: it granted none of these blocks, and a report that it asks for may come
    at any time, with which they are deleted."""
    found = targets(cluster)
    cluster.namenode.stop()
    return found


@pytest.fixture(scope="module")
def all_three(cluster: Cluster) -> list[Target]:
    return alone(cluster)


def put(
    url: str, block: BlockId, data: bytes | Iterator[bytes], grant: Grant | str, **headers: str
) -> requests.Response:
    text = grant if isinstance(grant, str) else encode_grant(grant)
    own = {routes.HEADER_GRANT: text, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return requests.put(url + routes.block(block), data=data, headers=own, timeout=DEADLINE_S)


def held(urls: list[str], block: BlockId, data: bytes) -> int:
    """On how many datanodes the block is, with these bytes."""
    answers = [requests.get(f"{url}{routes.block(block)}?local=true", timeout=DEADLINE_S) for url in urls]
    for answer in answers:
        assert answer.status_code == 404 or answer.content == data
        if answer.status_code == 404:
            print(f"{answer.url}: {answer.text}")  # why, for whoever expected it there
    return sum(answer.status_code == 200 for answer in answers)


@pytest.mark.parametrize("data", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
@pytest.mark.parametrize("sync", ["true", "false"])
def test_one_put_reaches_every_target(cluster: Cluster, all_three: list[Target], data: bytes, sync: str) -> None:
    block = new_id()
    answer = put(cluster.datanode_urls[0], block, data, Grant(block, all_three, 2), X_DFS_Sync=sync)
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert sorted(body["nodes"]) == sorted(target.node for target in all_three)
    assert (body["size"], body["crc32c"]) == (len(data), f"{crc32c(data):08x}")
    assert held(cluster.datanode_urls, block, data) == 3
    assert all(requests.post(url + routes.SYNC, timeout=DEADLINE_S).status_code == 204 for url in cluster.datanode_urls)


def test_a_datanode_relays_blocks_that_it_does_not_get_itself(cluster: Cluster, all_three: list[Target]) -> None:
    block, others = new_id(), all_three[1:]
    answer = put(cluster.datanode_urls[0], block, SMALL, Grant(block, others, 2))
    assert answer.status_code == 201, answer.text
    assert held(cluster.datanode_urls[:1], block, SMALL) == 0
    assert held(cluster.datanode_urls[1:], block, SMALL) == 2


def test_what_is_sent_twice_is_stored_once(cluster: Cluster, all_three: list[Target]) -> None:
    block = new_id()
    grant = Grant(block, all_three, 2)
    for sync in ("false", "true"):
        assert put(cluster.datanode_urls[1], block, SMALL, grant, X_DFS_Sync=sync).status_code == 201
    assert held(cluster.datanode_urls, block, SMALL) == 3


def test_bad_grants_change_nothing(cluster: Cluster, all_three: list[Target]) -> None:
    block, url = new_id(), cluster.datanode_urls[0]
    for grant in (
        "nonsense",
        "",
        Grant(block, [], 0),
        Grant(block, [all_three[0], all_three[0]], 1),
        Grant(new_id(), all_three, 2),
    ):
        answer = put(url, block, SMALL, grant)
        assert (answer.status_code, answer.json()["error"]) == (400, "EINVAL"), answer.text
    answer = put(url, block, SMALL, Grant(block, all_three, 2), X_DFS_Sync="perhaps")
    assert (answer.status_code, answer.json()["error"]) == (400, "EINVAL")
    answer = put(url, block, SMALL, Grant(block, all_three, 2), X_DFS_CRC32C="00000000")
    assert (answer.status_code, answer.json()["error"]) == (400, "EBADMSG")
    assert held(cluster.datanode_urls[:1], block, SMALL) == 0


def test_a_datanode_that_dies_in_the_middle_is_left_out(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    block, all_three = new_id(), alone(cluster)
    half = threading.Event()

    def body() -> Iterator[bytes]:
        yield LARGE[: 5 << 20]
        half.wait(DEADLINE_S)
        yield LARGE[5 << 20 :]

    answers: list[requests.Response] = []
    sender = threading.Thread(
        target=lambda: answers.append(put(cluster.datanode_urls[0], block, body(), Grant(block, all_three, 2)))
    )
    sender.start()
    victim = cluster.datanodes[2]
    temporary = cluster.folder / "data3" / "tmp"
    wait_until(lambda: any(temporary.iterdir()), "the third datanode has begun")
    victim.kill()
    half.set()
    sender.join(DEADLINE_S)
    body_json = answers[0].json()
    assert answers[0].status_code == 201, answers[0].text
    assert sorted(body_json["nodes"]) == sorted(target.node for target in all_three[:2])
    assert body_json["failed"] == [all_three[2].node]
    assert held(cluster.datanode_urls[:2], block, LARGE) == 2
    too_few = put(cluster.datanode_urls[0], new_id(), SMALL, Grant(BlockId(1), all_three, 3))
    assert too_few.status_code == 400
    other = new_id()
    too_few = put(cluster.datanode_urls[0], other, SMALL, Grant(other, all_three, 3))
    assert (too_few.status_code, too_few.json()["error"]) == (503, "ENODATANODES")
