"""A datanode's life with its namenode: join, report, heartbeat, orders, outages, strangers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from data_node import DataNode
from dfslib.config import ConfigError
from dfslib.datanode import registration
from dfslib.datanode.node import Settings, advertised_url
from dfslib.errors import Fenced, ForeignVolume, Unavailable, UnknownNode
from dfslib.model import BlockId
from dfslib.wire import features, routes
from dfslib.wire.messages import CopyOrder
from dfslib.wire.positions import Position
from tests.unit.datanode.fake_cluster import Cluster, block_file_bytes, cluster, datanode_env, listening


@contextlib.asynccontextmanager
async def running(node: DataNode) -> AsyncIterator[None]:
    task = asyncio.create_task(node.run_while_serving())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def health(c: Cluster) -> int:
    async with c.http.get(c.urls[0] + routes.HEALTHZ) as response:
        return response.status


def test_join_report_heartbeat_leave(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as c:
            assert await health(c) == 503
            await c.put(7, b"seven")
            position = str(Position(3, 17, b"r" * 8, b"c" * 16))
            headers = {routes.HEADER_CRC32C: "00000000", routes.HEADER_POSITION: position}
            async with c.http.put(f"{c.urls[0]}/metadata/empty", data=b"", headers=headers) as response:
                assert response.status == 201
            async with running(c.nodes[0]):
                await c.namenode.until(lambda: len(c.namenode.heartbeats) >= 2)
                assert await health(c) == 200
            await c.nodes[0].before_stop()
            (join,) = c.namenode.joins
            report = c.namenode.reports[0]
            identity = json.loads((c.roots[0] / "identity.json").read_text())
            assert (join.node_id, join.cluster_id, join.protocol) == (identity["node_id"], "", 1)
            assert identity["cluster_id"] == "c1"
            assert (join.url, join.public_url, join.port) == ("http://127.0.0.1:8181/", "", 8181)
            assert join.position == c.namenode.heartbeats[0].position == position
            assert (report.after, report.blocks, report.last) == (0, [7], True)
            assert [beat.leaving for beat in c.namenode.heartbeats].index(True) == len(c.namenode.heartbeats) - 1
            beat = c.namenode.heartbeats[0]
            assert (beat.blocks, beat.used) == (1, c.path(7).stat().st_size)
            assert 0 < beat.free < beat.capacity

    asyncio.run(main())


def test_ready_once_the_cluster_was_whole_and_from_then_on(tmp_path: Path) -> None:
    async def ready(c: Cluster) -> int:
        async with c.http.get(f"{c.urls[0]}{routes.HEALTHZ}?{routes.READY}") as response:
            return response.status

    async def main() -> None:
        async with cluster(tmp_path) as c:
            c.namenode.whole = False
            assert await ready(c) == 503
            async with running(c.nodes[0]):
                await c.namenode.until(lambda: len(c.namenode.heartbeats) >= 2)
                assert (await health(c), await ready(c)) == (200, 503)
                c.namenode.whole = True
                await c.namenode.until(lambda: c.namenode.heartbeats[-1].ready)
                c.namenode.whole = False
                seen = len(c.namenode.heartbeats)
                await c.namenode.until(lambda: len(c.namenode.heartbeats) >= seen + 2)
                assert await ready(c) == 200
                assert c.namenode.heartbeats[-1].ready

    asyncio.run(main())


def test_an_empty_node_reports_one_page(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as c, running(c.nodes[0]):
            await c.namenode.until(lambda: c.namenode.heartbeats)
            report = c.namenode.reports[0]
            assert (report.after, report.blocks, report.last) == (0, [], True)

    asyncio.run(main())


def test_pages_and_what_is_to_be_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "REPORT_PAGE", 3)

    async def main() -> None:
        async with cluster(tmp_path) as c:
            for n in range(1, 8):
                await c.put(n << 40, b"x")
            c.namenode.delete_in_report = [1 << 40, 12345]
            c.namenode.delete_in_heartbeat = [2 << 40]
            async with running(c.nodes[0]):
                await c.namenode.until(lambda: c.namenode.heartbeats and c.namenode.heartbeats[-1].blocks == 5)
            pages = [(r.after >> 40, [b >> 40 for b in r.blocks], r.last) for r in c.namenode.reports]
            assert pages == [(0, [1, 2, 3], False), (3, [4, 5, 6], False), (6, [7], True)]

    asyncio.run(main())


def test_a_deletion_that_waits_is_not_done_after_the_block_was_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The namenode counts on what it is told: it orders the deletion again, if that is still wanted."""

    async def main() -> None:
        async with cluster(tmp_path) as c:
            await c.put(1, b"x")
            async with running(c.nodes[0]):
                monkeypatch.setattr(registration, "_DELETE_S", 0.0)
                c.namenode.delete_in_heartbeat = [1]
                await c.namenode.until(lambda: c.namenode.heartbeats and not c.namenode.delete_in_heartbeat)
                c.namenode.heartbeat_errors = [UnknownNode()]
                await c.namenode.until(lambda: len(c.namenode.reports) == 2)
                assert c.namenode.reports[-1].blocks == [1]
                monkeypatch.setattr(registration, "_DELETE_S", 1.0)
                await beats(c, 3)
                assert c.path(1).exists()

    asyncio.run(main())


