"""Docker's health check, as the script that the image runs, against a server that is well, ill, silent or away."""

from __future__ import annotations

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.deadline import DEADLINE_S

SCRIPT = Path(__file__).resolve().parents[3] / "dfslib" / "runtime" / "healthcheck.py"


def check(port: int) -> subprocess.CompletedProcess[str]:
    env = {"DFS_PORT": str(port), "DFS_HOST": "0.0.0.0"}
    return subprocess.run([sys.executable, str(SCRIPT)], env=env, capture_output=True, text=True, timeout=DEADLINE_S)


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1), (404, 1)])
def test_it_is_what_healthz_says(status: int, expected: int) -> None:
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"waiting for datanodes")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            result = check(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()
    assert paths == ["/healthz?ready"]
    assert result.returncode == expected
    assert "waiting for datanodes" in result.stdout


def test_a_server_that_is_away_is_ill() -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        port = server.server_address[1]
    result = check(port)
    assert result.returncode == 1
    assert "no answer" in result.stdout
