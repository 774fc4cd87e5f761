"""One engine and one build of the image for all tests of this folder; skipped by name where there is no Docker."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from tests.swarm import engine


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of the project's image, on an engine that runs."""
    if reason := engine.missing():
        pytest.skip(f"Docker cannot run here: {reason}")
    with engine.running_engine(tmp_path_factory.mktemp("engine")):
        engine.build_image()
        yield engine.IMAGE


@pytest.fixture(scope="session")
def on_swarm(image: str) -> Iterator[str]:
    """The image, on an engine that is a swarm of one host."""
    with engine.swarm():
        yield image


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure of a test that has a stack of the module is shown with the stack's tasks and logs."""
    report = yield
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if report.when == "call" and report.failed and cluster is not None:
        report.sections.append(("the stack", cluster.logs()))
    return report
