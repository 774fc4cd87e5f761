"""SIGTERM leaves no failed request: of a datanode not even for plain clients, of the namenode not for ours."""

from __future__ import annotations

import threading
from collections.abc import Callable

import requests

from http_client import HttpNameNode
from tests.cluster.real_cluster import MakeCluster, wait_until
from tests.deadline import DEADLINE_S


class Load:
    """Threads that call over and over until stopped; every failure is kept."""

    def __init__(self, *calls: Callable[[int], None]) -> None:
        self.done = [0] * len(calls)
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number, call), daemon=True) for number, call in enumerate(calls)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int, call: Callable[[int], None]) -> None:
        while not self._stop.is_set():
            try:
                call(self.done[number])
            except (OSError, AssertionError) as error:
                self.failures.append(repr(error))
            self.done[number] += 1

    def wait(self, count: int) -> None:
        """Until each thread has made so many calls more."""
        wanted = [done + count for done in self.done]
        wait_until(lambda: all(a >= b for a, b in zip(self.done, wanted, strict=True)), "the load goes on")

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)


def test_of_a_datanode(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    data = b"0123456789" * 10_000
    requests.put(f"{cluster.url}fs/file", data, timeout=DEADLINE_S)

    def read(_: int) -> None:
        answer = requests.get(f"{cluster.url}fs/file", timeout=DEADLINE_S)
        assert answer.status_code == 200, answer.text
        assert answer.content == data

    def write(number: int) -> None:
        answer = requests.put(f"{cluster.url}fs/w{number}", data, timeout=DEADLINE_S)
        assert answer.status_code in (200, 201), answer.text

    load = Load(read, read, write)
    try:
        load.wait(20)
        for server in cluster.datanodes:
            assert server.stop() == 0
            load.wait(20)
            server.start()
            cluster.wait_alive(3)
        load.wait(20)
    finally:
        load.stop()
    assert load.failures == []


def test_of_the_namenode(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    dfs = HttpNameNode(cluster.url, timeout_s=DEADLINE_S)
    dfs.tee("/file", b"content")
    dfs.tee("/log", b"")

    def read(_: int) -> None:
        assert dfs.cat("/file") == b"content"

    def append(number: int) -> None:
        dfs.append("/log", b"%d;" % number)

    load = Load(read, append)
    try:
        load.wait(20)
        for _ in range(2):
            assert cluster.namenode.stop() == 0
            cluster.namenode.start()
            load.wait(20)
    finally:
        load.stop()
    assert load.failures == []
    assert dfs.cat("/log") == b"".join(b"%d;" % number for number in range(load.done[1]))
    dfs.close()
