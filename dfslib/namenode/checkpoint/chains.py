"""Which files of metadata lead furthest: a checkpoint, and journals that go on from it without a gap. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dfslib.namenode.checkpoint.format import FileName


class Chain(NamedTuple):
    """A checkpoint and the journals to apply after it, in this order."""

    checkpoint: FileName
    journals: tuple[FileName, ...]

    @property
    def files(self) -> tuple[FileName, ...]:
        return (self.checkpoint, *self.journals)

    @property
    def reach(self) -> tuple[int, int]:
        """The epoch, and the last commit contained: the greater, the newer."""
        return self.checkpoint.epoch, self.journals[-1].last if self.journals else self.checkpoint.last


def best_chain(names: Iterable[FileName]) -> Chain | None:
    """The chain that leads furthest; of several, the one with the latest checkpoint."""
    known = set(names)
    chains = [_from(checkpoint, known) for checkpoint in known if checkpoint.is_checkpoint]
    return max(chains, key=lambda chain: (chain.reach, chain.checkpoint.last), default=None)


def _from(checkpoint: FileName, known: set[FileName]) -> Chain:
    journals = sorted(
        (name for name in known if not name.is_checkpoint and name.epoch == checkpoint.epoch),
        key=lambda name: (name.first, name.last),
    )
    chosen: list[FileName] = []
    reached = checkpoint.last
    best: FileName | None = None
    for journal in journals:
        while best is not None and journal.first > reached + 1:
            chosen.append(best)
            reached, best = best.last, None
        if journal.first > reached + 1:
            break
        if journal.last > max(reached, best.last if best else 0):
            best = journal
    if best is not None:
        chosen.append(best)
    return Chain(checkpoint, tuple(chosen))
