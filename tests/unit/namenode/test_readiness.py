"""What a rolling update waits for: that nobody is away and nothing is being repaired, as long as others serve."""

from __future__ import annotations

import pytest

from dfslib.namenode.membership.readiness import Other, is_ready
from dfslib.namenode.membership.registry import NodeState

READY = Other(NodeState.ALIVE, leaving=False, ready=True)
STARTING = Other(NodeState.ALIVE, leaving=False, ready=False)
AWAY = Other(NodeState.SUSPECT, leaving=False, ready=True)
LEAVING = Other(NodeState.DRAINING, leaving=True, ready=True)
DRAINED = Other(NodeState.DRAINING, leaving=False, ready=True)
DEAD = Other(NodeState.DEAD, leaving=False, ready=True)


@pytest.mark.parametrize(
    ("others", "repairing", "up_s", "expected"),
    [
        ([], False, 0, True),
        ([], True, 0, True),  # nobody to wait for
        ([READY], False, 0, True),
        ([READY], True, 0, False),
        ([READY], True, 1e6, False),  # for as long as it takes
        ([READY, DRAINED, STARTING], False, 0, True),
        ([READY, AWAY], False, 1e6, False),
        ([READY, LEAVING], False, 1e6, False),
        ([READY, DEAD], False, 0, True),
        ([READY, DEAD], True, 0, False),
        ([STARTING, STARTING], True, 0, True),  # all started at once: somebody has to serve
        ([STARTING, AWAY], True, 9, False),  # the namenode was restarted, too: others may come back that are ready
        ([STARTING, AWAY], True, 10, True),
        ([DEAD], True, 0, True),
    ],
)
def test_ready(others: list[Other], repairing: bool, up_s: float, expected: bool) -> None:
    assert is_ready(others, repairing=repairing, up_s=up_s) is expected
