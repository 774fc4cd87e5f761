"""Typed reading and writing of the metadata's records. The layout of the keys is in keys.py."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from dfslib.errors import NotADirectory, NotFound
from dfslib.model import ROOT, Attr, BlockId, Entry, Extent, FileType, InodeId, NodeId
from dfslib.namenode.metadata.engine import DamagedMetadata, ReadTxn, Txn, prefix_end
from dfslib.namenode.namespace import keys
from dfslib.wire.features import OLDEST_LEVEL


class Dentry(msgspec.Struct, frozen=True, array_like=True):
    ino: InodeId
    type: FileType


class BlockRecord(msgspec.Struct, frozen=True, array_like=True):
    """`nodes`: the datanodes known to hold it durably. `deferred`: none is to, its bytes are here (deferred.py)."""

    size: int
    crc32c: int
    live: int
    nodes: tuple[NodeId, ...]
    deferred: bool = False


class ClusterRecord(msgspec.Struct, frozen=True, array_like=True):
    """`epoch` counts how often the metadata was restored. `level`: of everything that is stored (wire/features.py). A
    namenode refuses a store of a later one than it knows; those of the first level looked for a format in this place,
    and know 1."""

    cluster_id: str
    created_ns: int
    level: int = OLDEST_LEVEL
    epoch: int = 0


class RestoredRecord(msgspec.Struct, frozen=True, array_like=True):
    """The last restore: what was changed after `until_ns` is missing. `held_s`: for so many seconds of this
    namenode's running nothing is deleted from the datanodes; 0 once that is over."""

    until_ns: int
    held_s: float


class RestoringRecord(msgspec.Struct, frozen=True, array_like=True):
    """The store is not whole, and is to be filled from that cluster's copies. `set_aside`: what it has is out of
    date, and is to be kept as a file before it is cleared."""

    cluster_id: str
    set_aside: bool = False


