"""Which files of metadata a datanode keeps, once it has all of the newest chain. Pure.

Beside that chain, and the best one without its checkpoint, which leads as far, checkpoints are kept by their age: for
an hour, a day and a week the newest one that is as old, and the oldest one that is not yet, which will take its place.
So there is always one that is between one and two of these times old, if any is, and never more than eight in all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate
from typing import Final

from dfslib.namenode.checkpoint.chains import Chain, best_chain
from dfslib.namenode.checkpoint.format import FileName

HOUR_NS: Final = 3600 * 10**9
AGES_NS: Final = (HOUR_NS, 24 * HOUR_NS, 7 * 24 * HOUR_NS)


def to_keep(held: Collection[FileName], chain: Chain, times_ns: Mapping[FileName, int], now_ns: int) -> set[FileName]:
    """Of what a datanode holds, all of `chain`, the newest, in it. `times_ns`: when the checkpoints were made, as far
    as that is known. One of which it is not known is kept, and so is what leads further than `chain`: it is somebody
    else's."""
    before = best_chain(set(held) - {chain.checkpoint})
    kept = {*chain.files, *(before.files if before is not None else ())}
    kept |= {name for name in held if (name.epoch, name.last) > chain.reach}
    checkpoints = sorted((name for name in held if name.is_checkpoint), key=lambda name: (name.epoch, name.last))
    kept |= {name for name in checkpoints if name not in times_ns}
    known = [name for name in checkpoints if name in times_ns]
    steady = _steady([times_ns[name] for name in known], now_ns)
    for age_ns in AGES_NS:
        older = [name for name, time_ns in zip(known, steady, strict=True) if now_ns - time_ns >= age_ns]
        kept |= set(known[len(older) : len(older) + 1]) | set(older[-1:])
    return kept


def _steady(times_ns: Sequence[int], now_ns: int) -> list[int]:
    """The times in the order in which the files were made, without the jumps of a clock: one that lies before that of
    an earlier file, or in the future, is that of the file before."""
    return list(accumulate((time_ns if time_ns <= now_ns else 0 for time_ns in times_ns), max))
