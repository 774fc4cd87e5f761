"""Which process is the datanode, where several come with one id: a volume was copied, restored or moved. Pure.

A process that joins tells its incarnation, and those of the processes before it on its volume. Who descends from the
one that was admitted last has its volume, and takes its place at once. Who does not has another volume of the same
origin: an older copy, or one that has gone another way. Two of them under one id would each lack what the other
one acknowledged, so one alone is admitted, and not one after the other as it comes.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from dfslib.model import NodeId
from dfslib.namenode.namespace.records import AdmittedRecord
from dfslib.wire.messages import JoinRequest

GONE_S: Final = 15.0
"""A datanode whose process was seen to end is waited for as long before an older copy of its volume may take its
place: it may only be starting anew."""
_REFUSED_MAX: Final = 16
"""Names of copies of one volume that are remembered."""
_ADDED_AFTER: Final = 50
"""Starts of a copy; volumes remember twice as many."""


class Presence(enum.Enum):
    """What is known of the process that was admitted last."""

    HERE = enum.auto()
    """It is heard of."""
    UNSURE = enum.auto()
    """It may come back any moment."""
    GONE = enum.auto()


class Verdict(enum.Enum):
    ADMITTED = "admitted"
    LATER = "later"
    """Come again: it shows soon."""
    REFUSED = "refused"


class Decision(NamedTuple):
    """`admitted` is to be remembered from now on, durably, before the verdict is told. `reason` is for people: of
    an admission, why it is none like others."""

    verdict: Verdict
    admitted: AdmittedRecord
    reason: str = ""


class Admitted(NamedTuple):
    """The process that was admitted last, as the namenode knows it. `current`: the incarnation of the one that joined
    last, which is empty for one of a release that has none. `url`: where it is, or was."""

    record: AdmittedRecord
    current: str
    presence: Presence
    url: str


def admit_new(request: JoinRequest) -> Decision:
    """Of a process with an id that is not known."""
    return Decision(Verdict.ADMITTED, _admit(AdmittedRecord(NodeId(request.node_id)), request))


def decide(request: JoinRequest, known: Admitted) -> Decision:
    """What becomes of a process that joins with an id that has joined before."""
    record = known.record
    here = known.presence is Presence.HERE
    if not request.incarnation:
        if here and known.current:
            return Decision(Verdict.LATER, record, f"datanode {record.node_id} runs at {known.url}")
        return Decision(Verdict.ADMITTED, record)  # as before there were incarnations
    own = {request.incarnation, *request.ancestors}
    if not record.incarnation or record.incarnation in own:
        return Decision(Verdict.ADMITTED, _admit(record, request))
    remedy = f"`dfs forget {record.node_id[:8]}`, and start this one again"
    if here:
        return Decision(
            Verdict.REFUSED,
            _refuse(record, request),
            f"datanode {record.node_id} runs at {known.url}, with another copy of this volume: stop one of the two. To "
            f"have both, give this one an empty folder; to have this one instead, stop the other one, {remedy}",
        )
    if request.starts >= record.starts or not set(record.refused).isdisjoint(own):
        return Decision(
            Verdict.REFUSED,
            _refuse(record, request),
            f"this is another copy of the volume of datanode {record.node_id}, which ran at {known.url} last: start "
            f"that one. To have this one instead: {remedy}",
        )
    if known.presence is Presence.UNSURE:
        return Decision(
            Verdict.LATER,
            record,
            f"this is an older copy of the volume of datanode {record.node_id}, which is missing at {known.url} for a "
            "moment only: it is admitted if that one does not come back",
        )
    superseded = replace(record, refused=_newest([*record.refused, record.incarnation]))
    return Decision(Verdict.ADMITTED, _admit(superseded, request), "an older copy of its volume")


def _admit(record: AdmittedRecord, request: JoinRequest) -> AdmittedRecord:
    return replace(record, incarnation=request.incarnation, starts=request.starts)


def _refuse(record: AdmittedRecord, request: JoinRequest) -> AdmittedRecord:
    """One name of a copy is enough to know those that come after it, as long as they know it for an ancestor; copies
    that were made of it are known by the same one. Another one is added before they forget it."""
    lately = {request.incarnation, *request.ancestors[-_ADDED_AFTER:]}
    if not lately.isdisjoint(record.refused):
        return record
    return replace(record, refused=_newest([*record.refused, request.incarnation]))


def _newest(refused: Sequence[str]) -> list[str]:
    return list(refused[-_REFUSED_MAX:])
