"""Sizes, quoting, columns and times, against what the GNU tools print; and what `up` would start."""

from __future__ import annotations

import calendar
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dfslib.cli.listing import when
from dfslib.cli.main import build_parser
from dfslib.cli.quoting import quote
from dfslib.cli.sizes import human, kibibytes, percent
from dfslib.cli.status import describe_metadata, describe_node, duration, lines
from dfslib.cli.tables import align, in_columns, width
from dfslib.cli.up import Plan, plan
from dfslib.client.results import ClusterStatus, DatanodeInfo, MetadataState, RepairProgress

GNU_LS = shutil.which("ls") is not None and b"GNU" in subprocess.run(
    ["ls", "--version"], capture_output=True, check=False
).stdout  # fmt: skip


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0"), (1023, "1023"), (1024, "1.0K"), (1025, "1.1K"), (10 * 1024, "10K"), (10 * 1024 + 1, "11K"),
        (1024**2 - 1, "1.0M"), (1024**2, "1.0M"), (1536 * 1024**2, "1.5G"), (1024**4, "1.0T"), (2**63, "8.0E"),
    ],
)  # fmt: skip
def test_human_sizes_are_rounded_up(size: int, text: str) -> None:
    assert human(size) == text


def test_other_sizes() -> None:
    assert [kibibytes(n) for n in (0, 1, 1024, 1025)] == ["0", "1", "1", "2"]
    assert [percent(*pair) for pair in ((0, 0), (0, 5), (1, 999), (5, 5), (5, 0))] == ["-", "0%", "1%", "50%", "100%"]
    assert [duration(s) for s in (0.4, 119, 120, 7300, 200_000, -1)] == ["0 s", "119 s", "2 min", "2 h", "2 d", "0 s"]


