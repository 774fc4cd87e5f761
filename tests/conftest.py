"""What all suites share: how their servers start, how tests are dealt out to workers that run side by side, and how a
test that fails by chance is repeated."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

from tests import interleaving
from tests.cluster.forked_server import Zygote
from tests.cluster.real_cluster import Server

_LONGEST_FIRST: Final = ("model", "faults", "cluster", "contract", "arch", "unit")
"""The folders of tests, those with the longest tests first: whoever is done early finds something short to do."""


# A busy machine takes its time, also for a single example.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("any machine")


def pytest_configure() -> None:
    Server.zygote = Zygote()


def pytest_unconfigure() -> None:
    if Server.zygote is not None:
        Server.zygote.close()
        Server.zygote = None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """For `pytest -n`: the tests of a module that share a fixture stay together, all others go anywhere."""
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        if _shares_a_fixture(item):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    # Every worker must have the same order, also where a test's parameters come from a set.
    items.sort(key=lambda item: (_rank(item.path.relative_to(config.rootpath)), item.nodeid))


def pytest_collection_finish(session: pytest.Session) -> None:
    """The group is at the end of a test's id, from where the scheduler takes it."""
    if getattr(session.config.option, "loadgroup", False) and any(
        item.get_closest_marker("xdist_group") and "@" not in item.nodeid for item in session.items
    ):
        raise pytest.UsageError("this pytest-xdist does not group tests with this pytest: see pyproject.toml")


def _shares_a_fixture(item: pytest.Item) -> bool:
    fixtures = item._fixtureinfo.name2fixturedefs.values() if isinstance(item, pytest.Function) else ()
    return any(fixture.scope in ("class", "module") for found in fixtures for fixture in found)


def _rank(path: Path) -> int:
    folder = path.parts[1]
    return _LONGEST_FIRST.index(folder) if folder in _LONGEST_FIRST else 0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and item.nodeid in interleaving.seeded:
        again = f"{interleaving.VARIABLE}={interleaving.SEED} pytest '{item.nodeid}'"
        report.sections.append(("how to repeat it", again))
    return report
