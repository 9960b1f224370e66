"""What strangers may do to the web server, without brokers: its pages stay, its log is short and shows no secret."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import socket
import struct
import time
from collections import Counter

import pytest
from aiohttp import web

from app.lines import LineFormatter
from app.throttle import REPEAT_SECONDS, LibraryFilter
from app.web import accepting, connection, server
from app.web.accepting import client_of
from app.web.asking import Names, host_in
from app.web.listening import listen
from tests.support.oracle import wait_until
from tests.support.raw_http import ask, connected, get, headers_of, rest_of, serving, status_of

CANARY = "canary-7f3a91"
LARGE_BYTES = 1_000_000


def application() -> web.Application:
    """Return pages of all kinds: small, large, one that fails, one that reads what is sent."""

    async def small(_request: web.Request) -> web.Response:
        return web.Response(text="small")

    async def large(_request: web.Request) -> web.Response:
        return web.Response(body=b"x" * LARGE_BYTES)

    async def failing(_request: web.Request) -> web.Response:
        raise ValueError(CANARY)

    async def reading(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    pages = web.Application()
    pages.router.add_get("/", small)
    pages.router.add_get("/large", large)
    pages.router.add_get("/failing", failing)
    pages.router.add_post("/reading", reading)
    return pages


@pytest.fixture
def log(caplog):
    """Return a function that gives everything that was logged at any level, as it would be written."""
    caplog.set_level(logging.DEBUG)
    formatter = LineFormatter()
    return lambda: "\n".join(formatter.format(record) for record in caplog.records)


@pytest.fixture
def pages():
    with serving(application(), ("bridge1.example", "*.svc.cluster.local", "")) as running:
        yield running


@pytest.fixture
def hurry(monkeypatch):
    """Return a function that has the pages wait for nobody for longer than moments, from then on.

    From the beginning on, they would cut who stands still between connecting and asking.
    """

    monkeypatch.setattr(accepting, "SWEEP_SECONDS", 0.05)
    return lambda: monkeypatch.setattr(connection, "REQUEST_SECONDS", 0.5)


def open_connections(pages) -> int:
    """Return how many sockets of connections to the pages this process has open at the pages' end."""
    return len(pages.connections)


# ---- an ordinary client


def test_a_client_that_reads_the_end_of_a_large_answer_late_is_no_error(pages, log):
    """A scrape of thousands of routes whose connection ends with it left an ERROR with two tracebacks in the log."""
    request = b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    for _ in range(8):  # it depends on what is left when the page is done
        with connected(pages.port, request, receive_bytes=2048) as client:
            wait_until(lambda: any(each.unread_bytes for each in list(pages.connections._open)), "an answer that waits")
            answer = rest_of(client)
        assert status_of(answer) == 200
        assert len(answer.partition(b"\r\n\r\n")[2]) == LARGE_BYTES
        wait_until(lambda: not open_connections(pages), "the end of the connection")
    get(pages.port, "/")  # what the end of the others has called is over
    assert "Exception in callback" not in log()


