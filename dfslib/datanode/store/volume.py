"""A datanode's volume: the folder `DFS_FS_ROOT`, whose identity lies in it and moves with it.

    identity.json   {node_id, cluster_id, format, epoch}
    incarnation.json  which of the volume's processes this is (incarnation.py)
    scrub.json      how far the scrubber has come
    lock            held (flock) while a process uses the volume
    blocks/XX/ID    whole blocks                         tmp/    files being written
    metadata/NAME   copies of the namenode's metadata
    position-*      how far the newest of them went (position.py)
    quarantine/     bad files, for a person to look at

Knows nothing of what the files hold; `block_store` and `metadata_files` do.
"""

from __future__ import annotations

import fcntl
import logging
import os
import uuid
from pathlib import Path
from typing import Final

import msgspec

from dfslib.datanode.store import incarnation
from dfslib.datanode.store.incarnation import Incarnation
from dfslib.errors import ForeignVolume, InputOutput, Unavailable
from dfslib.model import NodeId
from dfslib.runtime.durable_files import replace_file, sync_directory
from dfslib.runtime.logs import event
from dfslib.wire.features import NEWEST_LEVEL, OLDEST_LEVEL

log = logging.getLogger("dfs.volume")

_IDENTITY: Final = "identity.json"
_IDENTITY_NEW: Final = "identity.json.new"
_LOCK: Final = "lock"
_OF_NOBODY: Final = frozenset({"lost+found", _LOCK, _IDENTITY_NEW})
"""Names that may stand in a folder without making it someone's: mkfs's own, and what a first start that
was interrupted leaves behind."""


class Identity(msgspec.Struct, frozen=True):
    """`cluster_id` is empty until the first join. `epoch`: how often the cluster's metadata had been restored
    when this datanode last joined. `format`: the level of the cluster as this datanode last met it, so that a build
    that does not know it keeps away from the volume."""

    node_id: str
    cluster_id: str
    format: int
    epoch: int = 0


class Volume:
    """An opened and locked volume. Not shared between processes; `close` gives it back."""

    def __init__(self, root: Path, lock_fd: int, identity: Identity) -> None:
        self.root = root
        self._lock_fd = lock_fd
        self._identity = identity
        self._incarnation: Incarnation | None = None

    @classmethod
    def open(cls, root: Path) -> Volume:
        """Lock the volume, and make it one where `root` is missing or empty.

        Raises ForeignVolume where another process uses it, or where a folder holds other things; OSError
        where the folder cannot be made or read.
        """
        if not root.is_dir():
            root.mkdir(parents=True)
            # The new name must outlive a power cut as well as what is stored below it.
            sync_directory(root.parent)
        strangers = {entry.name for entry in root.iterdir()} - _OF_NOBODY
        if strangers and _IDENTITY not in strangers:
            raise ForeignVolume(
                f"the folder holds other things ({min(strangers)!r}, ...) and no {_IDENTITY}; "
                "give the datanode an empty one",
                str(root),
            )
        lock_fd = os.open(root / _LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ForeignVolume("the volume is in use by another process", str(root)) from None
            identity = _read_identity(root)
            if identity is None:
                identity = Identity(uuid.uuid4().hex, "", OLDEST_LEVEL)
                _write_identity(root, identity)
                log.info(event("new volume", root=root, node=identity.node_id))
            for name in ("blocks", "tmp", "metadata", "quarantine"):
                (root / name).mkdir(exist_ok=True)
            sync_directory(root)
        except BaseException:
            os.close(lock_fd)
            raise
        return cls(root, lock_fd, identity)

    @property
    def node_id(self) -> NodeId:
        return NodeId(self._identity.node_id)

    @property
    def cluster_id(self) -> str:
        """The cluster joined once and for all, or "" before that."""
        return self._identity.cluster_id

    @property
    def epoch(self) -> int:
        """The highest epoch of the cluster that this volume was bound to."""
        return self._identity.epoch

    @property
    def level(self) -> int:
        """The highest level of the cluster that this volume was bound to."""
        return self._identity.format

    def incarnation(self) -> Incarnation:
        """This process's, from the first call on; not for several threads at once."""
        if self._incarnation is None:
            self._incarnation = incarnation.begin(self.root)
        return self._incarnation


    def bind(self, cluster_id: str, epoch: int, level: int) -> None:
        """Belong to this cluster from now on, in this epoch and at this level or later ones, durably.

        Raises ForeignVolume where it belongs to another cluster; Unavailable where it has seen a later epoch or level,
        since that namenode's metadata is out of date, and the right one may answer at the same address soon; and where
        the cluster's level is a later one than this build knows.
        """
        if self.cluster_id and self.cluster_id != cluster_id:
            raise ForeignVolume(
                f"the volume belongs to cluster {self.cluster_id}, and the namenode is of cluster {cluster_id}",
                str(self.root),
            )
        if epoch < self.epoch:
            raise Unavailable(
                f"the namenode is out of date: its metadata is of epoch {epoch}, the volume has seen epoch {self.epoch}"
            )
        if level < self.level:
            raise Unavailable(
                f"the namenode is out of date: its metadata is of level {level}, the volume has seen level {self.level}"
            )
        if level > NEWEST_LEVEL:
            raise Unavailable(
                f"the cluster has level {level}, and this datanode knows levels up to {NEWEST_LEVEL}: update it"
            )
        if (cluster_id, epoch, level) == (self.cluster_id, self.epoch, self.level):
            return
        identity = Identity(self._identity.node_id, cluster_id, level, epoch)
        _write_identity(self.root, identity)
        self._identity = identity

    def close(self) -> None:
        """Unlock. Does nothing the second time."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


def _read_identity(root: Path) -> Identity | None:
    try:
        identity = msgspec.json.decode((root / _IDENTITY).read_bytes(), type=Identity)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        # A new identity would make the blocks on this volume nobody's, so a person has to decide.
        raise InputOutput(f"the volume's identity cannot be read: {error}", str(root / _IDENTITY)) from None
    if identity.format > NEWEST_LEVEL:
        raise ForeignVolume(
            f"the volume's cluster has level {identity.format}, and this datanode knows levels up to {NEWEST_LEVEL}: "
            "start the version that was here last, or a later one",
            str(root),
        )
    if identity.format < OLDEST_LEVEL or not identity.node_id:
        raise ForeignVolume(f"the volume has format {identity.format}, which there is none of", str(root))
    return identity


def _write_identity(root: Path, identity: Identity) -> None:
    replace_file(root / _IDENTITY, msgspec.json.encode(identity) + b"\n")
