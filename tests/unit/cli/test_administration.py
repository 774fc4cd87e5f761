"""drain, forget, restore, release and status against a namenode whose answers the test writes."""

from __future__ import annotations

import io
import sys

import pytest

from dfslib.errors import InvalidArgument, NotFound
from dfslib.wire.messages import ClusterBody, MetadataBody, NodeBody, RepairBody, encode, encode_error

NODE = "3f2a0000-1111"


def node(**fields):
    return NodeBody(**{
        "id": NODE, "state": "alive", "url": "http://10.0.0.7:8181/", "public_url": "http://10.0.0.7:8181/",
        "capacity": 2048, "used": 0, "free": 2048, "blocks": 7, "last_seen": 0.0, "writable": True, **fields,
    })  # fmt: skip


def body(*nodes, **fields):
    return ClusterBody("c", "0.1", 1, "all", 2, 5.0, 0, list(nodes), **fields)


@pytest.fixture
def script(cluster, monkeypatch):
    """`script(answer, ...)`: what the namenode answers one after the other, the last one from then on."""
    monkeypatch.setattr("dfslib.cli.drain._ASK_AGAIN_S", 0.0)
    reply = sys.modules["fake_server"].Reply
    asked = []

    def play(*answers):
        rest = list(answers)

        def administer(path, query):
            asked.append((path, dict(query)))
            answer = rest.pop(0) if len(rest) > 1 else rest[0]
            if isinstance(answer, ClusterBody):
                return reply(200, encode(answer))
            return reply(answer.http_status, encode_error(answer), {"Content-Type": "application/json"})

        cluster.administer = administer
        return asked

    return play


def draining(to_move):
    return body(node(state="draining", to_move=to_move))


def test_drain_tells_how_much_is_left(run, script):
    asked = script(draining(None), draining(None), draining(120))
    result = run("drain", "3f2a")
    assert result.status == 0
    expected = "3f2a0000 (http://10.0.0.7:8181/): 120 blocks left to move; to watch: dfs drain --wait 3f2a0000\n"
    assert result.out == expected
    assert asked[0] == ("/cluster/drain", {"node": b"3f2a"})


def test_drain_waits_until_it_is_safe(run, script):
    script(draining(None), draining(None), draining(2), draining(2), draining(1), draining(0))
    result = run("drain", "--wait", "http://10.0.0.7:8181")
    assert result.status == 0
    assert result.out.splitlines() == [
        "3f2a0000 (http://10.0.0.7:8181/): 2 blocks to move",
        "3f2a0000 (http://10.0.0.7:8181/): 1 block to move",
        "3f2a0000 (http://10.0.0.7:8181/): nothing left to move: safe to remove. Stop it, then: dfs forget 3f2a0000",
    ]


def test_drain_tells_when_nothing_can_be_copied(run, script, monkeypatch):
    monkeypatch.setattr("dfslib.cli.drain._IDLE_S", -1.0)
    script(*[draining(2)] * 5, draining(0))
    result = run("drain", "--wait", NODE)
    assert result.status == 0
    assert result.err == "dfs: nothing is being copied: too few other datanodes, or no room on them\n"
    assert result.out.count("2 blocks to move") == 1


def test_drain_that_ends_otherwise_is_an_error(run, script):
    script(draining(3), body(node()))
    assert run("drain", "--wait", NODE).err == "dfs: 3f2a0000: the drain was taken back meanwhile\n"
    script(draining(3), body())
    result = run("drain", "--wait", NODE)
    assert (result.status, result.err) == (1, "dfs: 3f2a0000: was forgotten meanwhile\n")


def test_drain_is_taken_back(run, script):
    asked = script(body(node()))
    assert run("drain", "3f2a", "--cancel").out == "3f2a0000 (http://10.0.0.7:8181/): no longer drained\n"
    assert asked == [("/cluster/drain", {"node": b"3f2a", "cancel": b"true"})]
    assert run("drain", "3f2a", "--cancel", "--wait").status == 2


def test_a_datanode_that_nobody_knows(run, script):
    script(NotFound("no datanode has this id or URL"))
    assert run("drain", "nonsense").err == "dfs: nonsense: no datanode has this id or URL\n"
    script(body(node()), NotFound("no datanode has this id or URL"))
    result = run("forget", "nonsense")
    assert (result.status, result.err) == (1, "dfs: nonsense: no datanode has this id or URL\n")


def test_forget(run, script):
    asked = script(body(node(state="dead")), body())
    assert run("forget", "3f2a").out == "3f2a0000 (http://10.0.0.7:8181/): forgotten\n"
    assert asked[1] == ("/cluster/forget", {"node": NODE.encode()})
    script(body(node()), InvalidArgument("only a datanode that is gone can be forgotten: stop it first"))
    result = run("forget", "3f2a")
    assert result.status == 1
    assert result.err == f"dfs: {NODE}: only a datanode that is gone can be forgotten: stop it first\n"


def test_release(run, script):
    asked = script(body(metadata=MetadataBody()))
    result = run("release")
    assert (result.status, asked) == (0, [("/cluster/release", {})])
    assert result.out.startswith("released: ")


WAITING = body(node(), metadata=MetadataBody("waiting", "for dfs restore: data2 has the metadata up to noon"))
RESTORED = body(node(), metadata=MetadataBody(restored_until=1.0, held=True))


def test_restore_asks_and_tells(run, script, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

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


def test_restore_does_not_ask_where_nobody_is(run, script, monkeypatch):
    asked = script(WAITING, RESTORED)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    result = run("restore")
    assert (result.status, result.err.count("\n"), asked) == (2, 1, [])
    assert run("restore", "--yes").status == 0
    assert asked[-1] == ("/cluster/restore", {})


def test_restore_is_refused_in_the_namenodes_words(run, script):
    script(body(node()), InvalidArgument("there are files: only an empty namenode is restored"))
    result = run("restore", "--yes")
    assert (result.status, result.err) == (1, "dfs: there are files: only an empty namenode is restored\n")


def test_status_as_json_is_complete(run, script):
    script(body(node(slow=True, to_move=4), repair=RepairBody(1, 2, 3, 4, 5), metadata=MetadataBody(held=True)))
    found = run("status", "--json").json
    assert (found["nodes"][0]["slow"], found["nodes"][0]["to_move"]) == (True, 4)
    assert found["repair"] == {"short": 1, "lost": 2, "waiting": 3, "running": 4, "done": 5}
    assert found["metadata"]["held"] is True
    assert set(found["metadata"]) == {"state", "detail", "copied_until", "restored_until", "held"}
    assert "repair: 1 block short of copies, 2 lost" in run("status").out
