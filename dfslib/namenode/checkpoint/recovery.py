"""A restore as a whole: copies of the datanodes are fetched and applied to an emptied store, and others where one of
them turns out to be wrong. Ended at any moment, it leaves a store that is marked, and begins anew."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dfslib.namenode.checkpoint.fetching import Copy, Fetched, fetch
from dfslib.namenode.checkpoint.format import FileName
from dfslib.namenode.checkpoint.opening import Joiner
from dfslib.namenode.checkpoint.restoring import NotAsWritten, apply, clear, mark
from dfslib.namenode.metadata.engine import MetadataEngine
from dfslib.runtime.logs import event
from dfslib.transfer.peer_session import PeerSession
from dfslib.wire.positions import parse_position

log = logging.getLogger("dfs.checkpoint")


async def recover(
    engine: MetadataEngine,
    session: PeerSession,
    sources: Sequence[Joiner],
    members: Sequence[Joiner],
    folder: Path,
    aside: Callable[[Path], Mapping[FileName, Path]],
    progress: Callable[[str], None],
) -> Fetched:
    """Fill the store with the best of what `sources` have, in an epoch later than all that `members`, datanodes of the
    same cluster, or any file tell of. `folder` is this function's own, for the files. `aside` tells which ones lie
    here, of a store that was set aside, and may make some in a folder that it is given.

    Raises what `fetch` and `apply` raise, but for NotAsWritten.
    """
    without: set[Copy] = set()
    suspicious = False
    while True:
        await asyncio.to_thread(_emptied, folder)  # of a restore that was broken off, too
        progress("looking for the newest copy")
        here = await asyncio.to_thread(aside, folder)
        fetched = await fetch(session, sources, folder, here, without)
        epoch = 1 + max(fetched.epoch, *(joiner.epoch for joiner in members), *map(_epoch_brought, members))
        level = max(joiner.level for joiner in members)
        await mark(engine, sources[0].cluster_id)
        await clear(engine)
        try:
            await apply(
                engine, fetched, epoch, level, lambda done: progress(f"{done} keys written"), one_by_one=suspicious
            )
        except NotAsWritten as error:
            log.critical(event("copies do not lead to what they should", where=error, action="trying others"))
            if error.copy is not None:
                without.add(error.copy)
            suspicious = True
            continue
        await asyncio.to_thread(shutil.rmtree, folder)
        _tell_of_what_is_missing(fetched, members)
        return fetched


def _emptied(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()


def _epoch_brought(joiner: Joiner) -> int:
    return parse_position(joiner.position).epoch if joiner.position else 0


def _tell_of_what_is_missing(fetched: Fetched, members: Sequence[Joiner]) -> None:
    """Where a datanode was brought more than any copy leads to, since copies are damaged or gone."""
    position = fetched.headers[-1].position
    told = [parse_position(joiner.position) for joiner in members if joiner.position]
    if position is not None and told and (latest := max(told)) > position:
        log.critical(
            event(
                "copies of the latest changes are damaged or gone",
                restored=position.number,
                brought=latest.number,
                epoch=latest.epoch,
            )
        )
