"""Docker's health check: asks the server of this container for `/healthz?ready`. A script; imports nothing of DFS.

Exit status 0 when it answers 200, else 1 with the reason as `docker inspect` shows it. It runs every few seconds, also
on a host that has too much to do; so it is a socket and no HTTP client, which would take longer to load than to ask.
"""

from __future__ import annotations

import os
import socket
import sys

_TIMEOUT_S = 25
"""Below the time limit of the health check, so that the reason is seen."""
_ANSWER_MAX = 4096


def main() -> int:
    port = int(os.environ.get("DFS_PORT") or 8180)
    host = os.environ.get("DFS_HOST") or "0.0.0.0"
    request = b"GET /healthz?ready HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1" if host == "0.0.0.0" else host, port), _TIMEOUT_S) as connection:
            connection.sendall(request)
            while len(answer) < _ANSWER_MAX and (piece := connection.recv(_ANSWER_MAX)):
                answer += piece
    except OSError as error:
        print(f"no answer: {error}")  # noqa: T201
        return 1
    head, _, body = answer.partition(b"\r\n\r\n")
    print(body.decode("utf-8", "replace"))  # noqa: T201
    return 0 if head.split(b" ")[1:2] == [b"200"] else 1


if __name__ == "__main__":
    sys.exit(main())
