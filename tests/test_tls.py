"""TLS towards MQTT and Kafka: a wrong certificate is refused, whatever is wrong, and nothing goes in the clear."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import socket
import ssl
import threading
import time
from types import SimpleNamespace

import pytest
import trustme
from confluent_kafka import KafkaError
from conftest import CertificateFiles
from cryptography.hazmat.primitives import serialization
from oracle import read, wait_until
from system import Bridge, Publisher, UnreadyBridge, wait_for_total
from test_settings import load, problems_of

from app.errors import SettingsError
from app.kafka.producer import KafkaProducer
from app.kafka.service import KafkaService
from app.settings.tls_context import check_key, tls_context
from clients.brokers import Kafka, Mosquitto

TLS_HANDSHAKE = 0x16  # the first byte of a TLS connection
SECRET = "opensesame-5a"
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


def write_certificates(directory, authority):
    """Write what a server and its clients need into the same files as before."""
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(directory / "ca.pem")
    issued.private_key_pem.write_to_path(directory / "server.key")
    (directory / "server.pem").write_bytes(b"".join(chain.bytes() for chain in issued.cert_chain_pems))


def test_a_certificate_that_is_replaced_before_its_key_is_of_no_use_until_then_and_ends_nothing(tmp_path, caplog):
    """Files that belong together are replaced one after the other."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        write_certificates(tmp_path / name, trustme.CA())
    for file in ("ca.pem", "server.pem", "server.key"):
        (tmp_path / file).symlink_to(tmp_path / "old" / file)
    locations = {"ssl.ca": "ca.pem", "ssl.certificate": "server.pem", "ssl.key": "server.key"}
    configuration = {f"{name}.location": str(tmp_path / file) for name, file in locations.items()}
    producer = KafkaProducer({"bootstrap.servers": "127.0.0.1:1", "security.protocol": "SSL", **configuration})
    producer.open()
    trouble = KafkaError(KafkaError._SSL, "the handshake failed")
    producer._on_error(trouble)
    assert not producer.is_fatal, "nothing was replaced"
    for file in ("server.pem", "server.key"):
        (tmp_path / file).unlink()
        producer._on_error(trouble)
        (tmp_path / file).symlink_to(tmp_path / "new" / file)
        producer._on_error(trouble)
        assert producer.is_fatal
        producer.renew()
        assert producer.is_fatal == (file == "server.pem")
    assert "KAFKA_CERT_FILE changed" in caplog.text
    assert "does not start with the files" in caplog.text
    producer.close()


def test_certificates_that_are_replaced_on_the_disk_are_used_without_a_restart(names, tmp_path):
    """Invariants 1 to 3: an authority and its certificates are exchanged on both sides, as before they expire."""
    write_certificates(tmp_path, trustme.CA())
    files = CertificateFiles(tmp_path / "ca.pem", tmp_path / "server.pem", tmp_path / "server.key")
    kafka = Kafka(tmp_path / "kafka", certificates=files, properties={"ssl.client.auth": "required"})
    with (
        Mosquitto(tmp_path / "mosquitto", certificates=files) as mosquitto,
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


# ---- files that are of no use


def test_a_start_between_the_replacing_of_a_certificate_and_of_its_key_waits_for_both(tmp_path, monkeypatch):
    """Else it would end for a wrong setting, after which nobody starts it again; what is old is refused at once."""
    monkeypatch.setattr("app.settings.tls_context.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("app.kafka.service.LOOK_SECONDS", 0.05)
    authority = trustme.CA()
    certificate, key = tmp_path / "a.pem", tmp_path / "a.key"
    old, new = authority.issue_cert("a.example"), authority.issue_cert("a.example")
    kafka = {"ssl.certificate.location": str(certificate), "ssl.key.location": str(key), "security.protocol": "SSL"}

    def start_mqtt():
        check_key(certificate, key)

    def start_kafka():
        producer = KafkaProducer({"bootstrap.servers": "127.0.0.1:1", "log_level": 0, **kafka})
        service = KafkaService(SimpleNamespace(producer=producer), [])
        monkeypatch.setattr(service, "add_future", lambda future: future.close())
        asyncio.run(service.on_start())
        producer.close()

    for start, error in ((start_mqtt, ValueError), (start_kafka, SettingsError)):
        new.cert_chain_pems[0].write_to_path(certificate)
        old.private_key_pem.write_to_path(key)
        timer = threading.Timer(0.3, new.private_key_pem.write_to_path, [key])
        timer.start()
        start()
        timer.join()
        old.private_key_pem.write_to_path(key)
        for file in (certificate, key):
            os.utime(file, (time.time() - 3600,) * 2)
        began = time.monotonic()
        with pytest.raises(error):
            start()
        assert time.monotonic() - began < 2


def test_files_that_are_of_no_use_for_mqtt_are_wrong_settings_and_nobody_is_asked_for_a_password(tmp_path, monkeypatch):
    """OpenSSL asks on the terminal for the password of an encrypted key, and waits, where nobody may be."""
    monkeypatch.setattr("app.settings.tls_context.WAIT_SECONDS", 0)
    authority = trustme.CA()
    issued, other = authority.issue_cert("a.example"), authority.issue_cert("b.example")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "a.pem")
    issued.private_key_pem.write_to_path(tmp_path / "a.key")
    other.private_key_pem.write_to_path(tmp_path / "b.key")
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    encryption = serialization.BestAvailableEncryption(SECRET.encode())
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (tmp_path / "encrypted.key").write_bytes(key.private_bytes(pem, form, encryption))

    def files(ca, certificate, private):
        names = {"MQTT_CA_FILE": ca, "MQTT_CERT_FILE": certificate, "MQTT_KEY_FILE": private}
        return {"MQTT_TLS": "true", **{name: str(tmp_path / file) for name, file in names.items()}}

    load(**files("ca.pem", "a.pem", "a.key"))
    (problem,) = problems_of(**files("a.key", "a.pem", "a.key"))
    assert problem.startswith("MQTT_CA_FILE: must be a PEM file with certificates of authorities")
    for private in ("b.key", "encrypted.key", "ca.pem"):
        (problem,) = problems_of(**files("ca.pem", "a.pem", private))
        assert problem.startswith(
            "MQTT_KEY_FILE: must be the private key of MQTT_CERT_FILE, both in PEM, and the key n"
        )
    with pytest.raises(OSError, match=r"^MQTT_KEY_FILE must be the private key of MQTT_CERT_FILE"):
        tls_context(tmp_path / "ca.pem", tmp_path / "a.pem", tmp_path / "encrypted.key")
