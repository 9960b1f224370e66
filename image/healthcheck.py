"""The health check of the image: 0 if the worker's /health/live answers 200, else 1. It needs Python alone.

It is a program of its own, as it runs every half minute: to load the worker's modules would take a second each time.
"""

from __future__ import annotations

import http.client
import os
import sys

TIMEOUT_SECONDS = 4.0
# Who listens on every address is found on the loopback; on a host without IPv6, "::" is what there is of IPv4.
LOOPBACKS = {"": ("127.0.0.1",), "0.0.0.0": ("127.0.0.1",), "::": ("::1", "127.0.0.1")}  # noqa: S104  # nosec B104


def main() -> int:
    """Ask the page, and return the exit code."""
    host = os.environ.get("WEB_HOST", "").removeprefix("[").removesuffix("]")
    port = int(os.environ.get("WEB_PORT") or 6066)
    failures = []
    for address in LOOPBACKS.get(host, (host,)):
        answer = ask(address, port)
        if isinstance(answer, str):
            failures.append(f"no answer at {address}, port {port}: {answer}\n")
            continue
        status, text = answer
        sys.stdout.write(f"{status} {text}\n")
        return 0 if status == http.client.OK else 1
    sys.stdout.writelines(failures)
    return 1


def ask(address: str, port: int) -> tuple[int, str] | str:
    """Return status and text of the page; if nobody answers, why."""
    connection = http.client.HTTPConnection(address, port, timeout=TIMEOUT_SECONDS / 2)
    try:
        connection.request("GET", "/health/live")
        answer = connection.getresponse()
        return answer.status, answer.read(200).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return str(error)
    finally:
        connection.close()


if __name__ == "__main__":
    raise SystemExit(main())