class NodeRecord(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of a datanode while it is away. `dead`: it was, while this namenode was in touch with most of the
    others; until it joins again it counts for nothing."""

    node_id: NodeId
    url: str
    public_url: str
    capacity: int
    used: int
    blocks: int
    last_seen_ns: int
    drained: bool = False
    dead: bool = False


class AdmittedRecord(msgspec.Struct, frozen=True, array_like=True):
    """The process of a datanode that was admitted last: its incarnation, and its number among those of its volume.

    `refused`: incarnations of processes that had the same id, and did not descend from the one admitted then.
    """

    node_id: NodeId
    incarnation: str = ""
    starts: int = 0
    refused: list[str] = []


class Totals(msgspec.Struct, frozen=True, array_like=True):
    """`files` counts inodes that are no directories; `bytes` what they hold, holes left out."""

    files: int = 0
    directories: int = 1
    bytes: int = 0


encode = msgspec.msgpack.Encoder().encode
_decode_attr = msgspec.msgpack.Decoder(Attr).decode
_decode_dentry = msgspec.msgpack.Decoder(Dentry).decode
_decode_extents = msgspec.msgpack.Decoder(list[Extent]).decode
_decode_block = msgspec.msgpack.Decoder(BlockRecord).decode
_decode_totals = msgspec.msgpack.Decoder(Totals).decode
_decode_node = msgspec.msgpack.Decoder(NodeRecord).decode
_decode_admitted = msgspec.msgpack.Decoder(AdmittedRecord).decode
decode_cluster = msgspec.msgpack.Decoder(ClusterRecord).decode
_decode_restored = msgspec.msgpack.Decoder(RestoredRecord).decode
_decode_restoring = msgspec.msgpack.Decoder(RestoringRecord).decode
_decode_int = msgspec.msgpack.Decoder(int).decode


def find_attr(txn: ReadTxn, ino: InodeId) -> Attr | None:
    data = txn.get(keys.inode(ino))
    return None if data is None else _decode_attr(data)


def get_attr(txn: ReadTxn, ino: InodeId) -> Attr:
    """Raises NotFound where the inode is gone."""
    attr = find_attr(txn, ino)
    if attr is None:
        raise NotFound
    return attr


def named_attr(txn: ReadTxn, ino: InodeId) -> Attr:
    """Of an inode that an entry names. Raises DamagedMetadata where it is not there."""
    attr = find_attr(txn, ino)
    if attr is None:
        raise DamagedMetadata(f"an entry names inode {ino}, which is not there")
    return attr


def get_directory(txn: ReadTxn, ino: InodeId) -> Attr:
    """Raises NotFound, or NotADirectory."""
    attr = get_attr(txn, ino)
    if attr.type is not FileType.DIRECTORY:
        raise NotADirectory
    return attr


def put_attr(txn: Txn, attr: Attr) -> None:
    txn.put(keys.inode(attr.ino), encode(attr))


def delete_attr(txn: Txn, ino: InodeId) -> None:
    txn.delete(keys.inode(ino))


def scan_attrs(txn: ReadTxn) -> Iterator[Attr]:
    for _, value in txn.scan(keys.INODES, prefix_end(keys.INODES)):
        yield _decode_attr(value)


def get_dentry(txn: ReadTxn, parent: InodeId, name: bytes) -> Dentry | None:
    data = txn.get(keys.dentry(parent, name))
    return None if data is None else _decode_dentry(data)


def put_dentry(txn: Txn, parent: InodeId, name: bytes, ino: InodeId, kind: FileType) -> None:
    txn.put(keys.dentry(parent, name), encode(Dentry(ino, kind)))


def delete_dentry(txn: Txn, parent: InodeId, name: bytes) -> None:
    txn.delete(keys.dentry(parent, name))


def scan_dentries(txn: ReadTxn, parent: InodeId, after: bytes = b"") -> Iterator[tuple[bytes, Dentry]]:
    """A directory's names, sorted, and what they name; those behind `after`."""
    start = keys.dentry(parent, after) + (b"\0" if after else b"")
    for key, value in txn.scan(start, prefix_end(keys.dentries(parent))):
        yield keys.name_of(key), _decode_dentry(value)


def scan_all_dentries(txn: ReadTxn) -> Iterator[tuple[InodeId, bytes, Dentry]]:
    for key, value in txn.scan(keys.DENTRIES, prefix_end(keys.DENTRIES)):
        yield keys.parent_of(key), keys.name_of(key), _decode_dentry(value)


def scan_entries(txn: ReadTxn, parent: InodeId, after: bytes = b"") -> Iterator[Entry]:
    for name, dentry in scan_dentries(txn, parent, after):
        yield Entry(name, named_attr(txn, dentry.ino))


def is_empty(txn: ReadTxn, directory: InodeId) -> bool:
    return next(scan_dentries(txn, directory), None) is None


def get_chunk(txn: ReadTxn, ino: InodeId, index: int) -> list[Extent]:
    data = txn.get(keys.chunk(ino, index))
    return [] if data is None else _decode_extents(data)


def put_chunk(txn: Txn, ino: InodeId, index: int, extents: list[Extent]) -> None:
    if extents:
        txn.put(keys.chunk(ino, index), encode(extents))
    else:
        txn.delete(keys.chunk(ino, index))


def scan_chunks(txn: ReadTxn, ino: InodeId, first: int = 0) -> Iterator[tuple[int, list[Extent]]]:
    """A file's chunks that hold anything, from chunk `first` on."""
    for key, value in txn.scan(keys.chunk(ino, first), prefix_end(keys.chunks(ino))):
        yield keys.chunk_index(key), _decode_extents(value)


def find_block(txn: ReadTxn, block: BlockId) -> BlockRecord | None:
    data = txn.get(keys.block(block))
    return None if data is None else _decode_block(data)


def used_block(txn: ReadTxn, block: BlockId) -> BlockRecord:
    """Of a block that extents point at. Raises DamagedMetadata where it is not there."""
    record = find_block(txn, block)
    if record is None:
        raise DamagedMetadata(f"block {block:016x} is used, and is not there")
    return record


def put_block(txn: Txn, block: BlockId, record: BlockRecord) -> None:
    txn.put(keys.block(block), encode(record))


def delete_block(txn: Txn, block: BlockId) -> None:
    """Forget a block that nothing uses, its bytes where they are here, and the note that it is garbage."""
    if txn.get(keys.deferred(block)) is not None:
        txn.delete(keys.deferred(block))
    txn.delete(keys.block(block))
    txn.delete(keys.garbage(block))


def scan_blocks(txn: ReadTxn, after: int = -1, last: int = keys.MAX_ID) -> Iterator[tuple[BlockId, BlockRecord]]:
    """Blocks whose ids are in (after, last], in order."""
    if after >= last:
        return
    end = keys.block(BlockId(last)) + b"\0"
    for key, value in txn.scan(keys.block(BlockId(after + 1)), end):
        yield keys.block_of(key), _decode_block(value)


def scan_references(txn: ReadTxn, block: BlockId) -> Iterator[tuple[InodeId, int]]:
    """The (inode, chunk) pairs whose extents use a block."""
    prefix = keys.references(block)
    for key, _ in txn.scan(prefix, prefix_end(prefix)):
        yield keys.reference_target(key)


def get_totals(txn: ReadTxn) -> Totals:
    data = txn.get(keys.TOTALS)
    return Totals() if data is None else _decode_totals(data)


def add_totals(txn: Txn, *, files: int = 0, directories: int = 0, bytes: int = 0) -> None:
    totals = get_totals(txn)
    changed = Totals(totals.files + files, totals.directories + directories, totals.bytes + bytes)
    txn.put(keys.TOTALS, encode(changed))


def last_inode(txn: ReadTxn) -> InodeId:
    """The highest number that an inode was ever given."""
    data = txn.get(keys.LAST_INODE)
    return InodeId(_decode_int(data)) if data else ROOT


def next_inode(txn: Txn) -> InodeId:
    ino = InodeId(last_inode(txn) + 1)
    txn.put(keys.LAST_INODE, encode(ino))
    return ino


def get_cluster(txn: ReadTxn) -> ClusterRecord | None:
    data = txn.get(keys.CLUSTER)
    return None if data is None else decode_cluster(data)


def put_cluster(txn: Txn, record: ClusterRecord) -> None:
    txn.put(keys.CLUSTER, encode(record))


def get_level(txn: ReadTxn) -> int:
    """Of the cluster; the oldest where there is none yet."""
    record = get_cluster(txn)
    return OLDEST_LEVEL if record is None else record.level


def raise_level(txn: Txn, level: int) -> None:
    """Have the cluster at this level, unless it is at a later one. Does nothing where there is no cluster."""
    record = get_cluster(txn)
    if record is not None and record.level < level:
        put_cluster(txn, msgspec.structs.replace(record, level=level))


def get_restored(txn: ReadTxn) -> RestoredRecord | None:
    data = txn.get(keys.RESTORED)
    return None if data is None else _decode_restored(data)


def put_restored(txn: Txn, record: RestoredRecord) -> None:
    txn.put(keys.RESTORED, encode(record))


def get_restoring(txn: ReadTxn) -> RestoringRecord | None:
    data = txn.get(keys.RESTORING)
    return None if data is None else _decode_restoring(data)


def put_restoring(txn: Txn, record: RestoringRecord) -> None:
    txn.put(keys.RESTORING, encode(record))


def delete_restoring(txn: Txn) -> None:
    txn.delete(keys.RESTORING)


def put_node(txn: Txn, record: NodeRecord) -> None:
    txn.put(keys.node(record.node_id), encode(record))


def put_admitted(txn: Txn, record: AdmittedRecord) -> None:
    txn.put(keys.admitted(record.node_id), encode(record))


def delete_node(txn: Txn, node: NodeId) -> None:
    txn.delete(keys.node(node))
    txn.delete(keys.admitted(node))


def scan_nodes(txn: ReadTxn) -> Iterator[NodeRecord]:
    for _, value in txn.scan(keys.NODES, prefix_end(keys.NODES)):
        yield _decode_node(value)


def scan_admitted(txn: ReadTxn) -> Iterator[AdmittedRecord]:
    for _, value in txn.scan(keys.ADMITTED, prefix_end(keys.ADMITTED)):
        yield _decode_admitted(value)


def put_state(txn: Txn, key: bytes, value: int = 0) -> None:
    """Note a block or an inode under one of the `s` prefixes."""
    txn.put(key, encode(value))


def scan_state(txn: ReadTxn, prefix: bytes) -> Iterator[tuple[int, int]]:
    """The ids under one of the `s` prefixes, with their values."""
    for key, value in txn.scan(prefix, prefix_end(prefix)):
        yield keys.state_id(key), _decode_int(value)
