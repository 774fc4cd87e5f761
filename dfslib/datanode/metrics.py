"""What a datanode counts, for `/metrics`. A registry per node: several may run in one process (tests)."""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from dfslib.datanode.store.block_store import BlockStore, Finding


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.received_blocks = self._counter("received_blocks", "Blocks stored durably")
        self.received_bytes = self._counter("received_bytes", "Bytes of blocks stored durably")
        self.sent_bytes = self._counter("sent_bytes", "Bytes of blocks and files sent")
        self.peer_reads = self._counter("peer_reads", "Ranges fetched from another datanode, missing or bad here")
        self.findings = {
            Finding.BAD: self._counter("bad_blocks", "Blocks moved to the quarantine"),
            Finding.MISSING: self._counter("missing_blocks", "Blocks whose files have vanished"),
            Finding.UNEXPECTED: self._counter("unexpected_blocks", "Files of blocks that were not written here"),
            Finding.UNSYNCED: self._counter("unsynced_blocks", "Blocks lost because the disk failed to sync"),
        }
        self.bad_metadata = self._counter("bad_metadata_files", "Copies of metadata moved to the quarantine")
        self.scrubbed_blocks = self._counter("scrubbed_blocks", "Blocks checked by the scrubber")
        self.scrubbed_bytes = self._counter("scrubbed_bytes", "Bytes checked by the scrubber")
        self.scrub_bad = self._counter("scrub_bad", "Blocks and copies of metadata that the scrubber found bad")
        self.scrub_finished = Gauge(
            "dfs_datanode_scrub_finished_timestamp_seconds",
            "When the scrubber last finished a whole pass; 0 before the first",
            registry=self.registry,
        )
        self.aborted_answers = self._counter("aborted_answers", "Answers cut off because no good copy was left")
        self.registered = Gauge(
            "dfs_datanode_registered", "1 while the namenode knows this datanode", registry=self.registry
        )

    def watch(self, store: BlockStore) -> None:
        """Show the store's usage, asked for at each scrape."""
        for name, meaning in (
            ("capacity", "Bytes of the volume"),
            ("used", "Bytes in files of blocks"),
            ("free", "Bytes left for blocks"),
            ("blocks", "Blocks stored"),
        ):
            unit = "" if name == "blocks" else "_bytes"
            gauge = Gauge(f"dfs_datanode_{name}{unit}", meaning, registry=self.registry)
            gauge.set_function(partial(_field, store, name))

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def _counter(self, name: str, meaning: str) -> Counter:
        return Counter(f"dfs_datanode_{name}", meaning, registry=self.registry)


def _field(store: BlockStore, name: str) -> float:
    return float(getattr(store.usage(), name))
