"""What the handlers of one running datanode share. Made and ended by `node`; no behaviour."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from aiohttp import web

from dfslib.datanode.commit_queue import CommitQueue
from dfslib.datanode.layouts import Layouts
from dfslib.datanode.metrics import Metrics
from dfslib.datanode.namenode_client import NamenodeClient
from dfslib.datanode.store.block_store import BlockStore
from dfslib.datanode.store.metadata_files import MetadataFiles
from dfslib.datanode.store.volume_sync import VolumeSync
from dfslib.model import NodeId

_STAYS_MAX: Final = 8
"""Half of the pool's threads, so that the others' work never waits for these."""


@dataclass(frozen=True)
class Services:
    node_id: NodeId
    store: BlockStore
    sync: VolumeSync
    metadata: MetadataFiles
    commits: CommitQueue
    pool: ThreadPoolExecutor
    """For whatever waits for the disk."""
    peers: aiohttp.ClientSession
    namenode: NamenodeClient
    layouts: Layouts
    metrics: Metrics
    body_timeout_s: float
    is_member: Callable[[], bool]
    """Whether the cluster has this process for the datanode of that id."""
    stays: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(_STAYS_MAX))
    """Taken by threads of the pool that stay with a connection."""


SERVICES: Final = web.AppKey("services", Services)
