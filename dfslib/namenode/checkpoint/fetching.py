"""What copies the datanodes have, and the newest one that can be used, downloaded and checked to the last byte."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dfslib.errors import DfsError, Unavailable
from dfslib.model import NodeId
from dfslib.namenode.checkpoint import format as files
from dfslib.namenode.checkpoint.chains import Chain, best_chain
from dfslib.namenode.checkpoint.format import Damaged, FileName, Header, TooLate
from dfslib.namenode.checkpoint.opening import Joiner
from dfslib.namenode.upgrade.level import too_late
from dfslib.runtime.logs import event
from dfslib.transfer.metadata_files import get_file, get_head, list_files
from dfslib.transfer.peer_session import PeerSession

log = logging.getLogger("dfs.checkpoint")



class Fetched(NamedTuple):
    """A chain of files, all of them read and found to be right. `epoch`: the latest of all files that were seen."""

    chain: Chain
    headers: list[Header]
    paths: list[Path]
    epoch: int


async def survey(session: PeerSession, sources: Sequence[Joiner]) -> frozenset[NodeId]:
    """The datanodes that the newest copy which these have names: those that may have a newer one. None are
    named where there is no copy, or its beginning cannot be read."""
    where = await _find(session, sources)
    chain = best_chain(where)
    if chain is None:
        return frozenset()
    name = chain.files[-1]
    for url in where[name]:
        try:
            header = files.read_header(io.BytesIO(await get_head(session, url, str(name), files.HEADER_BYTES)))
        except (DfsError, Damaged) as error:
            log.warning(event("copy cannot be read", name=name, url=url, reason=error))
            continue
        return frozenset(NodeId(node) for node in header.nodes)
    return frozenset()


async def fetch(session: PeerSession, sources: Sequence[Joiner], folder: Path) -> Fetched:
    """Download the chain that leads furthest, over the files of all sources.

    Raises Unavailable where none is complete and right (what was wrong with which file is logged), or one is of a level
    that this build does not know: an older one must not take its place. OSError where `folder` cannot take it.
    """
    where = await _find(session, sources)
    latest = max((name.epoch for name in where), default=0)
    headers: dict[FileName, Header] = {}
    while (chain := best_chain(where)) is not None:
        missing = [name for name in chain.files if name not in headers]
        for name in missing:
            header = await _fetch_one(session, where, name, sources[0].cluster_id, folder / str(name))
            if header is None:
                del where[name]
                break
            headers[name] = header
        else:
            names = chain.files
            return Fetched(chain, [headers[name] for name in names], [folder / str(name) for name in names], latest)
    asked = ", ".join(sorted(source.url for source in sources))
    raise Unavailable(f"no complete copy of the metadata that can be used is on {asked}; the log says why")


async def _find(session: PeerSession, sources: Iterable[Joiner]) -> dict[FileName, list[str]]:
    where: dict[FileName, list[str]] = {}
    for source in sources:
        try:
            listed = await list_files(session, source.url)
        except DfsError as error:
            log.warning(event("datanode does not list its copies", url=source.url, reason=error))
            continue
        for file in listed:
            if (name := files.parse_name(file.name)) is not None:
                where.setdefault(name, []).append(source.url)
    return where


async def _fetch_one(
    session: PeerSession, where: Mapping[FileName, Sequence[str]], name: FileName, cluster_id: str, path: Path
) -> Header | None:
    for url in where[name]:
        try:
            await get_file(session, url, str(name), path)
            return await asyncio.to_thread(_check, path, name, cluster_id)
        except TooLate as error:
            raise Unavailable(too_late(f"{name} at {url}, the newest copy of the metadata,", error.level)) from error
        except (DfsError, Damaged) as error:
            log.warning(event("copy cannot be used", name=name, url=url, reason=error, action="trying another"))
    return None


def _check(path: Path, name: FileName, cluster_id: str) -> Header:
    with path.open("rb") as file:
        return files.check(file, name, cluster_id)
