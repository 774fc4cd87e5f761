"""What a namenode counts, for `/metrics`. A registry per node: several may run in one process (tests)."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from dfslib.wire.messages import ClusterBody, DfBody


class Metrics:
    def __init__(self, cluster: Callable[[], ClusterBody], df: Callable[[], DfBody]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_ClusterCollector(cluster, df))
        requests = Counter("dfs_namenode_requests", "Requests answered", ["method", "status"], registry=self._registry)
        self._labelled = requests.labels
        self._counters: dict[tuple[str, int], Counter] = {}

    def count(self, method: str, status: int) -> None:
        counter = self._counters.get((method, status))
        if counter is None:
            counter = self._counters[method, status] = self._labelled(method, str(status))
        counter.inc()

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _ClusterCollector(Collector):
    """The cluster's state at the time of the scrape."""

    def __init__(self, cluster: Callable[[], ClusterBody], df: Callable[[], DfBody]) -> None:
        self._cluster = cluster
        self._df = df

    def describe(self) -> list[GaugeMetricFamily]:
        return []

    def collect(self) -> list[GaugeMetricFamily]:
        nodes = GaugeMetricFamily("dfs_datanodes", "Datanodes by state", labels=["state"])
        cluster = self._cluster()
        for state in ("alive", "suspect", "draining", "dead"):
            nodes.add_metric([state], sum(node.state == state for node in cluster.nodes))
        garbage = GaugeMetricFamily("dfs_garbage_blocks", "Blocks to be deleted", value=cluster.garbage_blocks)
        df = self._df()
        values = [
            GaugeMetricFamily(f"dfs_{name}", meaning, value=getattr(df, field))
            for name, meaning, field in (
                ("capacity_bytes", "Bytes of the live datanodes' volumes", "capacity"),
                ("used_bytes", "Bytes that blocks take", "used"),
                ("available_bytes", "Bytes that files can still take", "available"),
                ("files_bytes", "Bytes that files hold", "bytes"),
                ("files", "Files, links and other inodes that are no directories", "files"),
                ("directories", "Directories", "directories"),
            )
        ]
        return [nodes, garbage, *values]
