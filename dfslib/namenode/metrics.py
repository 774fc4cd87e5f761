"""What a namenode counts, for `/metrics`. A registry per node: several may run in one process (tests)."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from dfslib.namenode.checkpoint.shipper import Shipper
from dfslib.wire.messages import ClusterBody, DfBody, MetadataBody


class Metrics:
    def __init__(
        self,
        cluster: Callable[[], ClusterBody],
        df: Callable[[], DfBody],
        metadata: Callable[[], MetadataBody],
        shipper: Shipper,
    ) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_ClusterCollector(cluster, df))
        self._registry.register(_CopiesCollector(metadata, shipper))
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


class _CopiesCollector(Collector):
    """The metadata's copies on the datanodes. Their age is the scraper's time less the timestamp."""

    def __init__(self, metadata: Callable[[], MetadataBody], shipper: Shipper) -> None:
        self._metadata = metadata
        self._shipper = shipper

    def describe(self) -> list[GaugeMetricFamily]:
        return []

    def collect(self) -> list[GaugeMetricFamily | CounterMetricFamily]:
        metadata, shipper = self._metadata(), self._shipper
        gauges = (
            ("copied_timestamp_seconds", "All changes up to then are on a datanode", metadata.copied_until or 0),
            ("copies", "Datanodes that have all of the metadata", shipper.complete()),
            ("copy_bytes", "Bytes of one copy, compressed", shipper.shipped_bytes()),
            ("checked_timestamp_seconds", "All of the metadata was last found to be right then", metadata.checked or 0),
            ("checking", "1 while all of the metadata is checked", int(metadata.checking)),
            ("damaged", "1 where metadata was damaged, and was set aside", int(bool(metadata.damage))),
            ("held", "1 after a restore, while nothing is deleted from the datanodes", int(metadata.held)),
        )
        return [
            *(GaugeMetricFamily(f"dfs_metadata_{name}", meaning, value=value) for name, meaning, value in gauges),
            CounterMetricFamily(
                "dfs_metadata_copy_failures", "Times a datanode could not be brought a copy", value=shipper.failures
            ),
        ]
