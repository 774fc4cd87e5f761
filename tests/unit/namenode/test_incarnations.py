"""One process alone is the datanode, however its volume is copied, restored and moved: against a model.

Volumes are values that are copied; the namenode is the real registry, with what it has written down; time is a number.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dfslib.errors import Fenced, InvalidArgument, UnknownNode
from dfslib.model import NodeId
from dfslib.namenode.membership.incarnations import GONE_S, Verdict, admit_new, decide
from dfslib.namenode.membership.registry import Datanode, NodeState, Registry
from dfslib.namenode.namespace.records import AdmittedRecord, NodeRecord
from dfslib.wire import messages
from dfslib.wire.messages import HeartbeatRequest, JoinRequest

NODE = NodeId("d" * 32)
SUSPECT_S, DEAD_S = 5.0, 60.0


@dataclass
class Volume:
    """What a volume remembers, and a way to tell where its history went another way than that of its copies."""

    starts: int = 0
    names: list[str] = field(default_factory=list)
    process: Process | None = None

    def copy(self) -> Volume:
        return Volume(self.starts, list(self.names))


@dataclass
class Process:
    """`name` is "" for a release that has none."""

    request: JoinRequest
    ended: str = ""

    @property
    def name(self) -> str:
        return self.request.incarnation

    def is_ancestor_of(self, other: Process) -> bool:
        return self.name in other.request.ancestors


class Namenode:
    """The steps of `ClusterRoutes.join` and `heartbeat` that decide."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.nodes: dict[NodeId, NodeRecord] = {}
        self.admitted: dict[NodeId, AdmittedRecord] = {}
        self.restart()

    def restart(self) -> None:
        self.registry = Registry(SUSPECT_S, DEAD_S)
        self.registry.restore(self.nodes.values(), self.now_s, self.admitted.values())

    def join(self, request: JoinRequest) -> Verdict:
        known = self.registry.admitted(request.node_id, self.now_s)
        decision = decide(request, known) if known is not None else admit_new(request)
        self.registry.remember(decision.admitted)
        if decision.admitted.incarnation:
            self.admitted[NODE] = decision.admitted
        if decision.verdict is Verdict.ADMITTED:
            node = self.registry.join(request, f"http://{request.incarnation}:1", self.now_s, 0)
            self.nodes[node.id] = node.record()
            self.registry.report(node, self.now_s, first=True, last=True)
        else:
            assert decision.reason
        return decision.verdict

    def beat(self, request: JoinRequest, *, leaving: bool = False) -> Datanode:
        message = HeartbeatRequest(NODE, 1, 1, 1, 1, leaving, incarnation=request.incarnation)
        return self.registry.heartbeat(message, self.now_s, 0)

    def forget(self) -> bool:
        node = self.registry.get(NODE)
        if node is None or self.registry.state(node, self.now_s) not in (NodeState.DEAD, NodeState.SUSPECT):
            return False
        self.registry.forget(NODE)
        self.nodes.pop(NODE, None)
        self.admitted.pop(NODE, None)
        return True


_numbers = itertools.count(1)


def started(volume: Volume, *, with_incarnation: bool = True) -> Process:
    if not with_incarnation:
        return Process(JoinRequest(NODE, "c", 1, 1, "", "", 1, 0, 1, 0))
    name = f"n{next(_numbers)}"
    volume.starts += 1
    ancestors, volume.names = list(volume.names), [*volume.names, name]
    return Process(
        JoinRequest(NODE, "c", 1, 1, "", "", 1, 0, 1, 0, 0, incarnation=name, starts=volume.starts, ancestors=ancestors)
    )


