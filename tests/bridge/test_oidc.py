"""Signing in to Kafka with OAUTHBEARER: a real Kafka that wants it, and a token endpoint that does what a test says."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import ssl
import threading
import time
import urllib.parse

import pytest
import trustme

from tests.bridge.test_check import check, of
from tests.support.oracle import read, wait_until
from tests.support.system import Bridge, Publisher
from tools.brokers import Kafka, free_port

SECRET = "canary-81c7"
LOGIN = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"


def token(seconds: float = 3600) -> str:
    """Return an unsigned JSON web token, which is all that Kafka wants with its default validator."""

    def part(content: dict) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    now = time.time()
    return f"{part({'alg': 'none'})}.{part({'sub': 'connector', 'iat': int(now), 'exp': int(now + seconds)})}."


class TokenEndpoint(http.server.ThreadingHTTPServer):
    """An HTTPS endpoint; what it answers is in `answers`, by path, else a token.

    Attributes:
        requests: Path, credentials and form of each request.
    """

    daemon_threads = True

    def __init__(self, certificates, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.certificate_file, certificates.key_file)
        self.context = context
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.slow = threading.Event()
        self.requests: list[tuple[str, str, dict]] = []
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="token endpoint")

    def finish_request(self, request, client_address) -> None:
        """Speak TLS on the connection's own thread, so that nobody waits for another's handshake."""
        request.settimeout(30)
        with contextlib.suppress(OSError), self.context.wrap_socket(request, server_side=True) as encrypted:
            super().finish_request(encrypted, client_address)

    def url(self, path: str) -> str:
        return f"https://127.0.0.1:{self.server_address[1]}/{path}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.slow.set()
        self.shutdown()
        self.server_close()
        self._thread.join()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        form = urllib.parse.parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        path = self.path.strip("/")
        self.server.requests.append((path, self.headers.get("Authorization", ""), form))
        if path == "slow" and "slow" not in self.server.answers:
            self.server.slow.wait(60)
        body = {"access_token": token(), "token_type": "Bearer", "expires_in": 3600}
        status, text = self.server.answers.get(path, (200, json.dumps(body).encode()))
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def oauth_kafka(certificates, tmp_path_factory):
    """Return a Kafka with a listener that wants OAUTHBEARER over TLS, and the port of that."""
    broker = Kafka(tmp_path_factory.mktemp("oauth-kafka"), certificates=certificates)
    base, tls, port = broker._base_properties(), broker._tls_properties(), free_port()
    broker._properties |= {
        "listeners": f"{tls['listeners']},OAUTH://127.0.0.1:{port}",
        "listener.security.protocol.map": f"{base['listener.security.protocol.map']},OAUTH:SASL_SSL",
        "sasl.enabled.mechanisms": "OAUTHBEARER",
        "listener.name.oauth.sasl.enabled.mechanisms": "OAUTHBEARER",
        "listener.name.oauth.oauthbearer.sasl.jaas.config": f'{LOGIN} required unsecuredLoginStringClaim_sub="broker";',
    }
    with broker:
        yield broker, port


def bridge_with(tmp_path, mosquitto, oauth_kafka, certificates, names, url, name="a", **settings) -> Bridge:
    """Return a bridge that signs in with OAUTHBEARER, with a topic of its own; not started."""
    broker, port = oauth_kafka
    broker.create_topic(names.kafka(name))
    settings = {
        "sasl_ssl": "true",
        "sasl_oauthbearer_client_id": "connector",
        "sasl_oauthbearer_client_secret": SECRET,
        "sasl_oauthbearer_token_endpoint_uri": url,
        "sasl_oauthbearer_ca_file": certificates.ca_file,
        "kafka_ca_file": certificates.ca_file,
    } | settings
    mapping = f"{names.mqtt(name)}:{names.kafka(name)}"
    return Bridge(tmp_path / f"{names.client_id}-{name}", mosquitto.port, f"127.0.0.1:{port}", mapping, **settings)


def test_a_token_is_fetched_and_messages_cross(mosquitto, oauth_kafka, certificates, names, tmp_path):
    """P2: over SASL_SSL with a token of the endpoint, each once and in order; the secret goes only there."""
    with (
        TokenEndpoint(certificates) as endpoint,
        bridge_with(
            tmp_path, mosquitto, oauth_kafka, certificates, names, endpoint.url("token"), log_lvl="trace",
            kafka_producer_config='{"debug": "all"}',
        ) as bridge,
        Publisher(mosquitto.port) as publisher,
    ):  # fmt: skip
        publisher.publish_many([names.mqtt("a")], 500)
        read(oauth_kafka[0].bootstrap, [names.kafka("a")], 500).assert_each_once_in_order(publisher.sent)
        pages = "".join(bridge.get(path)[1] for path in ("/", "/status", "/metrics", "/health/ready"))
    path, credentials, form = endpoint.requests[0]
    assert path == "token"
    assert base64.b64decode(credentials.removeprefix("Basic ")).decode() == f"connector:{SECRET}"
    assert form["grant_type"] == ["client_credentials"]
    log = bridge.log_path.read_text()
    for secret in (SECRET, credentials.removeprefix("Basic "), token().split(".")[1][:20]):
        assert secret not in log, next(line for line in log.splitlines() if secret in line)
        assert secret not in pages


SENT = base64.b64encode(f"connector:{SECRET}".encode())  # which some endpoints have in what they say of a request
WAYS_TO_FAIL = {
    "refused": (401, b'{"error": "invalid %s\x1b[31m\n2026-01-01 00:00:00,000 INFO app: forged"}' % SENT),
    "broken": (500, b"<html>no"),
    "garbage": (200, b"\x00\x1b[31m{{{"),
    "incomplete": (200, b'{"access_token": "' + SECRET.encode() + b'"}'),
}


# librdkafka tries these again by itself before it gives up, which takes longer than this test.
SILENT = {"slow", "broken"}


@pytest.mark.slow
def test_messages_wait_while_no_token_can_be_had_and_flow_without_a_restart(
    mosquitto, oauth_kafka, certificates, names, tmp_path
):
    """P1, P2 and P7: an endpoint that is down, slow or wrong is an outage, which the log explains."""
    down_port = free_port()
    ways = [*WAYS_TO_FAIL, "slow", "down"]
    with contextlib.ExitStack() as stack:
        endpoint = stack.enter_context(TokenEndpoint(certificates))
        endpoint.answers |= WAYS_TO_FAIL
        bridges = {}
        for way in ways:
            url = f"https://127.0.0.1:{down_port}/down" if way == "down" else endpoint.url(way)
            bridges[way] = bridge_with(tmp_path, mosquitto, oauth_kafka, certificates, names, url, way)
            stack.enter_context(bridges[way])
        publisher = stack.enter_context(Publisher(mosquitto.port))
        publisher.publish_many([names.mqtt(way) for way in ways], 20 * len(ways))
        for way, bridge in bridges.items():
            wait_until(lambda bridge=bridge: bridge.total("connector_undelivered_messages") == 20, f"{way}: 20 stored")
            assert bridge.get("/health/ready")[0] == 200
            assert SENT[-12:].decode() not in bridge.get("/status")[1]
            if way not in SILENT:
                said = "Kafka cannot be signed in to"
                wait_until(lambda bridge=bridge, said=said: said in bridge.log_path.read_text(), f"{way}: {said}")
        wait_until(lambda: {path for path, _, _ in endpoint.requests} == set(ways) - {"down"}, "a request of each")
        endpoint.answers.clear()
        endpoint.answers["slow"] = (200, json.dumps({"access_token": token(), "expires_in": 3600}).encode())
        endpoint.slow.set()
        stack.enter_context(TokenEndpoint(certificates, down_port))
        topics = [names.kafka(way) for way in ways]
        found = read(oauth_kafka[0].bootstrap, topics, 20 * len(ways))
        found.assert_each_once_in_order(publisher.sent)
        for bridge in bridges.values():
            wait_until(lambda bridge=bridge: bridge.total("connector_undelivered_messages") == 0, "an empty table")
    for way, bridge in bridges.items():
        assert bridge.exit_status == 0
        log = bridge.log_path.read_text()
        assert SECRET not in log, way
        assert SENT[-12:].decode() not in log, way
        assert log.replace("\n", "").isprintable(), f"{way}: what the endpoint says is escaped"
        assert "\n2026-01-01" not in log


def test_the_endpoints_certificate_is_checked_and_nothing_is_sent_to_a_stranger(
    mosquitto, oauth_kafka, certificates, names, tmp_path
):
    """An authority that is not trusted: no request, no secret; that Kafka's own is trusted does not count."""
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    with (
        TokenEndpoint(certificates) as endpoint,
        bridge_with(
            tmp_path, mosquitto, oauth_kafka, certificates, names, endpoint.url("x"), sasl_oauthbearer_ca_file=other
        ) as bridge,
        bridge_with(
            tmp_path, mosquitto, oauth_kafka, certificates, names, endpoint.url("x"), "b", sasl_oauthbearer_ca_file=""
        ) as bridge_of_the_system,
    ):
        for each in (bridge, bridge_of_the_system):
            said = "Kafka cannot be signed in to"
            wait_until(lambda each=each, said=said: said in each.log_path.read_text(), said)
            assert "unable to get local issuer certificate" in each.log_path.read_text()
            assert each.total("connector_kafka_connected") == 0
        assert endpoint.requests == []


def test_check_signs_in_with_a_token_and_says_why_there_is_none(mosquitto, oauth_kafka, certificates, names, tmp_path):
    """It fetches the token as the worker does; an endpoint that refuses is named, and the secret is not shown."""
    with TokenEndpoint(certificates) as endpoint:
        endpoint.answers["refused"] = (401, f'{{"error": "invalid_client", "sent": "{SECRET}"}}'.encode())
        for path, code, verdict in (("token", 0, "good"), ("refused", 1, "wrong")):
            bridge = bridge_with(tmp_path, mosquitto, oauth_kafka, certificates, names, endpoint.url(path), name=path)
            found_code, findings, output = check(bridge)
            sign_in = of(findings, "kafka", "sign_in")
            assert (found_code, sign_in["verdict"]) == (code, verdict), findings
            assert SECRET not in output
        assert "invalid_client" in sign_in["text"]
        assert "SASL_OAUTHBEARER_" in sign_in["advice"]
