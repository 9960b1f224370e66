"""Inputs that are requests: JSON of any shape for the socket for commands, and HTTP around it for the pages."""

from __future__ import annotations

import json
import random

NAMES = ("action", "ids", "all", "", "a" * 30)
TEXTS = ("retry", "delete", "move", "drain", "unknown", "440000000100000001", "", "\0", "\u202e", "\ud800")
METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"CONNECT", b"get")
PATHS = (
    b"/", b"/status", b"/history", b"/metrics", b"/health/live", b"/health/ready", b"/dead-letters", b"/nothing",
    b"/dead-letters/retry", b"/dead-letters/delete", b"/page/page.js", b"/page/%2e%2e/static.py", b"*", b"//a",
    b"/?a=%00",
)  # fmt: skip
LINES = (
    b"Host: 127.0.0.1", b"Host: localhost:6066", b"Host: [::1]", b"Host: rebound.example", b"Host:",
    b"Connection: close",
    b"Authorization: Bearer a-token-for-the-fuzzers", b"Authorization: bearer \xff", b"Authorization: Basic YTpi",
    b"Origin: http://rebound.example", b"Access-Control-Request-Method: POST", b"Transfer-Encoding: chunked",
    b"Content-Length: 5", b"Content-Encoding: gzip", b"Expect: 100-continue", b"Upgrade: websocket",
    b"Range: bytes=0-1",
    b"If-Modified-Since: x", b"Cookie: a=b", b"Accept-Encoding: gzip, br", b"X:\xff", b" folded", b"no colon",
)  # fmt: skip


def value(choose, depth=0):
    """Return any JSON value."""
    way = choose.randrange(9 if depth < 3 else 6)
    if way < 3:
        return choose.choice(TEXTS)
    if way < 6:
        return choose.choice((0, -1, 2**70, 1.5, None, True, False))
    if way < 8:
        return [value(choose, depth + 1) for _ in range(choose.randrange(4))]
    return {choose.choice(NAMES): value(choose, depth + 1) for _ in range(choose.randrange(4))}


def request(choose):
    """Return JSON that is a request, or nearly."""
    made = {"action": choose.choice(TEXTS[:4]), "ids": [choose.choice(TEXTS) for _ in range(choose.randrange(3))]}
    way = choose.randrange(8)
    if way == 0:
        made["action"] = value(choose)
    elif way == 1:
        made["ids"] = value(choose)
    elif way == 2:
        made["ids"].append(value(choose))
    elif way == 3:
        made[choose.choice(NAMES)] = value(choose)
    elif way == 4:
        del made[choose.choice(("action", "ids"))]
    elif way == 5:
        return json.dumps(value(choose)).encode()
    return json.dumps(made).encode()


def http(choose):
    """Return a request of HTTP, or nearly."""
    body = request(choose) if choose.random() < 0.5 else b""
    lines = choose.sample(LINES, choose.randrange(6))
    if choose.random() < 0.7:
        lines.insert(0, LINES[0])
    if choose.random() < 0.5:
        lines.append(LINES[6])
    method, path = choose.choice(METHODS), choose.choice(PATHS)
    if body and choose.random() < 0.8:
        lines.append(b"Content-Length: %d" % len(body))
        method, path = b"POST", choose.choice((b"/dead-letters/retry", b"/dead-letters/delete"))
    version = choose.choice((b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0"))
    return b"\r\n".join((b"%b %b %b" % (method, path, version), *lines, b"", body))


def changed(data, mutate, seed, make, end):
    """Return another input: its bytes changed anyhow, or one of its parts made anew.

    Args:
        data: The input, a byte of options and parts.
        mutate: Changes bytes anyhow.
        seed: Of what is chosen.
        make: Makes a part.
        end: What is between parts.
    """
    choose = random.Random(seed)
    if len(data) < 2 or choose.random() < 0.5:
        return mutate(data)
    parts = data[1:].split(end)
    place = choose.randrange(len(parts))
    made = make(choose)
    parts[place] = mutate(made) if choose.random() < 0.3 else made
    options = bytes([choose.randrange(256)]) if choose.random() < 0.3 else data[:1]
    return options + end.join(parts)