# ---- who may ask


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:6066",
        "127.0.0.1:",
        "[::1]:6066",
        "[FE80::1]",
        "[::ffff:10.0.0.1]",
        "localhost",
        "LocalHost.:80",
        "bridge1.example",
        "BRIDGE1.example.:6066",
        "connector-0.connector.line.svc.cluster.local",
    ],
)
def test_an_address_localhost_and_names_that_are_listed_are_answered(host, pages):
    assert status_of(get(pages.port, "/", host)) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:6066",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.bridge1.example",
        "svc.cluster.local",
        "evilsvc.cluster.local",
        "bridge1.example.evil",
        "2130706433",
        "0x7f.1",
        "127.1",
        "[::1].evil.example",
        "::1",
        "127.0.0.1:80:80",
        "[127.0.0.1]",
        "user@127.0.0.1",
        "127.0.0.1/x",
        "127.0.0.1, evil.example",
        "b\u00fccher.example",
        "xn--bcher-kva.example",
        ".",
        "",
        "x" * 300,
    ],
)
def test_a_host_that_is_none_of_these_is_refused_and_the_answer_says_which_setting_to_change(host, pages):
    answer = get(pages.port, "/", host)
    assert status_of(answer) in {400, 421}
    if status_of(answer) == 421:
        assert b"WEB_ALLOWED_HOSTS" in answer
    assert b"small" not in answer


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", 200),  # older than the header; no browser sends it
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400),
        (b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 421),
        (b"GET http://localhost/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 421),
        (b"GET http://127.0.0.1:6066/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 200),
        (b"GET http://[::1/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: localhost\r\nConnection: close\r\n\r\n", 421),
        (b"GET / HTTP/1.0\r\nHost: evil.example\r\n\r\n", 421),
        (b"GET /nothing HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 421),
        (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        (b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400),
    ],
)
def test_neither_a_missing_nor_a_second_host_nor_one_in_the_target_gets_past(request_bytes, status, pages):
    assert status_of(ask(pages.port, request_bytes)) == status


LINK = ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"]


@pytest.mark.parametrize(
    ("method", "lines", "status"),
    [
        ("POST", ["Sec-Fetch-Site: cross-site"], 403),
        ("POST", ["Sec-Fetch-Site: same-site"], 403),
        ("POST", ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"], 403),
        ("POST", ["Origin: http://evil.example"], 403),
        ("POST", ["Origin: null"], 403),
        ("POST", ["Origin: http://localhost:9999"], 403),
        ("POST", ["Origin: http://[bad"], 403),
        ("POST", ["Origin: http://localhost"], 200),
        ("POST", ["Sec-Fetch-Site: same-origin", "Origin: https://bridge1.example"], 200),  # a proxy with TLS before it
        ("POST", ["Sec-Fetch-Site: none"], 200),
        ("POST", [], 200),
        ("GET", ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"], 403),
        ("GET", [*LINK, "Sec-Fetch-Dest: document"], 200),  # somebody follows a link
        ("HEAD", [*LINK, "Sec-Fetch-Dest: document"], 200),
        ("GET", LINK, 403),
        ("GET", [*LINK, "Sec-Fetch-Dest: iframe"], 403),
        ("GET", [*LINK, "Sec-Fetch-Dest: frame"], 403),
        ("GET", [*LINK, "Sec-Fetch-Dest: embed"], 403),
        ("GET", [*LINK, "Sec-Fetch-Dest: object"], 403),
        ("GET", [*LINK, "Sec-Fetch-Dest: fencedframe"], 403),
        ("GET", [*LINK, "Sec-Fetch-Dest: iframe", "Sec-Fetch-Dest: document"], 403),
        ("GET", ["Sec-Fetch-Site: same-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"], 403),
        ("GET", ["Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"], 403),
        ("GET", ["Sec-Fetch-Site:"], 403),
        ("GET", ["Sec-Fetch-Site: none"], 200),
        ("GET", ["Origin: http://evil.example"], 403),
        ("HEAD", ["Origin: http://evil.example"], 403),
        ("GET", ["Origin: null"], 403),
        ("GET", ["Origin:"], 403),
        ("GET", ["Origin: http://localhost", "Origin: http://evil.example"], 403),
        ("GET", [*LINK, "Sec-Fetch-Dest: document", "Origin: http://evil.example"], 403),
        ("GET", ["Origin: http://localhost"], 200),
        ("OPTIONS", ["Origin: http://evil.example", "Access-Control-Request-Method: GET"], 403),
    ],
)
def test_a_page_of_another_site_changes_nothing_and_only_links_lead_here(method, lines, status, pages):
    path = "/reading" if method == "POST" else "/"
    assert status_of(get(pages.port, path, "localhost", "Content-Length: 0", *lines, method=method)) == status


def test_a_refused_name_is_in_the_log_with_the_setting_and_said_once(pages, log):
    for number in range(20):
        get(pages.port, "/", f"prometheus-{number}.example:6066")
    said = [line for line in log().split("\n") if "WEB_ALLOWED_HOSTS" in line and " WARNING " in line]
    assert len(said) == 1 and "prometheus-0.example" in said[0]
    assert pages.refusals.counts["host"] == 20


def test_names_without_a_star_are_only_themselves():
    names = Names(["a.example", "", "*.b.example"])
    assert names.has("a.example") and names.has("x.b.example")
    assert not any(map(names.has, ("b.example", "x.a.example", "", "xb.example", ".")))
    assert host_in("a:b:c") is None and host_in(".") is None


# ---- every answer


ANSWERS = {
    "a page": (b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 200),
    "its head": (b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 200),
    "not found": (b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
    "not allowed": (b"OPTIONS / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 405),
    "trace": (b"TRACE / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 405),
    "failed": (b"GET /failing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 500),
    "refused": (b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 421),
    "no http": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "bad version": (b"GET / HTTP/9.9\r\n\r\n", 400),
    "bad header": (b"GET / HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n", 400),
    "long target": (b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "many headers": (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 200 + b"\r\n", 400),
    "too large": (
        b"POST /reading HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 3000000\r\n\r\n"
        + b"x" * 3_000_000,
        413,
    ),
    "bad chunk": (
        b"POST /reading HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        400,
    ),
    "expectation": (b"GET / HTTP/1.1\r\nHost: localhost\r\nExpect: x\r\nConnection: close\r\n\r\n", 417),
    "both lengths": (
        b"POST /reading HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_every_answer_has_the_security_headers_and_no_version_and_no_internals(name, pages):
    request_bytes, status = ANSWERS[name]
    answer = ask(pages.port, request_bytes)
    headers = headers_of(answer)
    assert status_of(answer) == status
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert headers["server"] == "connector"
    for inside in (b"aiohttp", b"Python", b"Traceback", b"File ", CANARY.encode()):
        assert inside not in answer


def test_a_page_that_fails_is_logged_once_and_the_others_go_on(pages, log):
    for _ in range(5):
        assert status_of(get(pages.port, "/failing")) == 500
        assert status_of(get(pages.port, "/")) == 200
    errors = [line for line in log().split("\n") if "the page /failing has failed" in line and " ERROR " in line]
    assert len(errors) == 1
    assert "raise ValueError(CANARY)" in log(), "the operator sees where"


# ---- what is received is not logged


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization Bearer %s\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization : Bearer %s\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer\r\n %s\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n%s\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-%s\x01: y\r\n\r\n",
        b"GET /?token=%s\x01 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /?token=%s HTTP/1.1 x\r\nHost: localhost\r\n\r\n",
        b"GET http://%s:x/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://[%s/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /failing?token=%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"%s / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / %s\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %s\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: %s@localhost\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b %s\r\nConnection: close\r\n\r\n",
        b"POST /reading HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n",
        b"POST /reading HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: %s\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: %s\r\nConnection: Upgrade, close\r\n\r\n%s",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nExpect: %s\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://%s\r\nSec-Fetch-Site: %s\r\nConnection: close\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01%s\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: %s" + b"y" * 9_000 + b"\r\n\r\n",
    ],
)
def test_no_part_of_a_malformed_request_is_in_the_log_at_the_finest_level(request_bytes, pages, log):
    answer = ask(pages.port, request_bytes.replace(b"%s", b"secret-9e2d"))
    assert "secret-9e2d" not in log()
    assert b"secret-9e2d" not in answer
    assert status_of(get(pages.port)) == 200


def test_a_request_that_names_nothing_is_answered_and_fails_nowhere(pages, log):
    """aiohttp makes a request without an address of it, and fails when it looks at that one."""
    assert b" 405 " in ask(pages.port, b"CONNECT \r\n\r\n")
    gc.collect()  # a task that failed is told when it is let go of
    assert "Traceback" not in log()
    assert status_of(get(pages.port)) == 200


def test_a_flood_of_malformed_requests_is_one_line_and_a_count(pages, log):
    for _ in range(100):
        ask(pages.port, b"\x16\x03\x01\r\n\r\n")
    assert len([line for line in log().split("\n") if " DEBUG " not in line]) == 1
    assert pages.refusals.counts["malformed"] == 100


def test_what_asyncio_and_aiohttp_repeat_is_said_once_with_a_count_and_aiohttps_errors_without_what_it_received(
    monkeypatch,
):
    now = [1000.0]
    monkeypatch.setattr("app.throttle.time.monotonic", lambda: now[0])
    throttled = LibraryFilter()

    def record(name: str, text: str, error: Exception) -> logging.LogRecord:
        return logging.LogRecord(name, logging.ERROR, "x.py", 1, text, (), (type(error), error, None))

    same = [record("asyncio", f"socket.accept() out of system resource\nsocket: {n}", OSError(n)) for n in range(9)]
    assert [throttled.filter(each) for each in same] == [True] + 8 * [False]
    assert throttled.filter(record("asyncio", "Exception in callback f(1)", ValueError("1")))
    assert not throttled.filter(record("asyncio", "Exception in callback f(2)", ValueError("2")))
    assert throttled.filter(record("asyncio", "Exception in callback f(3)", KeyError("3"))), "another kind is news"
    now[0] += REPEAT_SECONDS
    again = record("asyncio", "socket.accept() out of system resource", OSError(9))
    assert throttled.filter(again) and again.repeated == 8
    secret = record("aiohttp.server", f"Error handling request from {CANARY}", ValueError(CANARY))
    secret.args = (CANARY,)
    assert throttled.filter(secret)
    assert CANARY not in LineFormatter().format(record("x", "", ValueError())) + LineFormatter().format(secret)


# ---- connections


def test_clients_that_ask_and_never_read_cost_no_more_connections_than_are_allowed(pages, monkeypatch):
    """They are cut, not closed: to close would wait until the client has read what it will not read."""
    monkeypatch.setattr(accepting, "LIMIT_CONNECTIONS", 10)
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(
                connected(pages.port, b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3, receive_bytes=2048)
            )
            assert open_connections(pages) <= 10 + accepting.ACCEPTED_PER_TURN
        wait_until(lambda: open_connections(pages) <= 10, "no more connections than are allowed")
        assert status_of(get(pages.port)) == 200
        assert pages.refusals.counts["too_many"] >= 50


def test_a_limit_that_is_lowered_while_connections_are_open_is_kept_from_the_next_one_on(pages, monkeypatch):
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(connected(pages.port))
        wait_until(lambda: open_connections(pages) == 40, "40 connections")
        monkeypatch.setattr(accepting, "LIMIT_CONNECTIONS", 10)
        assert status_of(get(pages.port)) == 200
        wait_until(lambda: open_connections(pages) <= 10, "no more connections than are allowed")


def test_one_client_with_many_connections_takes_none_from_another(pages, monkeypatch):
    """Prometheus and probes have addresses of their own; who has most loses first."""
    monkeypatch.setattr(accepting, "LIMIT_CONNECTIONS", 10)
    with contextlib.ExitStack() as stack:
        scrape = socket.socket()
        scrape.bind(("127.0.0.2", 0))
        scrape.settimeout(10)
        scrape.connect(("127.0.0.1", pages.port))
        stack.enter_context(scrape)
        for _ in range(40):
            stack.enter_context(connected(pages.port))
        wait_until(lambda: pages.refusals.counts["too_many"] >= 31, "the stranger's connections, cut")
        scrape.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert status_of(rest_of(scrape)) == 200


SLOW = {
    "nothing": b"",
    "half a line": b"GET / HT",
    "half a head": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ",
    "a request and half a head": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HT",
    "half a body": b"POST /reading HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nx",
    "half a chunk": b"POST /reading HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nx",
    "answers unread": b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20,
    "last answer unread": b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
}


@pytest.mark.parametrize("drip", [False, True])
def test_who_is_too_slow_to_ask_or_to_read_is_cut_and_a_byte_now_and_then_puts_nothing_off(drip, hurry, pages):
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connected(pages.port, data, receive_bytes=2048)) for data in SLOW.values()]
        half_closed = stack.enter_context(connected(pages.port, SLOW["last answer unread"], receive_bytes=2048))
        half_closed.shutdown(socket.SHUT_WR)
        wait_until(lambda: open_connections(pages) >= len(slow), "the connections")
        hurry()
        deadline = time.monotonic() + 60
        while open_connections(pages) and time.monotonic() < deadline:
            for each in slow if drip else ():
                with contextlib.suppress(OSError):
                    each.send(b"x")
                    each.setblocking(False)
                    each.recv(1)
            time.sleep(0.02)
        assert open_connections(pages) == 0
        wait_until(lambda: status_of(get(pages.port)) == 200, "an answer to who is not slow")


def test_who_asks_again_and_again_and_reads_is_not_cut(hurry, pages):
    with connected(pages.port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n") as client:
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        hurry()
        end = time.monotonic() + 0.8  # longer than a request may take
        while time.monotonic() < end:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
            time.sleep(0.05)
        time.sleep(0.6)  # a pause between requests is longer than one may take
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200")


def test_what_is_answered_and_not_read_has_a_bound_in_memory(pages, monkeypatch):
    monkeypatch.setattr(accepting, "LIMIT_UNREAD_BYTES", 3 * LARGE_BYTES)
    most = 0
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(connected(pages.port, SLOW["answers unread"], receive_bytes=2048))
            unread = [each.unread_bytes for each in list(pages.connections._open)]
            most = max(most, sum(unread))
        wait_until(lambda: pages.refusals.counts["unread"] >= 10, "connections that were cut")
    assert most <= 5 * LARGE_BYTES


def test_a_head_without_an_end_is_cut(pages):
    with connected(pages.port, b"GET / HTTP/1.1\r\nHost: localhost\r\n") as client:
        with contextlib.suppress(OSError):
            for number in range(60):
                client.sendall(b"X-%d: " % number + b"y" * 2_000 + b"\r\n")
                time.sleep(0.001)
        rest_of(client)
    assert pages.refusals.counts["malformed"] == 1


def test_many_requests_at_once_leave_every_turn_of_the_event_loop_to_others_too():
    """However many ask at the same moment, few are answered between two turns; the messages have theirs."""
    turns, answered_in = [0], []

    async def page(_request: web.Request) -> web.Response:
        answered_in.append(turns[0])
        return web.Response()

    async def count_turns(_application: web.Application):
        def turn() -> None:
            turns[0] += 1
            asyncio.get_running_loop().call_soon(turn)

        turn()
        yield

    pages = web.Application()
    pages.router.add_get("/", page)
    pages.cleanup_ctx.append(count_turns)
    with contextlib.ExitStack() as stack, serving(pages) as running:
        clients = [stack.enter_context(connected(running.port)) for _ in range(60)]
        for client in clients:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10)
        wait_until(lambda: len(answered_in) == 600, "600 answers")
    assert max(Counter(answered_in).values()) <= server.REQUESTS_AT_ONCE


def test_a_hundred_connections_that_are_reset_leave_nothing(pages, log):
    for number in range(100):
        client = connected(pages.port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" if number % 2 else b"")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    wait_until(lambda: open_connections(pages) == 0, "no connection")
    assert status_of(get(pages.port)) == 200
    assert len([line for line in log().split("\n") if " DEBUG " not in line]) <= 2


def test_where_no_file_is_left_a_connection_gives_way_and_where_none_can_it_is_said_once(pages, log, monkeypatch):
    """What the system says is put in its place: to use up the files of the tests' own process would end it."""
    listening = pages._listeners[0]

    class Exhausted:
        left = 3

        def __init__(self, real):
            self.real = real

        def accept(self):
            if Exhausted.left:
                Exhausted.left -= 1
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return self.real.accept()

        def __getattr__(self, name):
            return getattr(self.real, name)

    monkeypatch.setattr(accepting, "PAUSE_SECONDS", 0.05)
    with connected(pages.port) as idle:
        wait_until(lambda: open_connections(pages) == 1, "the first")
        listening._socket = Exhausted(listening._socket)
        assert status_of(get(pages.port)) == 200
        assert rest_of(idle) == b""
    said = [line for line in log().split("\n") if "can accept no connection" in line and " WARNING " in line]
    assert len(said) == 1 and "LimitNOFILE" in said[0]
    listening._socket = listening._socket.real


def test_of_few_files_some_are_left_for_the_rest(pages, monkeypatch):
    monkeypatch.setattr(accepting, "file_limit", lambda: 0)  # each new file is one of the last
    monkeypatch.setattr(accepting, "connection_limit", lambda: 100)
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(connected(pages.port))
        wait_until(lambda: pages.refusals.counts["no_files"] == 9, "9 connections that were cut")
        assert status_of(get(pages.port)) == 200


def test_a_client_is_an_address_and_of_ipv6_a_network():
    assert client_of(("10.1.2.3", 1)) == client_of(("::ffff:10.1.2.3", 1, 0, 0)) == "10.1.2.3"
    assert client_of(("2001:db8:1:2:3:4:5:6", 1)) == client_of(("2001:db8:1:2::9", 2)) == "2001:db8:1:2::/64"
    assert client_of(("fe80::1%eth0", 1)) == "fe80::/64"
    assert client_of("") == client_of(("nonsense",)) == "unknown"


def test_a_stop_waits_for_no_client(monkeypatch):
    monkeypatch.setattr(server, "STOP_SECONDS", 0.2)
    began = time.monotonic()
    with contextlib.ExitStack() as stack, serving(application()) as pages:
        for data in SLOW.values():
            stack.enter_context(connected(pages.port, data, receive_bytes=2048))
        wait_until(lambda: open_connections(pages) == len(SLOW), "the connections")
        began = time.monotonic()
    assert time.monotonic() - began < 30, "and by itself, aiohttp would wait for minutes"


def test_what_is_accepted_has_small_buffers_in_the_kernel():
    async def sizes() -> set[int]:
        listeners = await listen("127.0.0.1", 0)
        found = {each.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) for each in listeners}
        for each in listeners:
            each.close()
        return found

    assert max(asyncio.run(sizes())) <= 256 * 1024