class Histories(RuleBasedStateMachine):
    """Volumes are copied and started in any order; processes and the namenode end and come back in any order."""

    VOLUMES_MAX: ClassVar = 5

    def __init__(self) -> None:
        super().__init__()
        self.namenode = Namenode()
        self.volumes = [Volume()]
        self.member: Process | None = None
        """Who was admitted last, with an incarnation."""
        self.outcasts: list[Process] = []
        """Who was refused, or superseded by who does not descend from them, since an operator last had a word."""

    def running(self) -> list[Process]:
        return [volume.process for volume in self.volumes if volume.process is not None]

    @rule(data=st.data())
    def copy(self, data: st.DataObject) -> None:
        """A backup, a clone of a virtual machine: of a volume in use, too."""
        if len(self.volumes) < self.VOLUMES_MAX:
            self.volumes.append(data.draw(st.sampled_from(self.volumes)).copy())

    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        stopped = [number for number, volume in enumerate(self.volumes) if volume.process is None]
        if stopped:
            self.volumes[data.draw(st.sampled_from(stopped))] = data.draw(st.sampled_from(self.volumes)).copy()

    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        stopped = [volume for volume in self.volumes if volume.process is None]
        if not stopped:
            return
        volume = data.draw(st.sampled_from(stopped))
        volume.process = started(volume)
        self.join(volume)

    @rule(data=st.data())
    def join_again(self, data: st.DataObject) -> None:
        """An answer was lost, or it was told to come again."""
        started = [volume for volume in self.volumes if volume.process is not None]
        if started:
            self.join(data.draw(st.sampled_from(started)))

    def join(self, volume: Volume) -> None:
        process = volume.process
        assert process is not None
        before, was_here = self.member, self.is_here(self.member)
        verdict = self.namenode.join(process.request)
        descends = before is None or process is before or before.is_ancestor_of(process)
        if descends:
            assert verdict is Verdict.ADMITTED  # at once, whatever has become of the one before
        else:
            assert not (was_here and verdict is Verdict.ADMITTED)
            cast_out = [one for one in self.outcasts if one is process or one.is_ancestor_of(process)]
            assert not (cast_out and verdict is Verdict.ADMITTED)
            if verdict is Verdict.REFUSED:
                self.outcasts.append(process)
                volume.process = None
            elif verdict is Verdict.ADMITTED:
                assert before is not None
                assert process.request.starts < before.request.starts
                self.outcasts.append(before)
        if verdict is Verdict.ADMITTED:
            self.member = process

    def is_here(self, process: Process | None) -> bool:
        node = self.namenode.registry.get(NODE)
        return (
            process is not None
            and node is not None
            and node.present
            and node.incarnation == process.name
            and self.namenode.registry.state(node, self.namenode.now_s) is NodeState.ALIVE
        )

    @rule()
    def beat(self) -> None:
        for volume in self.volumes:
            if volume.process is None:
                continue
            try:
                self.namenode.beat(volume.process.request)
            except UnknownNode:
                self.join(volume)
            except Fenced:
                assert volume.process is not self.member
                volume.process = None
            else:
                assert volume.process is self.member

    @precondition(lambda self: self.running())
    @rule(data=st.data(), seen=st.sampled_from(["unseen", "seen", "leaves"]))
    def stop(self, data: st.DataObject, seen: str) -> None:
        volume = data.draw(st.sampled_from([volume for volume in self.volumes if volume.process is not None]))
        node = self.namenode.registry.get(NODE)
        assert volume.process is not None
        if node is not None and node.present and node.incarnation == volume.process.name:
            if seen == "seen":
                self.namenode.registry.lost(NODE, node.beat)
            elif seen == "leaves":
                self.namenode.beat(volume.process.request, leaving=True)
        volume.process = None

    @rule(seconds=st.sampled_from([1.0, SUSPECT_S, GONE_S, DEAD_S]))
    def pass_time(self, seconds: float) -> None:
        self.namenode.now_s += seconds

    @rule()
    def restart_namenode(self) -> None:
        self.namenode.restart()

    @rule()
    def forget(self) -> None:
        if self.namenode.forget():
            self.member, self.outcasts = None, []

    @invariant()
    def one_alone_is_the_datanode(self) -> None:
        node = self.namenode.registry.get(NODE)
        if node is not None and node.present and self.member is not None:
            assert node.incarnation == self.member.name


Histories.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestHistories = Histories.TestCase


def test_who_joins_anew_takes_the_place_of_who_still_seems_to_be_there() -> None:
    namenode, volume = Namenode(), Volume()
    first = started(volume)
    assert namenode.join(first.request) is Verdict.ADMITTED
    second = started(volume)
    assert namenode.join(second.request) is Verdict.ADMITTED
    with pytest.raises(Fenced, match="started anew at http://n"):
        namenode.beat(first.request)
    namenode.beat(second.request)
    third = started(volume)  # which ended before it was heard of
    assert third.request.ancestors == [first.name, second.name]
    assert namenode.join(started(volume).request) is Verdict.ADMITTED


