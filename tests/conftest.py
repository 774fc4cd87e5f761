"""What all suites share: their servers are forked from one process of the worker that runs the tests."""

from __future__ import annotations

from tests.cluster.forked_server import Zygote
from tests.cluster.real_cluster import Server


def pytest_configure() -> None:
    Server.zygote = Zygote()


def pytest_unconfigure() -> None:
    if Server.zygote is not None:
        Server.zygote.close()
        Server.zygote = None