NAMES = ["plain", "a b", "it's", 'say "it\'s"', "a\nb", "\n", "tab\tbell\a", "ü😀", "~x", "#x", "a#b", "x~", "$HOME",
         "a=b", "a,b", "-x", "[x]", "{x}", "a;b", "a!b", "\x01\x02x", "x\x7f", "a'\nb", "*", "{", "}", "]", "^", "%",
         "+:@", "<", "a|b", "(", "`"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_what_is_quoted_is_read_back_by_the_shell(name: str) -> None:
    shell = subprocess.run(["bash", "-c", f"printf %s {quote(name)}"], capture_output=True, check=True)
    assert shell.stdout == name.encode()
    assert quote(name).isprintable()


@pytest.mark.skipif(not GNU_LS, reason="needs GNU ls")
@pytest.mark.parametrize("name", [name for name in NAMES if name.isascii()])
def test_names_are_quoted_as_gnu_ls_does(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    listed = subprocess.run(
        ["ls", "--quoting-style=shell-escape", str(tmp_path)], capture_output=True, check=True, env={"LC_ALL": "C"}
    )
    assert quote(name) == listed.stdout.decode().removesuffix("\n")


def test_invalid_utf8_is_shown_as_bytes() -> None:
    assert quote("a\udcff\udcfe") == "'a'$'\\377\\376'"


def test_times_as_ls_shows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    now = float(calendar.timegm((2026, 7, 1, 12, 0, 0)))

    def shown(seconds: float) -> str:
        return when(int(seconds) * 10**9, now)

    assert shown(now) == "Jul  1 12:00"
    assert shown(now - 86400) == "Jun 30 12:00"
    assert shown(now + 60) == "Jul  1  2026"
    assert shown(0) == "Jan  1  1970"
    assert shown(-86400) == "Dec 31  1969"


def test_columns() -> None:
    assert align([["a", "1", "x"], ["bcd", "22", "y"]], "lr") == ["a    1 x", "bcd 22 y"]
    assert align([], "l") == []
    assert in_columns(["aa", "b", "c"], 80) == ["aa  b  c"]
    assert in_columns(["aa", "b", "c"], 6) == ["aa  c", "b"]
    assert in_columns(["long", "b"], 1) == ["long", "b"]
    assert [width(text) for text in ("a", "ü", "漢字", "e\u0301")] == [1, 1, 4, 1]


NODE = DatanodeInfo("abcdef0123456789", "alive", "http://x:1/", "http://x:1/", 2048, 1024, 1024, 7, 90.0, False)
STATUS = ClusterStatus("c", "0.1", 1, "all", 2, 5.0, 3, (NODE,), RepairProgress(5, 1, 4, 2, 9))


def test_status_lines() -> None:
    head, repair, metadata, columns, row = lines(STATUS, 100.0)
    assert "1 of 1 datanodes alive" in head
    assert repair == "repair: 5 blocks short of copies, 1 lost; copies: 4 waiting, 2 running, 9 done"
    assert metadata == "metadata: no copy on the datanodes yet"
    assert columns.startswith("DATANODE STATE")
    assert row.split() == [
        "abcdef01",
        "alive,",
        "full",
        "http://x:1/",
        "2.0K",
        "1.0K",
        "1.0K",
        "50%",
        "7",
        "10",
        "s",
        "ago",
    ]


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (replace(NODE, writable=True), "alive"),
        (replace(NODE, slow=True), "alive, slow"),
        (replace(NODE, state="draining"), "draining"),
        (replace(NODE, state="draining", to_move=120), "draining, 120 blocks to move"),
        (replace(NODE, state="draining", to_move=1, slow=True), "draining, 1 block to move, slow"),
        (replace(NODE, state="draining", to_move=0), "draining, safe to remove"),
        (replace(NODE, state="dead", to_move=3), "dead, 3 blocks to move"),
    ],
)
def test_the_state_of_a_datanode(node: DatanodeInfo, text: str) -> None:
    assert describe_node(node) == text


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        (MetadataState(), ["metadata: no copy on the datanodes yet"]),
        (MetadataState("waiting", "for 2 of 3 datanodes"), ["metadata: waiting: for 2 of 3 datanodes"]),
        (MetadataState("restoring"), ["metadata: restoring"]),
        (
            MetadataState(copied_until=86400.0),
            ["metadata: copied to the datanodes until 1970-01-02 00:00:00 (100 s ago)"],
        ),
        (
            MetadataState(copied_until=86500.0, restored_until=3600.0, held=True),
            [
                "metadata: copied to the datanodes until 1970-01-02 00:01:40 (0 s ago)",
                "metadata: restored to 1970-01-01 01:00:00; later changes are missing",
                "metadata: nothing is deleted from the datanodes until `dfs release`",
            ],
        ),
    ],
)
def test_the_state_of_the_metadata(metadata: MetadataState, text: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert describe_metadata(metadata, 86500.0) == text


def plans(*arguments: str) -> list[Plan]:
    return plan(build_parser().parse_args(["up", *arguments]))


def test_up_starts_what_it_is_told() -> None:
    namenode, first, second = plans("--datanodes", "2", "--data", "/x", "--port", "9000", "--replication", "2")
    assert (namenode.name, first.name, second.name) == ("namenode", "data1", "data2")
    assert (namenode.port, first.port, second.port) == (9000, 9001, 9002)
    assert namenode.variables == {
        "DFS_NODE_CLASS": "name_node.NameNode",
        "DFS_HOST": "127.0.0.1",
        "DFS_PORT": "9000",
        "DFS_DB_PATH": "/x/namenode",
        "DFS_REPLICATION": "2",
        "DFS_NEW_CLUSTER": "true",
    }
    assert second.variables == {
        "DFS_NODE_CLASS": "data_node.DataNode",
        "DFS_HOST": "127.0.0.1",
        "DFS_PORT": "9002",
        "DFS_FS_ROOT": "/x/data2",
        "DFS_NAMENODE_URL": "http://127.0.0.1:9000/",
        "DFS_ADVERTISE_HOST": "127.0.0.1",
    }


def test_up_on_all_addresses_tells_clients_one_that_they_can_reach() -> None:
    _, datanode = plans("--datanodes", "1", "--host", "0.0.0.0", "--public-host", "files.example.org")
    assert datanode.variables["DFS_PUBLIC_URL"] == "http://files.example.org:8181/"
    assert datanode.variables["DFS_NAMENODE_URL"] == "http://127.0.0.1:8180/"
    _, datanode = plans("--datanodes", "1", "--host", "::1")
    assert datanode.variables["DFS_NAMENODE_URL"] == "http://[::1]:8180/"


@pytest.mark.parametrize("left", ["namenode", "data1", "data12"])
def test_up_calls_a_cluster_new_only_where_there_is_no_state_at_all(tmp_path: Path, left: str) -> None:
    namenode = plans("--data", str(tmp_path))[0]
    assert namenode.variables["DFS_NEW_CLUSTER"] == "true"
    (tmp_path / left).mkdir()
    namenode = plans("--data", str(tmp_path))[0]
    assert "DFS_NEW_CLUSTER" not in namenode.variables
