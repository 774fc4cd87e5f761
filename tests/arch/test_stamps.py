"""The stamps of suites that CI may leave out: nothing that decides their outcome is forgotten, and they are not given
for less than all of a suite."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.swarm import passed


def imported(path: Path) -> Iterator[Path]:
    """Modules of the tests that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.split(".")[0] == "tests":
            folder = passed.ROOT.joinpath(*node.module.split("."))
            for found in (folder.with_suffix(".py"), *(folder / f"{name.name}.py" for name in node.names)):
                if found.exists():
                    yield found


@pytest.mark.parametrize("suite", passed.INPUTS)
def test_every_file_that_a_suite_uses_is_in_its_stamp(suite: str) -> None:
    stamped = set(passed.files(suite))
    assert {found for path in stamped if path.suffix == ".py" for found in imported(path)} <= stamped
    for name in ("Dockerfile", "docker-compose.yml", "dfslib/runtime/serving.py", "server.py", "requirements/dev.lock"):
        assert passed.ROOT / name in stamped
    assert not any(path.is_relative_to(passed.STAMPS) for path in stamped)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of two files, of which `part` belongs to the suite."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.setattr(passed, "ROOT", tmp_path)
    monkeypatch.setattr(passed, "STAMPS", tmp_path / "stamps")
    monkeypatch.setattr(passed, "INPUTS", {"swarm": ("part",)})
    (tmp_path / "part").mkdir()
    for name in ("part/one", "other"):
        (tmp_path / name).write_text("content")
    return tmp_path


def test_content_mode_and_name_are_stamped_and_nothing_else(small: Path) -> None:
    found = [passed.digest("swarm")]
    (small / "other").write_text("changed")
    assert passed.digest("swarm") == found[0]
    one = small / "part" / "one"
    for change in (
        lambda: one.write_text("changed"),
        lambda: one.chmod(0o755),
        lambda: one.rename(one.with_name("two")),
        lambda: one.with_name("new").touch(),
        lambda: one.symlink_to("two"),
    ):
        change()
        found.append(passed.digest("swarm"))
    assert len(set(found)) == len(found)
    subprocess.run(["git", "-C", small, "add", "part"], check=True)
    assert passed.digest("swarm") == found[-1], "as it will be once it is committed"


class Terminal:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def write_line(self, line: str) -> None:
        self.lines.append(line)


def ends(recorder: passed._Recorder, status: int) -> str:
    terminal = Terminal()
    recorder.pytest_terminal_summary(cast(pytest.TerminalReporter, terminal), status)
    return "".join(terminal.lines)


def outcome(*, skipped: bool) -> pytest.TestReport:
    return cast(pytest.TestReport, SimpleNamespace(skipped=skipped))


def test_a_stamp_is_for_all_of_a_suite_that_passed_with_the_files_as_they_were(small: Path) -> None:
    recorder = passed._Recorder("swarm")
    recorder.pytest_runtest_logreport(outcome(skipped=False))
    assert ends(recorder, 1) == passed.stamp("swarm") == ""
    assert "to be committed" in ends(recorder, 0)
    assert passed.stamp("swarm") == passed.digest("swarm")
    (small / "stamps" / "swarm").unlink()

    (small / "part" / "one").write_text("changed meanwhile")
    assert "changed meanwhile" in ends(recorder, 0)
    skipping = passed._Recorder("swarm")
    skipping.pytest_runtest_logreport(outcome(skipped=True))
    assert "not all of swarm was run, 1 left out" in ends(skipping, 0)
    choosing = passed._Recorder("swarm")
    choosing.pytest_deselected([cast(pytest.Item, None)])
    assert "not all of swarm was run, 1 left out" in ends(choosing, 0)
    assert passed.stamp("swarm") == ""
