"""drain, forget, restore, release, upgrade and status against a namenode whose answers the test writes."""

from __future__ import annotations

import io
from typing import Protocol

import pytest
from msgspec import structs

from dfslib.errors import DfsError, InvalidArgument, NotFound
from dfslib.wire.messages import (
    ClusterBody,
    MetadataBody,
    NodeBody,
    RepairBody,
    UpgradeBody,
    UpgradeMountBody,
    UpgradeNodeBody,
    encode,
    encode_error,
)
from tests.unit.cli.command import Run
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.fake_server import Reply

NODE = "3f2a0000-1111"


def node(*, state: str = "alive", slow: bool = False, to_move: int | None = None) -> NodeBody:
    url = "http://10.0.0.7:8181/"
    return NodeBody(NODE, state, url, url, 2048, 0, 2048, 7, 0.0, True, slow=slow, to_move=to_move)


def body(*nodes: NodeBody, repair: RepairBody | None = None, metadata: MetadataBody | None = None) -> ClusterBody:
    return ClusterBody(
        "c", "0.1", 1, "all", 2, 5.0, 0, list(nodes), repair or RepairBody(), metadata or MetadataBody()
    )  # fmt: skip


Asked = list[tuple[str, dict[str, bytes]]]
"""Paths and parameters of the requests so far."""


class Script(Protocol):
    """What the namenode answers one after the other, the last one from then on."""

    def __call__(self, *answers: ClusterBody | UpgradeBody | DfsError) -> Asked: ...


