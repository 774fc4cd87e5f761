"""What copies the datanodes have, and the newest one that can be used, downloaded and checked to the last byte.

Files that lie here, of a store that was set aside, are taken as well where they go on from what the datanodes have.
"""

from __future__ import annotations

import asyncio
import io
import logging
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from dfslib.errors import DfsError, InputOutput, InvalidArgument, NotFound, Unavailable
from dfslib.model import NodeId
from dfslib.namenode.checkpoint import format as files
from dfslib.namenode.checkpoint.branches import Branch, branches, described, is_past, joins, parted
from dfslib.namenode.checkpoint.chains import Chain, best_chain
from dfslib.namenode.checkpoint.format import Damaged, FileName, Header, TooLate
from dfslib.namenode.checkpoint.opening import Joiner
from dfslib.namenode.upgrade.level import too_late
from dfslib.runtime.logs import event
from dfslib.transfer.metadata_files import get_file, get_head, list_files
from dfslib.transfer.peer_session import PeerSession

log = logging.getLogger("dfs.checkpoint")

Copy = tuple[FileName, str]
"""A file, and the URL of the datanode that has it, or of the file itself where it lies here."""
_HERE: Final = "file:"
_TRIES: Final = 3
"""Copies of a datanode that are looked at, the newest ones, until one can be read."""


class Fetched(NamedTuple):
    """A chain of files, all of them read and found to be right, and to go on from one another; `copies` tells where
    each is from. `epoch`: the latest of all files that were seen."""

    chain: Chain
    headers: list[Header]
    paths: list[Path]
    epoch: int
    copies: list[Copy]


async def survey(session: PeerSession, sources: Sequence[Joiner]) -> list[Branch]:
    """To what the copies that these have lead, none where there is no copy whose beginning can be read."""
    return await _branches(session, sources, await _list(session, sources))


async def newest_header(session: PeerSession, url: str, names: Iterable[FileName]) -> Header | None:
    """Of the newest one of a datanode's copies whose beginning can be read. Raises Unavailable."""
    newest = sorted(names, key=lambda name: (name.epoch, name.last, name.first), reverse=True)
    for name in newest[:_TRIES]:
        try:
            return files.read_header(io.BytesIO(await get_head(session, url, str(name), files.HEADER_BYTES)))
        except (NotFound, InputOutput, Damaged) as error:
            log.warning(event("copy cannot be read", name=name, url=url, reason=error))
    return None


async def fetch(
    session: PeerSession,
    sources: Sequence[Joiner],
    folder: Path,
    here: Mapping[FileName, Path],
    without: Collection[Copy] = (),
) -> Fetched:
    """Bring the chain that leads furthest to `folder`, over the files of all sources, and those that are `here` and may
    lie in `folder` already, but for those that turned out to be wrong.

    Raises InvalidArgument where the sources' copies have parted; Unavailable where none is complete and right (what was
    wrong with which file is logged), or one is of a level that this build does not know: an older one must not take its
    place. OSError where `folder` cannot take it.
    """
    listed = await _list(session, sources)
    found = await _branches(session, sources, listed)
    if len(found) > 1:
        raise InvalidArgument(f"{parted(found)}: name one of these datanodes with 'from'")
    tip = found[0].newest if found else None
    ours = await asyncio.to_thread(_going_on, here, sources[0].cluster_id, tip)
    if ours:
        tip = max([*ours.values(), *([tip] if tip else [])], key=lambda header: (header.epoch, header.last))
    where: dict[FileName, list[str]] = {name: [here[name].as_uri()] for name in ours}
    for source in sources:
        for name in listed[source]:
            where.setdefault(name, []).append(source.url)
    where = {name: [url for url in urls if (name, url) not in without] for name, urls in where.items()}
    latest = max((name.epoch for name in where), default=0)
    had: dict[FileName, tuple[Header, str]] = {}
    while (chain := best_chain(name for name, urls in where.items() if urls)) is not None:
        for name in chain.files:
            if name not in had:
                header = await _fetch_one(session, where[name], name, sources[0].cluster_id, folder / str(name), tip)
                if header is None:
                    break
                had[name] = header, where[name][0]
        else:
            names = chain.files
            headers = [had[name][0] for name in names]
            if (wrong := _not_joined(headers)) is None:
                paths = [folder / str(name) for name in names]
                return Fetched(chain, headers, paths, latest, [(name, had[name][1]) for name in names])
            name = names[wrong]
            log.warning(event("copy does not go on from the one before", name=name, url=where[name].pop(0)))
            del had[name]
    asked = ", ".join(sorted(source.url for source in sources))
    raise Unavailable(f"no complete copy of the metadata that can be used is on {asked}; the log says why")