def test_a_deletion_that_waits_is_not_done_after_a_copy_was_ordered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as c:
            await c.put(1, b"x")
            async with running(c.nodes[0]):
                monkeypatch.setattr(registration, "_DELETE_S", 0.0)
                c.namenode.delete_in_heartbeat = [1]
                await c.namenode.until(lambda: c.namenode.heartbeats and not c.namenode.delete_in_heartbeat)
                c.namenode.copy_in_heartbeat = [CopyOrder(1, 1, [])]
                await c.namenode.until(lambda: any(beat.copied == [1] for beat in c.namenode.heartbeats))
                monkeypatch.setattr(registration, "_DELETE_S", 1.0)
                await beats(c, 3)
                assert c.path(1).exists()

    asyncio.run(main())


async def beats(c: Cluster, count: int) -> None:
    """Wait for so many more heartbeats."""
    seen = len(c.namenode.heartbeats)
    await c.namenode.until(lambda: len(c.namenode.heartbeats) >= seen + count)


def test_unknown_means_join_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as c:
            c.namenode.heartbeat_errors = [UnknownNode(), Unavailable()]
            async with running(c.nodes[0]):
                await c.namenode.until(lambda: len(c.namenode.joins) == 3 and len(c.namenode.reports) == 3)
                assert await health(c) == 200
            assert [join.cluster_id for join in c.namenode.joins] == ["", "c1", "c1"]

    asyncio.run(main())


def test_waiting_for_the_namenode_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as c:
            c.namenode.join_error = Unavailable("starting")
            with caplog.at_level("INFO"):
                async with running(c.nodes[0]):
                    await c.namenode.until(lambda: len(c.namenode.joins) >= 4)
                    assert await health(c) == 503
                    await c.put(1, b"served all the same")
                    c.namenode.join_error = None
                    await c.namenode.until(lambda: c.namenode.heartbeats)

    asyncio.run(main())
    lines = [record.getMessage() for record in caplog.records if record.name == "dfs.registration"]
    assert [line.split(" ")[0] for line in lines] == ["waiting", "joined"]


