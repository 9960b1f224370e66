"""TLS towards MQTT and Kafka: a wrong certificate is refused, whatever is wrong, and nothing goes in the clear."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import ssl
import threading

import pytest
import trustme

from tests.support.fixtures import CertificateFiles
from tests.support.oracle import read, wait_until
from tests.support.system import LOGS_ALL, Bridge, Publisher, UnreadyBridge, wait_for_total, wait_until_acknowledged
from tests.unit.test_tls import SECRET, write_certificates
from tools.brokers import Kafka, Mosquitto

TLS_HANDSHAKE = 0x16  # the first byte of a TLS connection
NOW = dt.datetime.now(dt.timezone.utc)
DAY = dt.timedelta(days=1)
# What is wrong with a certificate: its names, when it ends, whether its authority is the one that we trust.
WRONG = {
    "unknown authority": (["127.0.0.1"], NOW + DAY, False),
    "wrong host name": (["broker.example.com"], NOW + DAY, True),
    "expired": (["127.0.0.1"], NOW - DAY, True),
}


class Listener:
    """A server that shows a certificate, or speaks no TLS at all; it notes what a client says to it.

    Attributes:
        first_bytes: The first byte of each connection.
        said: What clients said after a handshake that they had accepted, or without any.
    """

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.first_bytes: list[int] = []
        self.said = b""
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.05)
        self.port = self._socket.getsockname()[1]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="listener")

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError):
                self._serve(self._socket.accept()[0])

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(1)
        with connection:
            self.first_bytes += connection.recv(1, socket.MSG_PEEK)
            if self._context is None:
                self.said += connection.recv(65536)
                connection.sendall(b"\x20\x02\x00\x00")
                return
            with self._context.wrap_socket(connection, server_side=True) as encrypted:
                self.said += encrypted.recv(65536) or b"nothing, over a connection that was accepted"


def wrong_context(what: str, trusted: trustme.CA) -> ssl.SSLContext:
    """Return a server's context with a certificate that must not be accepted."""
    hosts, ends, by_trusted = WRONG[what]
    authority = trusted if by_trusted else trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*hosts, not_before=NOW - 2 * DAY, not_after=ends).configure_cert(context)
    return context


def bridge_to(tmp_path, names, mqtt: Listener, kafka: Listener, ca_file) -> Bridge:
    """Return a bridge that speaks TLS to both sides, with passwords for both; not started."""
    return UnreadyBridge(
        tmp_path / names.client_id, mqtt.port, f"127.0.0.1:{kafka.port}", f"{names.mqtt('#')}:{names.kafka()}",
        mqtt_tls=True, mqtt_ca_file=ca_file, mqtt_user_name="bridge", mqtt_user_password=SECRET, kafka_tls=True,
        kafka_ca_file=ca_file, kafka_sasl_mechanism="PLAIN", kafka_sasl_username="bridge", kafka_sasl_password=SECRET,
    )  # fmt: skip


REASONS = {
    "unknown authority": ("unable to get local issuer certificate", "unable to get local issuer certificate"),
    "wrong host name": ("is not valid for '127.0.0.1'", "mismatch"),
    "expired": ("certificate has expired", "certificate has expired"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_certificate_is_refused_on_both_sides_and_the_log_says_why(what, names, tmp_path):
    """No password, no client id, no message goes to a server that is not who it should be; the worker stays up."""
    trusted = trustme.CA()
    trusted.cert_pem.write_to_path(tmp_path / "ca.pem")
    with (
        Listener(wrong_context(what, trusted)) as mqtt,
        Listener(wrong_context(what, trusted)) as kafka,
        bridge_to(tmp_path, names, mqtt, kafka, tmp_path / "ca.pem") as bridge,
    ):
        for listener, reason in zip((mqtt, kafka), REASONS[what], strict=True):
            wait_until(lambda listener=listener: len(listener.first_bytes) >= 2, "two attempts")
            wait_until(lambda reason=reason: reason in bridge.log_path.read_text(), f"{reason} in the log")
        assert bridge.get("/health/ready")[0] == 503
        assert bridge.total("connector_mqtt_connected") == bridge.total("connector_kafka_connected") == 0
        for listener in (mqtt, kafka):
            assert listener.said == b""
            assert set(listener.first_bytes) == {TLS_HANDSHAKE}
    assert bridge.exit_status == 0


def test_a_server_without_tls_hears_nothing_but_a_handshake(names, tmp_path):
    """There is no way back to clear text, however often it fails, on either side."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    with (
        Listener(None) as mqtt,
        Listener(None) as kafka,
        bridge_to(tmp_path, names, mqtt, kafka, tmp_path / "ca.pem") as bridge,
    ):
        for listener in (mqtt, kafka):
            wait_until(lambda listener=listener: len(listener.first_bytes) >= 3, "three attempts")
            assert set(listener.first_bytes) == {TLS_HANDSHAKE}
            for word in (SECRET.encode(), b"MQTT", b"bridge", b"connector"):
                assert word not in listener.said
        assert bridge.get("/health/live")[0] == 200


def test_certificates_that_are_replaced_on_the_disk_are_used_without_a_restart(names, tmp_path):
    """P1, P2 and P3: an authority and its certificates are exchanged on both sides, as before they expire."""
    write_certificates(tmp_path, trustme.CA())
    files = CertificateFiles(tmp_path / "ca.pem", tmp_path / "server.pem", tmp_path / "server.key")
    kafka = Kafka(tmp_path / "kafka", certificates=files, properties={"ssl.client.auth": "required"})
    with (
        Mosquitto(tmp_path / "mosquitto", certificates=files, extra_configuration=LOGS_ALL) as mosquitto,
        kafka,
        Bridge(
            tmp_path / "bridge", mosquitto.tls_port, f"127.0.0.1:{kafka.tls_port}", f"{names.mqtt('#')}:records",
            mqtt_tls=True, mqtt_ca_file=files.ca_file, kafka_tls=True, kafka_ca_file=files.ca_file,
            kafka_cert_file=files.certificate_file, kafka_key_file=files.key_file,
        ) as bridge,
    ):  # fmt: skip
        kafka.create_topic("records")
        with Publisher(mosquitto.port) as publisher:
            publisher.publish_many([names.mqtt("a")], 100)
        wait_for_total(bridge, "connector_delivered_total", 100)
        wait_until_acknowledged(mosquitto, 100)
        write_certificates(tmp_path, trustme.CA())
        for broker in (mosquitto, kafka):
            broker.restart()
        wait_until(lambda: bridge.total("connector_mqtt_connected") == 1, "MQTT with the new authority")
        with Publisher(mosquitto.port) as again:
            again.sent |= publisher.sent
            again.publish_many([names.mqtt("a")], 100)
        read(kafka.bootstrap, ["records"], 200).assert_each_once_in_order(again.sent)
        assert "KAFKA_CA_FILE and KAFKA_CERT_FILE and KAFKA_KEY_FILE changed" in bridge.log_path.read_text()
        wait_for_total(bridge, "connector_undelivered_messages", 0)
        bridge.assert_balanced()
