"""What mount(8) hands to its helper: sources, options, and the exit statuses for what makes no sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfslib.cli import mount, mount_helper
from dfslib.config import DEFAULT_PORT
from dfslib.mount.mount_options import (
    DEFAULT,
    KERNEL_OPTIONS,
    MS_NOATIME,
    MS_NODEV,
    MS_NOEXEC,
    MS_RDONLY,
    MS_RELATIME,
    flags_of,
)


@pytest.mark.parametrize(
    ("source", "host", "port"),
    [
        ("name", "name", DEFAULT_PORT), ("name:9000", "name", 9000), ("[::1]:9000", "::1", 9000),
        ("[::1]", "::1", DEFAULT_PORT), ("::1", "::1", DEFAULT_PORT), ("10.0.0.1:1", "10.0.0.1", 1),
        ("http://name:9000/", "http://name:9000/", DEFAULT_PORT),
    ],
)  # fmt: skip
def test_sources(source: str, host: str, port: int) -> None:
    assert mount_helper.parse_source(source) == (host, port, "/")
    if "://" not in source:
        assert mount_helper.parse_source(source + "/") == (host, port, "/")
        assert mount_helper.parse_source(source + "/a//./b c/") == (host, port, "/a/b c")


@pytest.mark.parametrize(
    "source", ["", ":1", "[::1", "[::1]9", "name:", "name:0", "name:65536", "name:x", "name:1/a/../b", "[]:1", "/sub"]
)
def test_what_is_no_source(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert mount_helper.run([source, "/mnt", "-o", "rw"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("option", ["nosuch", "uid=x", "cache=1", "roo", "ro=1", "timeout=", "nosuch=1"])
def test_options_that_are_none_are_named(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert mount_helper.run(["name:1", "/mnt", "-f", "-o", f"rw,{option}"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("mount.dfs: ")
    assert option in said
    assert said.count("\n") == 1


def test_the_usual_options_are_known() -> None:
    usual = [
        "defaults", "_netdev", "auto", "noauto", "user", "users", "nofail", "nonempty", "default_permissions",
        "x-systemd.automount", "x-systemd.requires=network-online.target", "x-mount.mkdir", "comment=a", "allow_other",
        "uid=1", "gid=2", "cache=32", "timeout=5", *KERNEL_OPTIONS,
    ]  # fmt: skip
    for option in usual:
        assert mount_helper.run(["name:1", "/mnt", "-fnv", "-o", option]) == 0, option
    assert mount_helper.run(["name:1", "/mnt", "-sf", "-o", "nosuch,ro"]) == 0


def test_the_later_option_counts() -> None:
    assert flags_of([]) == DEFAULT
    assert flags_of(["ro", "rw", "suid", "noexec", "noatime", "relatime"]) == MS_NODEV | MS_NOEXEC | MS_RELATIME
    assert flags_of(["relatime", "noatime", "ro"]) == DEFAULT | MS_NOATIME | MS_RDONLY


def test_the_form_without_a_helper_takes_them_too() -> None:
    args = mount.build_parser().parse_args(["-o", "noexec,x-systemd.automount,cache=32", "mnt", "name"])
    settings = mount.parse_settings(args)
    assert settings.kernel_options == ("noexec",)
    assert settings.mountpoint == Path("mnt").absolute()
