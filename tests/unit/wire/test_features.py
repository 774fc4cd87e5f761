"""Features and levels: what a peer may say of itself, and what it lacks; peers that say nothing are of the first."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dfslib.errors import InvalidArgument
from dfslib.wire import features, messages, session
from dfslib.wire.features import FEATURES, NEWEST_LEVEL, OLDEST_LEVEL, Role, lacking, named

ROOT = Path(__file__).parents[3]
JOIN: dict[str, Any] = {
    "node_id": "n", "cluster_id": "", "protocol": 1, "port": 1, "url": "", "public_url": "", "capacity": 1, "used": 0,
    "free": 1, "blocks": 0,
}  # fmt: skip


def test_each_level_asks_for_something_and_the_first_for_nothing() -> None:
    assert {feature.level for feature in FEATURES} == set(range(OLDEST_LEVEL + 1, NEWEST_LEVEL + 1))
    for role in Role:
        assert lacking(role, [], OLDEST_LEVEL) == []
        assert lacking(role, [], NEWEST_LEVEL) == named(role) != []
        assert lacking(role, [*named(role), "something-later"], NEWEST_LEVEL) == []


def test_every_feature_is_documented_and_can_be_told() -> None:
    for text in (str(features.__doc__), (ROOT / "docs" / "protocol.md").read_text()):
        rows = [[cell.strip(" `") for cell in line.split("|")[1:4]] for line in text.splitlines()]
        for name, level, roles in FEATURES:
            assert [name, str(level), ", ".join(role for role in Role if role in roles)] in rows
    for role in Role:
        join = messages.decode(json.dumps(JOIN | {"features": named(role)}).encode(), messages.JoinRequest)
        assert join.features == named(role)


def test_the_version_is_the_package_s() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == features.VERSION


def test_who_tells_nothing_is_of_the_first_level() -> None:
    join = messages.decode(json.dumps(JOIN).encode(), messages.JoinRequest)
    assert (join.protocol, join.features, join.version) == (1, [], "")
    answer = messages.decode(b'{"cluster_id": "c", "url": "u", "epoch": 3}', messages.JoinAnswer)
    assert (answer.level, answer.features) == (OLDEST_LEVEL, [])
    hello = session.decode_hello(msgspec.msgpack.encode([2, "mount", ""]))
    assert (hello.features, hello.version) == ([], "")
    welcome = session.decode_from_namenode(msgspec.msgpack.encode([0, "s", "c", 60.0, [], False]))
    assert (welcome.level, welcome.features) == (OLDEST_LEVEL, [])


GARBAGE: list[Any] = [
    "levels", None, {"levels": 1}, [1], [None], ["Levels"], [""], ["a b"], ["a\n"], ["é"], ["a" * 33], ["b", "a"],
    ["a", "a"], [f"a{number:03}" for number in range(65)],
]  # fmt: skip


@pytest.mark.parametrize("value", GARBAGE, ids=repr)
def test_features_that_are_none_are_refused_by_name(value: Any) -> None:
    for kind, fields in ((messages.JoinRequest, JOIN), (messages.JoinAnswer, {"cluster_id": "c", "url": "u"})):
        with pytest.raises(InvalidArgument, match="features"):
            messages.decode(json.dumps(fields | {"features": value}).encode(), kind)
    with pytest.raises(msgspec.ValidationError):
        session.decode_hello(msgspec.msgpack.encode([2, "mount", "", value, "1"]))
    with pytest.raises(msgspec.ValidationError):
        session.decode_from_namenode(msgspec.msgpack.encode([0, "s", "c", 60.0, [], False, 1, value]))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", "x" * 33),
        ("version", "1\n"),
        ("version", 1),
        ("protocol", 0),
        ("protocol", "1"),
        ("protocol", 1 << 40),
    ],
)
def test_other_fields_that_are_wrong_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidArgument, match=field):
        messages.decode(json.dumps(JOIN | {field: value}).encode(), messages.JoinRequest)
