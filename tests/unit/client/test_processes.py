"""An HttpNameNode in other processes: pickled, spawned and forked."""

from __future__ import annotations

import multiprocessing
import os
import pickle

from dfslib.client.datanode import HttpDataNode
from dfslib.client.namenode import HttpNameNode
from tests.unit.client.fake_cluster import FakeCluster


def test_a_pickled_client_is_one_of_the_same_cluster(cluster: FakeCluster) -> None:
    cluster.put("/f", b"content")
    with HttpNameNode(cluster.namenode.url, 7.0) as dfs:
        assert dfs.exists("/f")
        with pickle.loads(pickle.dumps(dfs)) as copy:
            assert (copy.url, copy.cat("/f")) == (dfs.url, b"content")
    with HttpDataNode("http://127.0.0.1:1/") as node, pickle.loads(pickle.dumps(node)) as twin:
        assert twin.url == node.url


def test_a_spawned_pool_calls_its_methods(cluster: FakeCluster) -> None:
    cluster.put("/f", b"content")
    with HttpNameNode(cluster.namenode.url) as dfs:
        assert dfs.exists("/f")
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.map_async(dfs.cat, ["/f", "/f"]).get(60) == [b"content"] * 2


def test_a_forked_process_uses_no_connection_of_its_parent(cluster: FakeCluster) -> None:
    with HttpNameNode(cluster.namenode.url) as dfs:
        assert dfs.exists("/")
        kept = dfs._operations.transport._session
        child = os.fork()
        if not child:
            try:
                right = dfs.exists("/") and dfs._operations.transport._session is not kept
                os._exit(0 if right else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert dfs._operations.transport._session is kept
        assert dfs.exists("/")
