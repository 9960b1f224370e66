"""The health check of the image: 0 if the worker's /health/live answers 200, else 1. It needs Python alone.

It is a program of its own, as it runs every half minute: to load the worker's modules would take a second each time.
"""

from __future__ import annotations

import http.client
import os
import sys

TIMEOUT_SECONDS = 4.0
# Who listens on every address is found on the loopback.
LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # nosec B104 - nothing listens here


def main() -> int:
    """Ask the page, and return the exit code."""
    host = os.environ.get("WEB_HOST", "")
    port = int(os.environ.get("WEB_PORT") or 6066)
    connection = http.client.HTTPConnection(LOOPBACK.get(host, host), port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/health/live")
        answer = connection.getresponse()
        sys.stdout.write(f"{answer.status} {answer.read(200).decode(errors='replace')}\n")
    except (OSError, http.client.HTTPException) as error:
        sys.stdout.write(f"no answer at {host}:{port}: {error}\n")
        return 1
    finally:
        connection.close()
    return 0 if answer.status == http.client.OK else 1


if __name__ == "__main__":
    raise SystemExit(main())
