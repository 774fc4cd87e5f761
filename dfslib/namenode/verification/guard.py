"""What stands between the store and whoever opens it: the store is checked, and set aside where it is damaged.

    a small store                      is checked whole, then opened
    a large one                        what opening reads is looked at, then it is opened; the whole check runs beside
    the last end tells of damage       the whole check comes first, whatever the size, and nothing is served before
    a damaged store                    is moved to `damaged-*`: what is left is a known cluster's folder, empty

While a store is open it is checked again and again. What a process meets that serves it makes the next start check it
first.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from msgspec.structs import replace

from dfslib.namenode.checkpoint.format import Damaged, FileName, Header, parse_name, read_header
from dfslib.namenode.checkpoint.recent import FOLDER as RECENT
from dfslib.namenode.checkpoint.recent import as_journals, last_kept
from dfslib.namenode.metadata.lmdb_engine import DATA
from dfslib.namenode.metadata.lmdb_file import LOCKS
from dfslib.namenode.verification.checking import Checker, CheckFailed
from dfslib.namenode.verification.marker import Marker, SetAside, read_marker, write_marker
from dfslib.namenode.verification.set_aside import PREFIX, set_aside
from dfslib.namenode.verification.store_check import Verdict, check_store
from dfslib.runtime.durable_files import sync_directory
from dfslib.runtime.logs import event

log = logging.getLogger("dfs.store")

COPIES: Final = "copies"
"""The folder of the files that are shipped to datanodes, beside the store."""
SMALL_BYTES: Final = 32 << 20
"""Of a store that is checked whole before each opening: 60,000 files, a second."""
_STARTS_MAX: Final = 3
"""So often a store is opened without a whole check that has come to its end; a process that is ended by what it reads
may never get there."""
_REST_S: Final = 60.0
_REST_TIMES: Final = 100
"""Between two checks of an open store lies a minute, or so many times what one takes: a hundredth of a processor."""
_BEGUN_BYTES: Final = 64 << 10
"""Of a store that LMDB has begun: two pages, whatever their size."""
_SAVE_EVERY_NS: Final = 3600 * 10**9


class Remnant(NamedTuple):
    """What a folder is whose store is gone or was set aside: `cluster_id`'s (empty where that is not known), to be
    restored, and no new cluster's. `reason` is for people."""

    cluster_id: str
    reason: str


