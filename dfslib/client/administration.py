"""The requests about the cluster rather than its files, one method each: its state, and what operators tell it.

Every method raises OSError, with the namenode's own words where they say more than the errno, and ConnectionError
where the namenode does not answer in time.
"""

from __future__ import annotations

import errno

from dfslib.client.operations import query
from dfslib.client.results import (
    ClusterStatus,
    DiskUsage,
    Health,
    UpgradeStatus,
    health_of_body,
    status_of_body,
    upgrade_of_body,
    usage_of_body,
)
from dfslib.client.transport import LONG_ANSWER_S, NoAnswer, Repeat, Request, Transport
from dfslib.errors import DfsError
from dfslib.wire import messages, routes


class Administration:
    """The namenode behind `transport`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def alive(self) -> bool:
        """Whether the namenode is able to serve, asked once."""
        try:
            return self._transport.attempt(Request("GET", routes.HEALTHZ)).status == 200
        except (DfsError, NoAnswer):
            return False

    def status(self) -> ClusterStatus:
        return self._cluster(Request("GET", routes.CLUSTER))

    def usage(self) -> DiskUsage:
        answer = self._transport.send(Request("GET", routes.CLUSTER_DF))
        return usage_of_body(self._transport.decode(answer, messages.DfBody))

    def check(self) -> Health:
        """Verify the metadata's invariants and count the copies of every block. Takes time with size."""
        answer = self._transport.send(Request("GET", routes.CLUSTER_FSCK, answer_timeout_s=LONG_ANSWER_S))
        return health_of_body(self._transport.decode(answer, messages.FsckBody))

    def drain(self, node: str, *, cancel: bool = False) -> ClusterStatus:
        """Have a datanode's blocks copied elsewhere, or take that back."""
        target = f"{routes.CLUSTER_DRAIN}?{query(node=node, cancel=cancel)}"
        return self._cluster(Request("POST", target, filename=node, own_words=True))

    def forget(self, node: str) -> None:
        """Strike a datanode that is gone for good. Sent again after a lost answer, and done where it is not known."""
        target = f"{routes.CLUSTER_FORGET}?{query(node=node)}"
        done = frozenset({"ENOENT"})
        self._transport.send(Request("POST", target, filename=node, own_words=True, done_codes=done))

    def release(self) -> ClusterStatus:
        """End the time after a restore in which nothing is deleted."""
        return self._cluster(Request("POST", routes.CLUSTER_RELEASE, own_words=True))

    def restore(self, source: str | None = None) -> ClusterStatus:
        """Have an empty namenode take over the metadata that datanodes keep. Not repeated where it may have begun."""
        text = query(**{"from": source})
        target = f"{routes.CLUSTER_RESTORE}?{text}" if text else routes.CLUSTER_RESTORE
        request = Request(
            "POST", target, repeat=Repeat.UNCHANGED, own_words=True, answer_timeout_s=LONG_ANSWER_S, filename=source
        )
        return self._cluster(request)

    def open_metadata(self, *, force: bool = False) -> ClusterStatus:
        """Serve the metadata that is here. Said again, it does nothing."""
        target = f"{routes.CLUSTER_OPEN}?force=true" if force else routes.CLUSTER_OPEN
        return self._cluster(Request("POST", target, own_words=True))

    def upgrade_status(self) -> UpgradeStatus:
        """Raises OSError(EOPNOTSUPP) where the namenode is of a version without levels; so does `finalize_upgrade`."""
        return self._upgrade(Request("GET", routes.CLUSTER_UPGRADE))

    def finalize_upgrade(self) -> UpgradeStatus:
        """Raise the cluster's level to the newest one that its namenode knows; said again, it does nothing."""
        return self._upgrade(Request("POST", routes.CLUSTER_UPGRADE, own_words=True))

    def _upgrade(self, request: Request) -> UpgradeStatus:
        try:
            answer = self._transport.send(request)
        except FileNotFoundError as error:  # by the address itself: nothing is named in it that could be missing
            text = f"the namenode at {self._transport.url} is of a version without levels: update it first"
            raise OSError(errno.EOPNOTSUPP, text) from error
        return upgrade_of_body(self._transport.decode(answer, messages.UpgradeBody))

    def _cluster(self, request: Request) -> ClusterStatus:
        return status_of_body(self._transport.decode(self._transport.send(request), messages.ClusterBody))