def test_the_second_of_two_copies_is_refused_also_when_the_first_has_ended() -> None:
    namenode, volume = Namenode(), Volume()
    namenode.join(started(volume).request)
    copy = volume.copy()
    assert namenode.join(started(volume).request) is Verdict.ADMITTED
    assert namenode.join(started(copy).request) is Verdict.REFUSED
    namenode.now_s += 10 * DEAD_S
    assert namenode.join(started(copy).request) is Verdict.REFUSED
    assert namenode.forget()
    assert namenode.join(started(copy).request) is Verdict.ADMITTED
    assert namenode.join(started(volume).request) is Verdict.REFUSED


def test_an_older_copy_is_admitted_when_the_newer_one_is_gone_and_not_while_it_may_come_back() -> None:
    namenode, volume = Namenode(), Volume()
    namenode.join(started(volume).request)
    old = volume.copy()
    for _ in range(3):
        last = started(volume)
        namenode.join(last.request)
    older = started(old)
    node = namenode.beat(last.request)
    namenode.registry.lost(NODE, node.beat)
    assert namenode.join(older.request) is Verdict.LATER
    namenode.now_s += GONE_S
    assert namenode.join(older.request) is Verdict.ADMITTED
    assert namenode.join(started(volume).request) is Verdict.REFUSED


def test_a_restart_of_the_namenode_does_not_favour_who_comes_first() -> None:
    namenode, volume = Namenode(), Volume()
    old = volume.copy()
    namenode.join(started(volume).request)
    even = volume.copy()
    admitted = started(volume)
    namenode.join(admitted.request)
    namenode.restart()
    assert namenode.join(started(old).request) is Verdict.LATER
    assert namenode.join(started(even).request) is Verdict.REFUSED
    assert namenode.join(admitted.request) is Verdict.ADMITTED
    assert namenode.join(started(old).request) is Verdict.REFUSED


def test_metadata_that_is_behind_knows_an_ancestor() -> None:
    namenode, volume = Namenode(), Volume()
    namenode.join(started(volume).request)
    behind = dict(namenode.admitted)
    for _ in range(20):
        namenode.join(started(volume).request)
    namenode.admitted = behind
    namenode.restart()
    assert namenode.join(started(volume).request) is Verdict.ADMITTED


def test_a_copy_that_was_refused_does_not_come_in_while_the_other_one_starts_anew() -> None:
    namenode, volume = Namenode(), Volume()
    namenode.join(started(volume).request)
    copy = volume.copy()
    for _ in range(9):
        namenode.join(started(volume).request)
    for _ in range(3):  # an orchestrator starts it again and again
        assert namenode.join(started(copy).request) is Verdict.REFUSED
    node = namenode.registry.get(NODE)
    assert node is not None
    namenode.registry.lost(NODE, node.beat)
    namenode.now_s += DEAD_S
    behind = copy.copy()
    for _ in range(300):
        copy.names = copy.names[-99:]
        assert namenode.join(started(copy).request) is Verdict.REFUSED
    assert len(namenode.admitted[NODE].refused) <= 7
    assert namenode.join(started(behind).request) is Verdict.REFUSED
    assert namenode.join(started(volume).request) is Verdict.ADMITTED


def test_releases_without_incarnations_are_treated_as_before_and_wait_for_one_that_has_it() -> None:
    namenode, volume = Namenode(), Volume()
    older = started(volume, with_incarnation=False)
    assert namenode.join(older.request) is Verdict.ADMITTED
    assert namenode.join(started(volume, with_incarnation=False).request) is Verdict.ADMITTED
    namenode.beat(older.request)
    first = started(volume)
    assert namenode.join(first.request) is Verdict.ADMITTED  # an upgrade
    with pytest.raises(Fenced):
        namenode.beat(older.request)
    assert namenode.join(older.request) is Verdict.LATER
    node = namenode.beat(first.request)
    namenode.registry.lost(NODE, node.beat)
    assert namenode.join(older.request) is Verdict.ADMITTED  # the release before is back
    assert namenode.join(started(volume).request) is Verdict.ADMITTED  # and goes


@pytest.mark.parametrize(
    "wrong",
    [{"starts": -1}, {"incarnation": "x" * 65}, {"ancestors": ["x" * 65]}, {"ancestors": ["x"] * 1001}],
)
def test_claims_that_no_datanode_makes(wrong: dict[str, object]) -> None:
    right = json.loads(messages.encode(JoinRequest(NODE, "c", 1, 1, "", "", 1, 0, 1, 0)))
    messages.decode(json.dumps(right).encode(), JoinRequest)
    with pytest.raises(InvalidArgument, match=next(iter(wrong))):
        messages.decode(json.dumps(right | wrong).encode(), JoinRequest)