class Guard:
    def __init__(
        self,
        folder: Path,
        checker: Checker,
        crash: str,
        open_store: Callable[[], None],
        wall_ns: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        """`folder` is the metadata's. `crash` tells what has ended the last process, as `Crashes.told` does.
        `open_store` begins the store, where there is none."""
        self._folder = folder
        self._checker = checker
        self._open_store = open_store
        self._wall_ns = wall_ns
        self._monotonic = monotonic
        self._crash = crash
        self._marker = Marker()
        self._lock = threading.Lock()
        """Guards the marker and what is met: several threads read the store."""
        self._met = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._again = asyncio.Event()
        """Set where the open store is to be checked at once."""
        self._damaged = asyncio.Event()
        self._is_open = asyncio.Event()
        self._saved_ns = 0
        self._faults: tuple[str, ...] = ()
        self.remnant: Remnant | None = None
        """Set where there is no store, and has been one."""
        self.is_checking = False
        """A whole check runs."""
        self.keys_read = 0
        """By the check that runs."""
        self.failure = ""
        """Why the last check found nothing out."""

    @property
    def detail(self) -> str:
        """For people: what keeps the store from being opened, or from being checked; empty where nothing does."""
        if self._marker.suspect and not self._met:
            return f"{self.keys_read} keys were read; the reason is this: {self._marker.suspect}"
        return f"the last check found nothing out: {self.failure}" if self.failure else ""

    @property
    def marker(self) -> Marker:
        """What is known of the store."""
        return self._marker

    async def admit(self) -> bool:
        """Look at the store, and open it, unless it has to be checked by `check_first` before; whether it is open.
        Raises OSError, CheckFailed."""
        marker = read_marker(self._folder)
        self._marker = self._guessed() if marker is None else marker
        size = self._size()
        if not self._marker.begun:
            self._clear_first_start(size)
        elif not size:
            self._set_aside(self._marker.suspect or f"{DATA} is {'missing' if size is None else 'empty'}")
        else:
            reason = self._marker.suspect or self._crash
            if not reason and self._marker.starts >= _STARTS_MAX:
                reason = f"it was opened {self._marker.starts} times, and no check of it has come to its end"
            self._save(suspect=reason)
            if not reason:
                await self._admit_ordinary(size)
        if self._marker.suspect:
            return False
        self._open_store()
        return True

    async def _admit_ordinary(self, size: int) -> None:
        if size <= SMALL_BYTES:
            self._judge(check_store(self._folder, at_rest=True))
            return
        verdict = await self._checker.check(whole=False, in_turn=False)
        if self._fault(verdict):
            self._judge(verdict)
        else:
            self._save(absolved="", starts=self._marker.starts + 1)

    async def check_first(self) -> None:
        """Check all of a store that is not open, and open it, or begin another one. Raises CheckFailed, OSError."""
        log.warning(event("the metadata is checked before it is served", reason=self._marker.suspect))
        self._judge(await self._check(at_rest=True, in_turn=False))
        self._open_store()

    def opened(self, cluster_id: str) -> None:
        """The store is open, and that cluster's; from now on something may be acknowledged. Raises OSError."""
        aside = self._marker.set_aside
        self._save(begun=True, cluster_id=cluster_id, set_aside=replace(aside, replaced=True) if aside else None)
        self.remnant = None
        self._is_open.set()

    def met(self, reason: str) -> None:
        """A process that serves the store has met damage in it: the next start checks it first. From any thread."""
        with self._lock:
            if self._met:
                return
            if self._marker.absolved:  # it was right when it was checked for that: no start after the other
                log.error(event("metadata cannot be read", reason=reason, action="the store is checked once more"))
                waiting = self._again
            else:
                log.critical(event("metadata is damaged", reason=reason, action="the namenode starts again"))
                self._met = reason
                waiting = self._damaged
        if waiting is self._damaged:
            try:
                self._save(suspect=reason)
            except OSError as error:  # whoever commits tells this, and it must end neither that nor what follows
                log.warning(event("damage could not be noted", reason=error, action="starting again all the same"))
        if self._loop is not None:
            self._loop.call_soon_threadsafe(waiting.set)

    async def damaged(self) -> str:
        """Return once the store that is open is known to be damaged; why."""
        self._loop = asyncio.get_running_loop()
        if not self._met:
            await self._damaged.wait()
        return self._met

    async def watch(self) -> None:
        """Check the store, once it is open, again and again, until it is found damaged."""
        await self._is_open.wait()
        rest_s = 0.0 if self._marker.starts else _REST_S
        while not self._met:
            try:
                async with asyncio.timeout(rest_s):
                    await self._again.wait()
            except TimeoutError:
                pass
            self._again.clear()
            began_s = self._monotonic()
            try:
                self.checked(await self._check(at_rest=False, in_turn=True))
            except CheckFailed as error:
                log.warning(event("the metadata could not be checked", reason=error, action="trying again"))
            rest_s = max(_REST_S, _REST_TIMES * (self._monotonic() - began_s))

    async def write_checkpoint(self, about: Header, path: Path) -> Header:
        """A file of the open store's last commit, all of which was checked as it was written; see
        `shipper.WriteCheckpoint`."""
        verdict = await self._check(at_rest=False, in_turn=True, checkpoint=(about, path))
        self.checked(verdict)
        if verdict.header is None:
            raise CheckFailed(f"the metadata is damaged: {verdict.damage}")
        return verdict.header

    def checked(self, verdict: Verdict) -> None:
        """Whoever checked the open store has found this."""
        if verdict.damage:
            with self._lock:
                self._marker = replace(self._marker, absolved="")
            self.met(verdict.damage)
            return
        self._tell_faults(verdict)
        now_ns = self._wall_ns()
        if self._marker.starts or abs(now_ns - self._saved_ns) > _SAVE_EVERY_NS:
            self._saved_ns = now_ns
            self._save(checked_ns=now_ns, starts=0)
        else:
            self._marker = replace(self._marker, checked_ns=now_ns)

    def aside(self, target: Path) -> dict[FileName, Path]:
        """Files of metadata that were set aside with damaged stores, and what was kept beside those, as journals that
        are made in `target`. For a thread. Raises OSError."""
        found: dict[FileName, Path] = {}
        for folder in sorted(self._folder.glob(f"{PREFIX}*")):
            for path in (folder / COPIES).iterdir() if (folder / COPIES).is_dir() else ():
                if (name := parse_name(path.name)) is not None:
                    found[name] = path
            found |= as_journals(folder / RECENT, target)
        return found

    async def _check(
        self, *, at_rest: bool, in_turn: bool, checkpoint: tuple[Header, Path] | None = None
    ) -> Verdict:
        self.is_checking, self.keys_read = True, 0
        try:
            verdict = await self._checker.check(
                self._note_progress, at_rest=at_rest, in_turn=in_turn, checkpoint=checkpoint
            )
        except CheckFailed as error:
            self.failure = str(error)
            raise
        finally:
            self.is_checking = False
        self.failure = ""
        return verdict

    def _note_progress(self, keys: int) -> None:
        self.keys_read = keys

    def _judge(self, verdict: Verdict) -> None:
        """Of a store that is not open: set it aside, or let it be opened."""
        if reason := self._fault(verdict):
            self._set_aside(reason)
        else:
            self._tell_faults(verdict)
            self._saved_ns = self._wall_ns()
            absolved = self._marker.suspect
            self._save(suspect="", absolved=absolved, starts=0, checked_ns=self._saved_ns)
            if absolved:
                log.warning(event("the metadata was checked, and is right", keys=verdict.keys, suspected=absolved))

    def _misplaced(self, verdict: Verdict) -> str:
        """Why a store that is right is not this folder's; empty where it is."""
        known = self._marker.cluster_id
        if not known or verdict.cluster_id == known:
            return ""
        if verdict.cluster_id:
            return (
                f"it is the metadata of cluster {verdict.cluster_id}, and this folder is cluster {known}'s: to run "
                f"that cluster, start a namenode with its {DATA} in an empty folder"
            )
        return f"it holds no cluster, and this folder is cluster {known}'s"

    def _fault(self, verdict: Verdict) -> str:
        """Why a store is not to be opened; empty where it is."""
        return verdict.damage or self._misplaced(verdict) or self._behind(verdict)

    def _behind(self, verdict: Verdict) -> str:
        """Why a store that is right is not all of it; empty where it is."""
        kept = last_kept(self._folder / RECENT, verdict.cluster_id)
        if verdict.epoch is None or kept <= (verdict.epoch, verdict.number):
            return ""
        return f"it ends with commit {verdict.number}, and commit {kept[1]} was made"

    def _set_aside(self, reason: str) -> None:
        """What is here goes; what is left was something."""
        now_ns = self._wall_ns()
        cluster_id = self._marker.cluster_id or self._cluster_of_copies()
        aside = set_aside(self._folder, reason, now_ns, (COPIES, RECENT))
        self._save(
            begun=True,
            cluster_id=cluster_id,
            suspect="",
            absolved="",
            starts=0,
            set_aside=SetAside(reason, now_ns, aside.name),
        )
        self.remnant = Remnant(cluster_id, reason)
        log.critical(event("metadata set aside", reason=reason, path=aside, action="restoring it from the copies"))

    def _guessed(self) -> Marker:
        """For a folder that a release made which wrote no marker, or a new one."""
        return Marker(begun=True) if self._size() or self._cluster_of_copies() else Marker()

    def _cluster_of_copies(self) -> str:
        """Whose copies lie here to be shipped; empty where there are none."""
        try:
            for path in sorted((self._folder / COPIES).iterdir()):
                if parse_name(path.name) is not None:
                    with path.open("rb") as file:
                        return read_header(file).cluster_id
        except (FileNotFoundError, Damaged):
            pass
        return ""

    def _clear_first_start(self, size: int | None) -> None:
        """A store in which nothing was acknowledged yet: what an interrupted first start has left is made anew."""
        self._save()
        if size is None:
            return
        verdict = check_store(self._folder, at_rest=True)
        if not verdict.damage:
            return
        if size > _BEGUN_BYTES:  # nobody began this here
            self._set_aside(verdict.damage)
            return
        log.warning(event("a first start was interrupted", found=verdict.damage, action="it begins anew"))
        self._remove()

    def _remove(self) -> None:
        for name in (LOCKS, DATA):
            (self._folder / name).unlink(missing_ok=True)
        sync_directory(self._folder)

    def _size(self) -> int | None:
        try:
            return (self._folder / DATA).stat().st_size
        except FileNotFoundError:
            return None

    def _tell_faults(self, verdict: Verdict) -> None:
        faults, self._faults = self._faults, verdict.faults
        for fault in verdict.faults if faults != verdict.faults else ():
            log.error(event("metadata breaks a rule of its own", fault=fault, action="dfs fsck tells all of them"))

    def _save(self, **changes: object) -> None:
        with self._lock:
            changed = replace(self._marker, **changes)
            if changed != self._marker or not changed.begun:
                write_marker(self._folder, changed)
            self._marker = changed