@pytest.fixture
def script(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> Script:
    monkeypatch.setattr("dfslib.cli.drain._ASK_AGAIN_S", 0.0)
    asked: Asked = []

    def play(*answers: ClusterBody | UpgradeBody | DfsError) -> Asked:
        rest = list(answers)

        def administer(path: str, query: dict[str, bytes]) -> Reply:
            asked.append((path, dict(query)))
            answer = rest.pop(0) if len(rest) > 1 else rest[0]
            if not isinstance(answer, DfsError):
                return Reply(200, encode(answer))
            return Reply(answer.http_status, encode_error(answer), {"Content-Type": "application/json"})

        cluster.administer = administer
        return asked

    return play


def draining(to_move: int | None) -> ClusterBody:
    return body(node(state="draining", to_move=to_move))


def test_drain_tells_how_much_is_left(run: Run, script: Script) -> None:
    asked = script(draining(None), draining(None), draining(120))
    result = run("drain", "3f2a")
    assert result.status == 0
    expected = "3f2a0000 (http://10.0.0.7:8181/): 120 blocks left to move; to watch: dfs drain --wait 3f2a0000\n"
    assert result.out == expected
    assert asked[0] == ("/cluster/drain", {"node": b"3f2a"})


def test_drain_waits_until_it_is_safe(run: Run, script: Script) -> None:
    script(draining(None), draining(None), draining(2), draining(2), draining(1), draining(0))
    result = run("drain", "--wait", "http://10.0.0.7:8181")
    assert result.status == 0
    assert result.out.splitlines() == [
        "3f2a0000 (http://10.0.0.7:8181/): 2 blocks to move",
        "3f2a0000 (http://10.0.0.7:8181/): 1 block to move",
        "3f2a0000 (http://10.0.0.7:8181/): nothing left to move: safe to remove. Stop it, then: dfs forget 3f2a0000",
    ]


def test_drain_tells_when_nothing_can_be_copied(run: Run, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfslib.cli.drain._IDLE_S", -1.0)
    script(*[draining(2)] * 5, draining(0))
    result = run("drain", "--wait", NODE)
    assert result.status == 0
    assert result.err == "dfs: nothing is being copied: too few other datanodes, or no room on them\n"
    assert result.out.count("2 blocks to move") == 1


def test_drain_that_ends_otherwise_is_an_error(run: Run, script: Script) -> None:
    script(draining(3), body(node()))
    assert run("drain", "--wait", NODE).err == "dfs: 3f2a0000: the drain was taken back meanwhile\n"
    script(draining(3), body())
    result = run("drain", "--wait", NODE)
    assert (result.status, result.err) == (1, "dfs: 3f2a0000: was forgotten meanwhile\n")


def test_drain_is_taken_back(run: Run, script: Script) -> None:
    asked = script(body(node()))
    assert run("drain", "3f2a", "--cancel").out == "3f2a0000 (http://10.0.0.7:8181/): no longer drained\n"
    assert asked == [("/cluster/drain", {"node": b"3f2a", "cancel": b"true"})]
    assert run("drain", "3f2a", "--cancel", "--wait").status == 2


def test_a_datanode_that_nobody_knows(run: Run, script: Script) -> None:
    script(NotFound("no datanode has this id or URL"))
    assert run("drain", "nonsense").err == "dfs: nonsense: no datanode has this id or URL\n"
    script(body(node()), NotFound("no datanode has this id or URL"))
    result = run("forget", "nonsense")
    assert (result.status, result.err) == (1, "dfs: nonsense: no datanode has this id or URL\n")


def test_forget(run: Run, script: Script) -> None:
    asked = script(body(node(state="dead")), body())
    assert run("forget", "3f2a").out == "3f2a0000 (http://10.0.0.7:8181/): forgotten\n"
    assert asked[1] == ("/cluster/forget", {"node": NODE.encode()})
    script(body(node()), InvalidArgument("only a datanode that is gone can be forgotten: stop it first"))
    result = run("forget", "3f2a")
    assert result.status == 1
    assert result.err == f"dfs: {NODE}: only a datanode that is gone can be forgotten: stop it first\n"


def test_release(run: Run, script: Script) -> None:
    for held, said in ((True, "released: "), (False, "nothing was held: ")):
        asked = script(body(metadata=MetadataBody(held=held)), body(metadata=MetadataBody()))
        result = run("release")
        assert (result.status, asked[-1]) == (0, ("/cluster/release", {}))
        assert result.out.startswith(said)


WAITING = body(node(), metadata=MetadataBody("waiting", "for dfs restore: data2 has the metadata up to noon"))
RESTORED = body(node(), metadata=MetadataBody(restored_until=1.0, held=True))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_restore_asks_and_tells(run: Run, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = script(WAITING, RESTORED)
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    result = run("restore")
    assert (result.status, asked) == (1, [("/cluster", {})])
    assert "up to noon" in result.out
    assert "[y/N]" in result.err
    asked = script(WAITING, RESTORED)
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    result = run("restore", "--from", "http://10.0.0.7:8181")
    assert result.status == 0
    assert asked[-1] == ("/cluster/restore", {"from": b"http://10.0.0.7:8181"})
    assert "restored to " in result.out
    assert "until `dfs release`" in result.out


def test_restore_does_not_ask_where_nobody_is(run: Run, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = script(WAITING, RESTORED)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    result = run("restore")
    assert (result.status, result.err.count("\n"), asked) == (2, 1, [])
    assert run("restore", "--yes").status == 0
    assert asked[-1] == ("/cluster/restore", {})


def test_restore_is_refused_in_the_namenodes_words(run: Run, script: Script) -> None:
    script(body(node()), InvalidArgument("there are files: only an empty namenode is restored"))
    result = run("restore", "--yes")
    assert (result.status, result.err) == (1, "dfs: there are files: only an empty namenode is restored\n")


OLD = body(node(), metadata=MetadataBody("waiting", "this metadata may be an old copy"))
FORCED = body(node(), metadata=MetadataBody(restored_until=1.0, held=True))


def test_namenode_open_by_force_asks_and_tells(run: Run, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    asked = script(OLD, FORCED)
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    result = run("namenode", "open", "--force")
    assert (result.status, asked) == (1, [("/cluster", {})])
    assert "may be an old copy" in result.out
    assert "[y/N]" in result.err
    for answers in ((Terminal("y\n"), ()), (io.StringIO(), ("--yes",))):
        asked = script(OLD, FORCED)
        monkeypatch.setattr("sys.stdin", answers[0])
        result = run("namenode", "open", "--force", *answers[1])
        assert result.status == 0
        assert asked[-1] == ("/cluster/open", {"force": b"true"})
        assert "dfs release" in result.out
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert run("namenode", "open", "--force").status == 2


def test_namenode_open_without_force_tells_what_is_waited_for(run: Run, script: Script) -> None:
    asked = script(OLD)
    result = run("namenode", "open")
    assert (result.status, asked) == (1, [("/cluster", {})])
    assert result.err == "dfs: the metadata is not served: this metadata may be an old copy\n"
    for force in ((), ("--force", "--yes")):
        script(body(node()))
        result = run("namenode", "open", *force)
        assert result.status == 0
        assert result.out == "the metadata is served already: there is nothing to open\n"
    assert run("namenode").status == run("namenode", "close").status == 2


def test_an_open_namenode_tells_whom_it_refuses(run: Run, script: Script) -> None:
    script(body(node(), metadata=MetadataBody("open", "datanode 3f2a has other metadata", copied_until=1.0)))
    out = run("status").out
    assert "metadata: open: datanode 3f2a has other metadata\n" in out
    assert "metadata: copied to the datanodes until" in out


def test_status_as_json_is_complete(run: Run, script: Script) -> None:
    script(body(node(slow=True, to_move=4), repair=RepairBody(1, 2, 3, 4, 5), metadata=MetadataBody(held=True)))
    found = run("status", "--json").json
    assert (found["nodes"][0]["slow"], found["nodes"][0]["to_move"]) == (True, 4)
    assert found["repair"] == {"short": 1, "lost": 2, "waiting": 3, "running": 4, "done": 5}
    assert found["metadata"]["held"] is True
    assert set(found["metadata"]) == set(MetadataBody.__struct_fields__)
    assert "repair: 1 block short of copies, 2 lost" in run("status").out


def upgrade(level: int, *, possible: bool = False, obstacle: str = "") -> UpgradeBody:
    url = "http://10.0.0.7:8181/"
    nodes = [UpgradeNodeBody(NODE, url, "alive", "", [], obstacle)]
    mounts = [UpgradeMountBody("host:/mnt", True, "2.0", ["levels", "other"], "")]
    return UpgradeBody(level, 2, "2.0", ["levels"], possible, nodes, mounts)


BLOCKED, POSSIBLE, RAISED = upgrade(1, obstacle="is old: update it"), upgrade(1, possible=True), upgrade(2)
ASKED: Asked = [("/cluster/upgrade", {})]


def test_upgrade_status_tells_who_runs_what_and_who_is_in_the_way(run: Run, script: Script) -> None:
    script(BLOCKED)
    assert run("upgrade", "status").out.splitlines() == [
        "the cluster has level 1, the namenode (DFS 2.0) knows up to 2",
        "WHO                                       VERSION FEATURES     STATE",
        "datanode 3f2a0000 (http://10.0.0.7:8181/) -       -            alive",
        "mount host:/mnt                           2.0     levels,other connected",
        "not possible yet:",
        "  datanode 3f2a0000 (http://10.0.0.7:8181/) is old: update it",
    ]
    script(POSSIBLE)
    assert run("upgrade", "status").out.splitlines()[-1] == "possible now: dfs upgrade finalize"
    script(RAISED)
    assert run("upgrade", "status").out.splitlines()[-1] == "nothing is to be finalized"
    found = run("upgrade", "status", "--json").json
    assert (found["level"], found["nodes"][0]["id"], found["mounts"][0]["features"]) == (2, NODE, ["levels", "other"])


def test_upgrade_finalize_asks_and_tells(run: Run, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = script(POSSIBLE, RAISED)
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    result = run("upgrade", "finalize")
    assert (result.status, asked) == (1, ASKED)
    assert "no way back" in result.err
    script(POSSIBLE, RAISED)
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    result = run("upgrade", "finalize")
    assert (result.status, asked) == (0, ASKED * 3)
    assert "raised from level 1" in result.out


def test_upgrade_finalize_does_not_ask_where_nobody_is(
    run: Run, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    asked = script(POSSIBLE, RAISED)
    result = run("upgrade", "finalize")
    assert (result.status, result.err.count("\n"), asked) == (2, 1, [])
    assert run("upgrade", "finalize", "--yes", "--json").json["level"] == 2
    assert asked == ASKED * 2


def test_upgrade_finalize_is_refused_in_one_line_that_names_them(run: Run, script: Script) -> None:
    asked = script(BLOCKED)
    result = run("upgrade", "finalize", "--yes")
    told = "dfs: the cluster stays at level 1: datanode 3f2a0000 (http://10.0.0.7:8181/) is old: update it\n"
    assert (result.status, result.err, asked) == (1, told, ASKED)
    script(POSSIBLE, InvalidArgument("the cluster stays at level 1: somebody came meanwhile"))
    result = run("upgrade", "finalize", "--yes")
    assert (result.status, result.err) == (1, "dfs: the cluster stays at level 1: somebody came meanwhile\n")


def test_upgrade_finalize_says_so_where_nothing_is_left(run: Run, script: Script) -> None:
    script(RAISED)
    result = run("upgrade", "finalize", "--yes")
    assert (result.status, result.out.splitlines()[0]) == (0, "there is nothing left to finalize")
    assert result.out.count("finalize") == 1


def test_status_tells_that_an_upgrade_is_to_be_finalized(run: Run, script: Script) -> None:
    outstanding = structs.replace(body(node()), level=1, newest_level=2)
    script(outstanding)
    assert "upgrade: to be finalized: level 1 of 2" in run("status").out
    assert run("status", "--json").json["newest_level"] == 2
    script(structs.replace(outstanding, level=2))
    assert "finalize" not in run("status").out


def test_status_of_a_namenode_that_waits_claims_nothing_of_a_cluster(run: Run, script: Script) -> None:
    waiting = MetadataBody("waiting", "1 new datanode came, others may be on their way")
    script(structs.replace(body(), cluster_id="", metadata=waiting, level=1, newest_level=2))
    out = run("status").out
    assert out.startswith("no cluster yet, up 5 s, ")
    assert "upgrade" not in out