def test_a_namenode_that_is_not_there(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as c:
            node = DataNode.from_env(datanode_env(tmp_path / "alone", "http://127.0.0.1:1"))
            async with listening(node.app()) as url, running(node):
                async with c.http.put(url + routes.block(BlockId(1)), data=b"x") as response:
                    assert response.status == 201
                async with c.http.get(url + routes.block(BlockId(1))) as response:
                    assert await response.read() == b"x"
                async with c.http.get(url + routes.block(BlockId(2))) as response:
                    assert response.status == 503
                await node.before_stop()

    asyncio.run(main())


def test_another_cluster_is_fatal(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as c:
            async with running(c.nodes[0]):
                await c.namenode.until(lambda: c.namenode.heartbeats)
            c.namenode.cluster_id = "c2"
            with pytest.raises(ForeignVolume):
                await c.nodes[0].run_while_serving()
            c.namenode.join_error = ForeignVolume("not yours")
            with pytest.raises(ForeignVolume, match="not yours"):
                await c.nodes[0].run_while_serving()

    asyncio.run(main())


def test_every_message_says_which_process_it_is(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as c:
            c.namenode.heartbeat_errors = [UnknownNode()]
            async with running(c.nodes[0]):
                await c.namenode.until(lambda: len(c.namenode.joins) == 2 and len(c.namenode.heartbeats) >= 3)
            noted = json.loads((c.roots[0] / "incarnation.json").read_text())
            assert noted["starts"] == 1
            first = c.namenode.joins[0]
            assert (first.incarnation, first.starts, first.ancestors) == (noted["names"][0], 1, [])
            told: list[Any] = [*c.namenode.joins, *c.namenode.reports, *c.namenode.heartbeats]
            assert {message.incarnation for message in told} == {first.incarnation}

    asyncio.run(main())


def test_a_process_that_is_refused_ends(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as c:
            c.namenode.heartbeat_errors = [Fenced("started anew elsewhere")]
            with pytest.raises(Fenced, match="started anew elsewhere"):
                await c.nodes[0].run_while_serving()
            assert await health(c) == 503
            c.namenode.join_error = Fenced("another copy")
            with pytest.raises(Fenced, match="another copy"):
                await c.nodes[0].run_while_serving()

    asyncio.run(main())


def test_a_namenode_that_is_out_of_date_is_not_followed(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as c:
            c.namenode.epoch = 2
            async with running(c.nodes[0]):
                await c.namenode.until(lambda: c.namenode.heartbeats)
                c.namenode.epoch = 1
                c.namenode.heartbeat_errors = [UnknownNode()]
                joined = len(c.namenode.joins)
                await c.namenode.until(lambda: len(c.namenode.joins) > joined)
                before = len(c.namenode.reports)
                await c.namenode.until(lambda: len(c.namenode.joins) > joined + 2)
                assert {join.epoch for join in c.namenode.joins[joined:]} == {2}
                assert len(c.namenode.reports) == before
                beats = len(c.namenode.heartbeats)
                c.namenode.epoch = 3
                await c.namenode.until(lambda: len(c.namenode.heartbeats) > beats)
            assert json.loads((c.roots[0] / "identity.json").read_text())["epoch"] == 3

    asyncio.run(main())


def test_a_bad_block_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as c:
            await c.put(1, b"good")
            await c.put(2, b"bad!")
            async with running(c.nodes[0]):
                await c.namenode.until(lambda: c.namenode.heartbeats)
                assert c.namenode.reports[-1].blocks == [1, 2]
                c.path(2).write_bytes(block_file_bytes(2, b"bad!").replace(b"bad", b"Bad"))
                async with c.http.get(c.urls[0] + routes.block(BlockId(2))) as response:
                    assert response.status == 500
                await c.namenode.until(
                    lambda: any(beat.bad == [2] for beat in c.namenode.heartbeats)
                    or c.namenode.reports[-1].blocks == [1]  # the scrubber has ended, and all blocks are told again
                )

    asyncio.run(main())


def test_a_volume_in_use_stops_the_start(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as c:
            node = DataNode.from_env(datanode_env(c.roots[0], c.namenode.url))
            with pytest.raises(ForeignVolume, match="in use"):
                async with listening(node.app()):
                    pass

    asyncio.run(main())


def test_settings(tmp_path: Path) -> None:
    env = datanode_env(tmp_path, "http://nn", DFS_PUBLIC_URL="https://files.example/dfs", DFS_RESERVED_SPACE="1G")
    settings = Settings.from_env(env)
    assert settings.addresses.public_url == "https://files.example/dfs/"
    assert (settings.namenode_url, settings.reserved_bytes) == ("http://nn/", 1 << 30)
    for missing in ("DFS_FS_ROOT", "DFS_NAMENODE_URL"):
        with pytest.raises(ConfigError, match=missing):
            DataNode.from_env(env | {missing: ""})


@pytest.mark.parametrize(
    ("advertise", "host", "url"),
    [
        (None, "0.0.0.0", ""),
        (None, "::", ""),
        (None, "localhost", "http://localhost:81/"),
        ("dn1", "0.0.0.0", "http://dn1:81/"),
        (None, "fe80::1", "http://[fe80::1]:81/"),
        ("[fe80::1]", "::", "http://[fe80::1]:81/"),
    ],
)
def test_advertised_url(advertise: str | None, host: str, url: str) -> None:
    assert advertised_url(advertise, host, 81) == url


def format_of(c: Cluster) -> int:
    return int(json.loads((c.roots[0] / "identity.json").read_text())["format"])


def test_it_names_its_features_and_the_level_that_it_has_met(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as c:
            async with running(c.nodes[0]):
                await c.namenode.until(lambda: c.namenode.heartbeats)
                assert format_of(c) == 1
                c.namenode.level = 2
                seen = len(c.namenode.heartbeats)
                await c.namenode.until(lambda: len(c.namenode.heartbeats) >= seen + 2)
                assert format_of(c) == 2, "told with a heartbeat"
                c.namenode.heartbeat_errors = [UnknownNode("join again")]
                await c.namenode.until(lambda: len(c.namenode.joins) >= 2)
            assert [join.protocol for join in c.namenode.joins[:2]] == [1, 2]
            assert c.namenode.joins[0].features == features.named(features.Role.DATANODE)
            assert c.namenode.joins[0].version == features.VERSION

    asyncio.run(main())


@pytest.mark.parametrize("level", [features.NEWEST_LEVEL + 1, 1])
def test_a_namenode_of_a_level_that_is_not_known_or_past_is_not_joined(tmp_path: Path, level: int) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as c:
            c.namenode.level = 2
            async with running(c.nodes[0]):
                await c.namenode.until(lambda: c.namenode.heartbeats)
            seen = len(c.namenode.heartbeats)
            c.namenode.level = level
            async with running(c.nodes[0]):
                joins = len(c.namenode.joins)
                await c.namenode.until(lambda: len(c.namenode.joins) >= joins + 3)
            assert (format_of(c), len(c.namenode.heartbeats), len(c.namenode.reports)) == (2, seen, 1)

    asyncio.run(main())
