"""Docker's health check: asks the server of this container for `/healthz?ready`. A script; imports nothing of DFS.

Exit status 0 when it answers 200, else 1 with the reason as `docker inspect` shows it.
"""

from __future__ import annotations

import http.client
import os
import sys
from typing import Final

_TIMEOUT_S: Final = 4
"""Below the time limit of the health check, so that the reason is seen."""


def main() -> int:
    port = int(os.environ.get("DFS_PORT") or 8180)
    host = os.environ.get("DFS_HOST") or "0.0.0.0"
    connection = http.client.HTTPConnection("127.0.0.1" if host == "0.0.0.0" else host, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/healthz?ready")
        answer = connection.getresponse()
        text = answer.read(1000).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        print(f"no answer: {error}")  # noqa: T201
        return 1
    finally:
        connection.close()
    print(text)  # noqa: T201
    return 0 if answer.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
