"""HTTP answers, read apart from the web server: what each must have."""

from __future__ import annotations

from typing import NamedTuple

REQUIRED = {
    "content-security-policy", "x-content-type-options", "referrer-policy", "cross-origin-resource-policy",
    "cache-control",
}  # fmt: skip
CONTINUE, NOT_READY = 100, 503


class Answer(NamedTuple):
    """One answer; the names of its headers are in small letters."""

    status: int
    headers: dict
    body: bytes


def answers_in(data):
    """Split what was written into answers.

    Raises:
        ValueError: It is not HTTP, or the last answer is not whole.
    """
    answers = []
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = line.split(" ", 2)
        if not end or not version.startswith("HTTP/"):
            raise ValueError(f"no answer of HTTP: {head[:200]!r}")
        headers = {}
        for name, _, value in (each.partition(": ") for each in lines):
            headers[name.lower()] = value
        length = int(headers.get("content-length", 0))
        if data.startswith(b"HTTP/"):
            length = 0  # to HEAD
        if len(data) < length and data:
            raise ValueError(f"{len(data)} of {length} bytes of a body: {head[:200]!r}")
        answers.append(Answer(int(status), headers, data[:length]))
        data = data[length:]
    return answers


def check(answer):
    """See that an answer has what a browser must know, and nothing of what fails inside."""
    if answer.status == CONTINUE:
        return
    assert answer.status < 500 or answer.status == NOT_READY, answer
    missing = REQUIRED.difference(answer.headers)
    assert not missing, f"{answer.status} without {sorted(missing)}"
    server = answer.headers.get("server", "")
    assert not any(letter.isdigit() for letter in server), f"the server tells its version: {server}"
    assert b"Traceback" not in answer.body, answer.body[:500]