def _not_joined(headers: Sequence[Header]) -> int | None:
    return next((at for at in range(1, len(headers)) if not joins(headers[at - 1], headers[at])), None)


async def _list(session: PeerSession, sources: Iterable[Joiner]) -> dict[Joiner, list[FileName]]:
    listed: dict[Joiner, list[FileName]] = {}
    for source in sources:
        listed[source] = []
        try:
            found = await list_files(session, source.url)
        except DfsError as error:
            log.warning(event("datanode does not list its copies", url=source.url, reason=error))
            continue
        listed[source] = [name for file in found if (name := files.parse_name(file.name)) is not None]
    return listed


async def _branches(
    session: PeerSession, sources: Sequence[Joiner], listed: Mapping[Joiner, Sequence[FileName]]
) -> list[Branch]:
    newest: dict[NodeId, Header] = {}
    for source in sources:
        try:
            header = await newest_header(session, source.url, listed[source])
        except Unavailable as error:
            log.warning(event("copies cannot be looked at", url=source.url, reason=error))
            continue
        if header is not None:
            newest[source.node] = header
    return branches(newest)


async def _fetch_one(
    session: PeerSession, urls: list[str], name: FileName, cluster_id: str, path: Path, tip: Header | None
) -> Header | None:
    """From the first of `urls` whose file can be used, which then is the first one; None where none is left."""
    while urls:
        try:
            await _bring(session, urls[0], name, path)
            header = await asyncio.to_thread(_check, path, name, cluster_id)
            if tip is None or is_past(header, tip):
                return header
            reason: Exception | str = f"it leads to {described(header)}, and the newest copy does not go on from there"
        except TooLate as error:
            text = too_late(f"{name} at {urls[0]}, the newest copy of the metadata,", error.level)
            raise Unavailable(text) from error
        except (DfsError, Damaged) as error:
            reason = error
        log.warning(event("copy cannot be used", name=name, url=urls.pop(0), reason=reason, action="trying another"))
    return None


async def _bring(session: PeerSession, url: str, name: FileName, path: Path) -> None:
    if not url.startswith(_HERE):
        await get_file(session, url, str(name), path)
    elif url != path.as_uri():
        await asyncio.to_thread(shutil.copyfile, unquote(urlsplit(url).path), path)


def _going_on(here: Mapping[FileName, Path], cluster_id: str, tip: Header | None) -> dict[FileName, Header]:
    """Those of the files that lie here that belong together, and to what the datanodes have: `tip` is in their past, or
    they are in its. They are whole or damaged; that shows later."""
    headers: dict[FileName, Header] = {}
    for name, path in here.items():
        try:
            with path.open("rb") as file:
                header = files.read_header(file)
        except Damaged as error:
            log.warning(event("copy cannot be read", name=name, path=path, reason=error))
            continue
        if header.cluster_id == cluster_id:
            headers[name] = header
    if not headers:
        return {}
    newest = max(headers.values(), key=lambda header: (header.epoch, header.last))
    if tip is not None and is_past(newest, tip):
        newest = tip
    elif tip is not None and not is_past(tip, newest):
        log.critical(
            event(
                "what was set aside here has parted from the copies",
                here=described(newest),
                copies=described(tip),
                action="the copies are restored",
            )
        )
        return {}
    return {name: header for name, header in headers.items() if is_past(header, newest)}


def _check(path: Path, name: FileName, cluster_id: str) -> Header:
    with path.open("rb") as file:
        return files.check(file, name, cluster_id)
