"""The volume plugin as Docker talks to it: JSON over a unix socket, and real mounts behind it."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dfslib.client.namenode import HttpNameNode
from tests.cluster.real_cluster import ROOT, Cluster, MakeCluster, wait_until
from tests.deadline import DEADLINE_S
from tests.mount.real_mount import run

SWAP = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
while True:
    if libc.renameat2(-100, f"{sys.argv[1]}/v".encode(), -100, f"{sys.argv[1]}/link".encode(), 2):
        sys.exit(ctypes.get_errno())
"""


class Plugin:
    """A `dfs.py volume-plugin` process with its state in a folder."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.socket = folder / "dfs.sock"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def mountpoint(self) -> Path:
        return self.folder / "state" / "mnt"

    @property
    def mounted(self) -> bool:
        return f" {self.mountpoint} " in Path("/proc/self/mountinfo").read_text()

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, str(ROOT / "dfs.py"), "--url", self.url, "volume-plugin",
                    "--socket", str(self.socket), "--folder", str(self.folder / "state"), "-o", "timeout=3",
                ],
                stderr=log,
            )  # fmt: skip
        wait_until(lambda: self.answers(), "the plugin answers")

    def answers(self) -> bool:
        try:
            implemented: list[str] = self("Plugin.Activate")["Implements"]
        except OSError:
            return False
        return implemented == ["VolumeDriver"]

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    def __call__(self, method: str, **request: Any) -> dict[str, Any]:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.settimeout(60)
            connection.sock.connect(str(self.socket))
            connection.request("POST", f"/{method}", body=json.dumps(request))
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer
        finally:
            connection.close()

    def driver(self, method: str, **request: Any) -> dict[str, Any]:
        answer = self(f"VolumeDriver.{method}", **request)
        assert answer["Err"] == ""
        return answer


@pytest.fixture
def make_plugin(tmp_path: Path) -> Iterator[Callable[[str], Plugin]]:
    made: list[Plugin] = []

    def make(url: str) -> Plugin:
        made.append(Plugin(url, tmp_path))
        made[-1].start()
        return made[-1]

    yield make
    for plugin in made:
        if plugin.process is not None and plugin.process.poll() is None:
            plugin.end(signal.SIGTERM)
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            if line.split(" ")[4].startswith(f"{plugin.folder}/"):
                run(["umount", "-l", line.split(" ")[4]])


def test_volumes_are_directories_of_the_tree(cluster: Cluster, make_plugin: Callable[[str], Plugin]) -> None:
    plugin = make_plugin(cluster.url)
    plugin.driver("Create", Name="web", Opts={"subdir": "/projects"})
    plugin.driver("Create", Name="web", Opts={"subdir": "/projects/"})
    plugin.driver("Create", Name="plain", Opts=None)
    assert "web is /projects" in plugin("VolumeDriver.Create", Name="web", Opts={"subdir": "/other"})["Err"]
    assert plugin.driver("Get", Name="web")["Volume"]["Status"] == {"subdir": "/projects", "users": 0}
    assert not plugin.mounted
    web = Path(plugin.driver("Mount", Name="web", ID="one")["Mountpoint"])
    assert plugin.driver("Mount", Name="web", ID="two")["Mountpoint"] == str(web)
    plain = Path(plugin.driver("Mount", Name="plain", ID="three")["Mountpoint"])
    run(f"echo shared > {web}/f; echo own > {plain}/g")
    listed = run([sys.executable, str(ROOT / "dfs.py"), "--url", cluster.url, "ls", "/projects", "/volumes/plain"])
    assert "f" in listed.split()
    assert "g" in listed.split()
    assert "in use" in plugin("VolumeDriver.Remove", Name="web")["Err"]
    plugin.driver("Unmount", Name="web", ID="one")
    plugin.driver("Unmount", Name="plain", ID="three")
    assert run(f"cat {web}/f") == "shared\n"
    plugin.driver("Unmount", Name="web", ID="two")
    assert not plugin.mounted
    plugin.driver("Remove", Name="web")
    assert [volume["Name"] for volume in plugin.driver("List")["Volumes"]] == ["plain"]
    assert "no volume" in plugin("VolumeDriver.Mount", Name="web", ID="x")["Err"]


def test_bad_requests_change_nothing(cluster: Cluster, make_plugin: Callable[[str], Plugin]) -> None:
    plugin = make_plugin(cluster.url)
    for name, options in (
        ("", {}), ("a/b", {}), ("..", {}), ("v", {"subdir": "relative"}), ("v", {"subdir": "/a/../b"}),
        ("v", {"size": "1"}),
    ):  # fmt: skip
        assert plugin("VolumeDriver.Create", Name=name, Opts=options)["Err"]
    assert plugin("VolumeDriver.Create", Name=5)["Err"]
    assert plugin.driver("List")["Volumes"] == []
    assert plugin.driver("Capabilities")["Capabilities"] == {"Scope": "global"}


def test_containers_go_on_while_the_plugin_is_restarted(cluster: Cluster, make_plugin: Callable[[str], Plugin]) -> None:
    plugin = make_plugin(cluster.url)
    plugin.driver("Create", Name="v", Opts={})
    place = Path(plugin.driver("Mount", Name="v", ID="one")["Mountpoint"])
    for number in (signal.SIGTERM, signal.SIGKILL):
        plugin.end(number)
        run(f"echo {number} > {place}/f; cat {place}/f")
        plugin.start()
        assert plugin.driver("Path", Name="v")["Mountpoint"] == str(place)
    plugin.driver("Unmount", Name="v", ID="one")
    assert not plugin.mounted


def test_nothing_is_handed_out_while_the_cluster_is_away(
    make_cluster: MakeCluster, make_plugin: Callable[[str], Plugin]
) -> None:
    cluster = make_cluster(1)
    plugin = make_plugin(cluster.url)
    plugin.driver("Create", Name="v", Opts={})
    cluster.namenode.kill()
    assert plugin("VolumeDriver.Mount", Name="v", ID="one")["Err"]
    assert plugin.driver("Get", Name="v")["Volume"]["Status"]["users"] == 0
    assert list(plugin.mountpoint.iterdir()) == []
    cluster.namenode.start()
    cluster.wait_alive()
    place = Path(plugin.driver("Mount", Name="v", ID="one")["Mountpoint"])
    run(f"echo x > {place}/f")
    cluster.namenode.kill()
    assert plugin("VolumeDriver.Mount", Name="v", ID="two")["Err"]
    cluster.namenode.start()
    cluster.wait_alive()
    wait_until(lambda: not plugin("VolumeDriver.Mount", Name="v", ID="two")["Err"], "it is handed out again")


def test_no_symbolic_link_of_the_tree_leads_a_volume_to_the_host(
    cluster: Cluster, make_plugin: Callable[[str], Plugin], tmp_path: Path
) -> None:
    host = tmp_path / "host"
    host.mkdir()
    plugin = make_plugin(cluster.url)
    with HttpNameNode(cluster.url) as tree:
        tree.mkdir("/volumes/real/sub", parents=True)
        for name, target in (("absolute", host), ("relative", "../../../../.." + str(host)), ("within", "real")):
            tree.symlink(str(target), f"/volumes/{name}")
        for subdir in ("absolute", "relative", "within", "absolute/made", "within/sub"):
            plugin.driver("Create", Name=subdir.replace("/", "-"), Opts={"subdir": f"/volumes/{subdir}"})
            assert "is a symbolic link" in plugin("VolumeDriver.Mount", Name=subdir.replace("/", "-"), ID="x")["Err"]
    assert list(host.iterdir()) == []
    assert not [line for line in mounts_below(plugin.folder) if not line.endswith("/mnt")]
    assert {volume["Status"]["users"] for volume in plugin.driver("List")["Volumes"]} == {0}


def test_a_volume_stays_the_directory_that_was_opened(
    cluster: Cluster, make_plugin: Callable[[str], Plugin], tmp_path: Path
) -> None:
    host = tmp_path / "host"
    host.mkdir()
    plugin = make_plugin(cluster.url)
    plugin.driver("Create", Name="kept", Opts={})
    place = Path(plugin.driver("Mount", Name="kept", ID="one")["Mountpoint"])
    with HttpNameNode(cluster.url) as tree:
        tree.mv("/volumes/kept", "/volumes/moved")
        tree.symlink(str(host), "/volumes/kept")
        run(f"echo here > {place}/f")
        assert tree.cat("/volumes/moved/f") == b"here\n"
        assert "is a symbolic link" in plugin("VolumeDriver.Mount", Name="kept", ID="two")["Err"]
        tree.rm("/volumes/kept")
        new = Path(plugin.driver("Mount", Name="kept", ID="two")["Mountpoint"])
        assert new != place
        assert plugin.driver("Mount", Name="kept", ID="three")["Mountpoint"] == str(new)
        run(f"echo new > {new}/g; echo old > {place}/h")
        assert [str(entry) for entry in tree.ls("/volumes/kept")] == ["g"]
        assert [str(entry) for entry in tree.ls("/volumes/moved")] == ["f", "h"]
    assert list(host.iterdir()) == []
    for user in ("one", "two", "three"):
        plugin.driver("Unmount", Name="kept", ID=user)
    assert mounts_below(plugin.folder) == []


def test_a_link_that_comes_and_goes_leads_nowhere_either(
    cluster: Cluster, make_plugin: Callable[[str], Plugin], tmp_path: Path
) -> None:
    host = tmp_path / "host"
    host.mkdir()
    plugin = make_plugin(cluster.url)
    plugin.driver("Create", Name="v", Opts={"subdir": "/race/v/sub"})
    plugin.driver("Create", Name="holds", Opts={})
    plugin.driver("Mount", Name="holds", ID="one")
    with HttpNameNode(cluster.url) as tree:
        tree.mkdir("/race/v/sub", parents=True)
        tree.symlink(str(host), "/race/link")
    swapping = subprocess.Popen([sys.executable, "-c", SWAP, str(plugin.mountpoint / "race")])
    try:
        for _ in range(40):
            answer = plugin("VolumeDriver.Mount", Name="v", ID="x")
            if not answer["Err"]:
                assert run(["findmnt", "-n", "-o", "FSTYPE", "-M", answer["Mountpoint"]]) == "fuse.dfs\n"
                plugin.driver("Unmount", Name="v", ID="x")
        assert swapping.poll() is None
    finally:
        swapping.kill()
        swapping.wait(DEADLINE_S)
    assert list(host.iterdir()) == []


def mounts_below(folder: Path) -> list[str]:
    places = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [place for place in places if place.startswith(f"{folder}/")]
